"""TuNAS's MobileNetV3-like space (Bender et al. 2020, section 4.1 and released code).

Each layer chooses kernel, expansion and squeeze-excite apart; each stage, the stem and both
layers of the head choose their channels among multiples of a base. How many layers a stage has at
most and where activations change follow MobileNetV3-Large (Howard et al. 2019, table 1), and are
not checked against TuNAS's own code.
"""

from __future__ import annotations

from .heads import mobilenet_v3_head
from .layers import OneOf, Operation, Properties
from .proxylessnas import MULTIPLIERS, RESOLUTION, multiples
from .scale import PAPER, Scale
from .staged import Stage, StagedSpace, Stem

STEM, FIRST, HIDDEN, POOLED = 16, 16, 512, 1024
FILTERS = (32, 64, 128, 128, 256)
STRIDES = (2, 2, 2, 1, 2)
LAYERS = 4
HARD_SWISH_FROM = 2
"""The first of these stages, counted from 0, that has hard swish where others have ReLU."""

CHOICES = Properties(kernels=(3, 5, 7), expansions=(1, 2, 3, 4, 5, 6), squeeze_excite=(False, True))


def mobilenet_v3_like(classes: int = 1000, scale: Scale = PAPER) -> StagedSpace:
    """The space: 20 layers to choose, of which all but the first of a stage may be skipped."""

    def widths(base: int) -> tuple[int, ...]:
        return multiples(base, MULTIPLIERS, scale)

    stem_stride, _, *strides = scale.strides((2, 1, *STRIDES))
    first = Stage(widths(FIRST), 1, 1, OneOf((Operation(3, 1),)), activation="relu")
    stages = [
        Stage(
            widths(base),
            LAYERS,
            stride,
            CHOICES,
            activation="hard_swish" if number >= HARD_SWISH_FROM else "relu",
            may_skip=True,
        )
        for number, (base, stride) in enumerate(zip(FILTERS, strides, strict=True))
    ]
    return StagedSpace(
        "mobilenet_v3_like",
        resolutions=scale.resolutions or (RESOLUTION,),
        stem=Stem(widths(STEM), stem_stride, "hard_swish"),
        stages=[first, *stages],
        head_widths={"head.hidden.width": widths(HIDDEN), "head.pooled.width": widths(POOLED)},
        make_head=mobilenet_v3_head(classes),
    )
