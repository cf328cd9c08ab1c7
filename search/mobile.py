"""A MobileNet-like space for 32-pixel images: kernel, expansion, depth and width of each stage."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..latency.blocks import Block, ConvBlock, Head, MBConv
from .choices import SKIP, Choice
from .space import Piece, SearchSpace, grid_ceil

WIDTH_GRID = 16
"""All channel counts of the space are multiples of it, and scaled middle channels stay so."""


@dataclass(frozen=True, slots=True)
class Operation:
    """What a layer of the space can be: an inverted residual block."""

    kernel: int
    expansion: int

    @property
    def name(self) -> str:
        """How the choice's option is called."""
        return f"mbconv k{self.kernel} e{self.expansion}"


@dataclass(frozen=True, slots=True)
class Stage:
    """Layers of one width; the first has the stride, and the others may be skipped."""

    widths: tuple[int, ...]
    layers: int
    stride: int


OPERATIONS = tuple(Operation(kernel, expansion) for kernel in (3, 5) for expansion in (3, 6))
STAGES = (Stage((16, 32), 2, 1), Stage((32, 48, 64), 3, 2), Stage((64, 96, 128), 3, 2))


class MobileSpace(SearchSpace):
    """A stem, stages of inverted residual blocks, and a head.

    Each stage chooses its width, and each layer its operation: kernel 3 or 5 with expansion 3 or
    6, or, in layers other than a stage's first, `skip`. Choices are called `stage1.width`,
    `stage1.layer1`, ... Blocks cost by (width before, width, operation) in first layers, by
    (width, operation) in the others.
    """

    def __init__(
        self,
        classes: int = 10,
        *,
        name: str = "mobile",
        stages: Sequence[Stage] = STAGES,
        operations: Sequence[Operation] = OPERATIONS,
        resolution: int = 32,
        stem_channels: int = 16,
        hidden_channels: int = 256,
    ) -> None:
        self.classes = classes
        self.stages = tuple(stages)
        self.operations = {operation.name: operation for operation in operations}
        self.stem = ConvBlock(
            in_channels=3, out_channels=stem_channels, height=resolution, width=resolution, stride=2
        )
        self.hidden_channels = hidden_channels
        super().__init__(
            name,
            [choice for index in range(len(self.stages)) for choice in self._stage_choices(index)],
            self._chain_pieces(),
            [
                self.layer_names(index)[1:]
                for index, stage in enumerate(self.stages)
                if stage.layers > 1
            ],
        )

    def width_name(self, stage: int) -> str:
        """Name of the choice of a stage's width; stages count from 0."""
        return f"stage{stage + 1}.width"

    def layer_names(self, stage: int) -> tuple[str, ...]:
        """Names of the choices of a stage's layers."""
        return tuple(f"stage{stage + 1}.layer{n + 1}" for n in range(self.stages[stage].layers))

    def blocks(self) -> list[Block]:
        """Every distinct block, and those at the knots of elasticity-scaling's middle channels.

        Knots are the multiples of half the smallest expansion up to the largest (1.5, 3, 4.5, 6),
        rounded up to the grid: they hold the bounds of every operation, [half, all] of its own
        channels, so that a table interpolates between them.
        """
        expansions = [operation.expansion for operation in self.operations.values()]
        step = min(expansions) / 2
        knots = [step * (index + 1) for index in range(int(max(expansions) / step))]
        blocks = dict.fromkeys(super().blocks())
        for block in list(blocks):
            if isinstance(block, MBConv):
                for knot in knots:
                    middle = grid_ceil(block.in_channels * knot, WIDTH_GRID)
                    blocks.setdefault(replace(block, expanded_channels=middle))
        return list(blocks)

    def _stage_choices(self, index: int) -> Iterator[Choice]:
        options = tuple(self.operations)
        yield Choice(self.width_name(index), self.stages[index].widths)
        for number, name in enumerate(self.layer_names(index)):
            yield Choice(name, (*options, SKIP) if number else options)

    def _chain_pieces(self) -> Iterator[Piece]:
        yield Piece((), lambda: self.stem)
        size = self.stem.output_shape[1]
        for index, stage in enumerate(self.stages):
            width, (first, *others) = self.width_name(index), self.layer_names(index)
            before = (self.width_name(index - 1),) if index else ()
            yield Piece((*before, width, first), self._first_layer(size, stage.stride), index)
            size = -(-size // stage.stride)
            for name in others:
                yield Piece((width, name), self._other_layer(size), index)
        yield Piece((self.width_name(len(self.stages) - 1),), self._head(size))

    def _first_layer(self, size: int, stride: int) -> Callable[..., Block]:
        def build(*options: Any) -> Block:
            *before, width, operation = options
            in_channels = before[0] if before else self.stem.out_channels
            return self._layer(self.operations[operation], in_channels, width, size, stride)

        return build

    def _other_layer(self, size: int) -> Callable[..., Block | None]:
        def build(width: int, operation: str) -> Block | None:
            if operation == SKIP:
                return None
            return self._layer(self.operations[operation], width, width, size, 1)

        return build

    def _head(self, size: int) -> Callable[..., Block]:
        def build(width: int) -> Block:
            return Head(
                in_channels=width,
                height=size,
                width=size,
                hidden_channels=self.hidden_channels,
                classes=self.classes,
            )

        return build

    @staticmethod
    def _layer(
        operation: Operation, in_channels: int, out_channels: int, size: int, stride: int
    ) -> MBConv:
        return MBConv(
            in_channels=in_channels,
            out_channels=out_channels,
            expanded_channels=operation.expansion * in_channels,
            height=size,
            width=size,
            kernel=operation.kernel,
            stride=stride,
        )


def mobile_space(classes: int = 10) -> MobileSpace:
    """The space with its default stages, for images of `classes` kinds."""
    return MobileSpace(classes)
