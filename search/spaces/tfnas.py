"""TF-NAS's space (Hu et al. 2020, section 3.1 and released code): operations, depths, and widths.

Eight operations a layer, a depth for each stage, and middle channels that elasticity-scaling
moves. There is no skip: sink-connecting chooses how many layers of a stage are kept. Activations
of stages are those of the blocks in its published tables of latencies; the head's is as recalled
from the code, not checked.
"""

from __future__ import annotations

from .heads import pooled_head
from .layers import OneOf, Operation
from .scale import PAPER, Scale
from .staged import HEAD_WIDTH, Stage, StagedSpace, Stem

RESOLUTION = 224
STEM, FIRST, HIDDEN = 32, 16, 1280
WIDTHS = (24, 40, 80, 112, 192, 320)
LAYERS = (2, 3, 4, 4, 4, 1)
STRIDES = (2, 2, 2, 1, 2, 1)
SWISH_FROM = 1
"""The first of these stages, counted from 0, that has swish where others have ReLU."""

OPERATIONS = tuple(
    Operation(kernel, expansion, squeeze_excite)
    for squeeze_excite in (False, True)
    for kernel in (3, 5)
    for expansion in (3, 6)
)


def tfnas(classes: int = 1000, scale: Scale = PAPER) -> StagedSpace:
    """The space: 18 layers to choose, and how many of each stage are kept."""
    stem_stride, _, *strides = scale.strides((2, 1, *STRIDES))
    first = Stage((scale.channels(FIRST),), 1, 1, OneOf((Operation(3, 1),)), activation="relu")
    stages = [
        Stage(
            (scale.channels(width),),
            layers,
            stride,
            OneOf(OPERATIONS),
            activation="swish" if number >= SWISH_FROM else "relu",
            depths=tuple(range(1, layers + 1)) if layers > 1 else (),
        )
        for number, (width, layers, stride) in enumerate(zip(WIDTHS, LAYERS, strides, strict=True))
    ]
    return StagedSpace(
        "tfnas",
        resolutions=scale.resolutions or (RESOLUTION,),
        stem=Stem((scale.channels(STEM),), stem_stride, "relu"),
        stages=[first, *stages],
        head_widths={HEAD_WIDTH: (scale.channels(HIDDEN),)},
        make_head=pooled_head(classes, "swish"),
    )
