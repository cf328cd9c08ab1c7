"""A MobileNet-like space for 32-pixel images: kernel, expansion, depth and width of each stage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ...latency.blocks import Block, MBConv
from ..space import grid_ceil
from .heads import pooled_head
from .layers import OneOf, Operation
from .staged import HEAD_WIDTH, Stage, StagedSpace, Stem

WIDTH_GRID = 16
"""All channel counts of the space are multiples of it, and scaled middle channels stay so."""

OPERATIONS = tuple(Operation(kernel, expansion) for kernel in (3, 5) for expansion in (3, 6))


def mobile_stage(
    widths: Sequence[int],
    layers: int,
    stride: int,
    operations: Sequence[Operation] = OPERATIONS,
) -> Stage:
    """Layers of one width, each one of `operations`; all but the first may be skipped."""
    return Stage(tuple(widths), layers, stride, OneOf(tuple(operations)), may_skip=True)


STAGES = (
    mobile_stage((16, 32), 2, 1),
    mobile_stage((32, 48, 64), 3, 2),
    mobile_stage((64, 96, 128), 3, 2),
)


class MobileSpace(StagedSpace):
    """A stem, stages of inverted residual blocks, and a head.

    Each stage chooses its width, and each layer its operation: kernel 3 or 5 with expansion 3 or
    6, or, in layers other than a stage's first, `skip`.
    """

    def __init__(
        self,
        classes: int = 10,
        *,
        name: str = "mobile",
        stages: Sequence[Stage] = STAGES,
        resolution: int = 32,
        stem_channels: int = 16,
        hidden_channels: int = 256,
    ) -> None:
        super().__init__(
            name,
            resolutions=(resolution,),
            stem=Stem((stem_channels,)),
            stages=stages,
            head_widths={HEAD_WIDTH: (hidden_channels,)},
            make_head=pooled_head(classes),
        )

    def blocks(self) -> list[Block]:
        """Every distinct block, and those at the knots of elasticity-scaling's middle channels.

        Knots are the multiples of half the smallest expansion up to the largest (1.5, 3, 4.5, 6),
        rounded up to the grid: they hold the bounds of every operation, [half, all] of its own
        channels, so that a table interpolates between them.
        """
        found = super().blocks()
        layers = [block for block in found if isinstance(block, MBConv)]
        expansions = {block.expanded_channels / block.in_channels for block in layers}
        step = min(expansions) / 2
        knots = [step * (index + 1) for index in range(int(max(expansions) / step))]
        blocks = dict.fromkeys(found)
        for block in layers:
            for knot in knots:
                middle = grid_ceil(block.in_channels * knot, WIDTH_GRID)
                blocks.setdefault(replace(block, expanded_channels=middle))
        return list(blocks)


def mobile_space(classes: int = 10) -> MobileSpace:
    """The space with its default stages, for images of `classes` kinds."""
    return MobileSpace(classes)
