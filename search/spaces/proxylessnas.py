"""The spaces of ProxylessNAS (Cai et al. 2019) as TuNAS searches them, and the enlarged one.

Sizes from TuNAS's released code (Bender et al. 2020). An inverted residual block of expansion 1
follows the stem; then stages of up to 4 layers, each with kernel 3, 5 or 7 and expansion 3 or 6,
of which all but the first of a stage may be skipped; then a last layer and the head.
"""

from __future__ import annotations

from collections.abc import Sequence

from .heads import pooled_head
from .layers import OneOf, Operation
from .scale import PAPER, Scale, rounded_channels
from .staged import HEAD_WIDTH, Stage, StagedSpace, Stem

RESOLUTION = 224
FILTERS = (32, 16, 32, 40, 80, 96, 192, 320, 1280)
"""Channels of stem, first block, five stages, last layer and head."""

ENLARGED_FILTERS = (16, 16, 16, 32, 64, 128, 256, 512, 1024)
MULTIPLIERS = (0.5, 0.625, 0.75, 1.0, 1.25, 1.5, 2.0)
"""In the enlarged space every one of these filters is chosen among its multiples."""

LAYERS = (1, 4, 4, 4, 4, 4, 1)
STRIDES = (1, 2, 2, 2, 1, 2, 1)
OPERATIONS = tuple(Operation(kernel, expansion) for kernel in (3, 5, 7) for expansion in (3, 6))


def proxylessnas(classes: int = 1000, scale: Scale = PAPER) -> StagedSpace:
    """The ProxylessNAS space: 21 layers to choose."""
    return _space("proxylessnas", FILTERS, (1.0,), classes, scale)


def proxylessnas_enlarged(classes: int = 1000, scale: Scale = PAPER) -> StagedSpace:
    """The enlarged space, which chooses all channel counts too; MobileNetV2 is in it."""
    return _space("proxylessnas_enlarged", ENLARGED_FILTERS, MULTIPLIERS, classes, scale)


def _space(
    name: str,
    filters: Sequence[int],
    multipliers: Sequence[float],
    classes: int,
    scale: Scale,
) -> StagedSpace:
    widths = [multiples(channels, multipliers, scale) for channels in filters]
    stem_stride, *strides = scale.strides((2, *STRIDES))
    stages = [
        Stage(
            width,
            layers,
            stride,
            OneOf((Operation(3, 1),) if number == 0 else OPERATIONS),
            may_skip=layers > 1,
        )
        for number, (width, layers, stride) in enumerate(
            zip(widths[1:-1], LAYERS, strides, strict=True)
        )
    ]
    return StagedSpace(
        name,
        resolutions=scale.resolutions or (RESOLUTION,),
        stem=Stem(widths[0], stem_stride),
        stages=stages,
        head_widths={HEAD_WIDTH: widths[-1]},
        make_head=pooled_head(classes),
    )


def multiples(base: int, multipliers: Sequence[float], scale: Scale) -> tuple[int, ...]:
    """The channel counts that a base and its multipliers give, each once."""
    rounded = (rounded_channels(base * factor) for factor in multipliers)
    return tuple(dict.fromkeys(map(scale.channels, rounded)))
