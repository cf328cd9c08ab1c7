"""BigNAS's space (Yu et al. 2020, table 1): resolution, and each stage's width, depth and kernel.

Layers of a stage share their kernel. All have squeeze-excite and swish; the paper says "as in
MobileNetV3", which has them in some layers.
"""

from __future__ import annotations

from dataclasses import dataclass

from .heads import pooled_head
from .layers import Properties
from .scale import PAPER, Scale
from .staged import HEAD_WIDTH, Stage, StagedSpace, Stem

RESOLUTIONS = (192, 224, 256, 288, 320)
WIDTH_STEP = 8
STEM, HIDDEN = (32, 40), (1280, 1408)


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the table: least and most channels, least and most layers."""

    widths: tuple[int, int]
    layers: tuple[int, int]
    expansion: int
    stride: int
    kernels: tuple[int, ...]


ROWS = (
    Row((16, 24), (1, 2), 1, 1, (3,)),
    Row((24, 32), (2, 3), 6, 2, (3,)),
    Row((40, 48), (2, 3), 6, 2, (3, 5)),
    Row((80, 88), (2, 4), 6, 2, (3, 5)),
    Row((112, 128), (2, 6), 6, 1, (3, 5)),
    Row((192, 216), (2, 6), 6, 2, (3, 5)),
    Row((320, 352), (1, 2), 6, 1, (3, 5)),
)


def bignas(classes: int = 1000, scale: Scale = PAPER) -> StagedSpace:
    """The space of one supernet whose children run from 200 to 1000 million multiply-adds."""

    def widths(ends: tuple[int, int]) -> tuple[int, ...]:
        steps = range(ends[0], ends[1] + 1, WIDTH_STEP)
        return tuple(dict.fromkeys(scale.channels(channels) for channels in steps))

    stem_stride, *strides = scale.strides((2, *(row.stride for row in ROWS)))
    stages = [
        Stage(
            widths(row.widths),
            row.layers[1],
            stride,
            Properties(row.kernels, (row.expansion,), (True,)),
            activation="swish",
            depths=tuple(range(row.layers[0], row.layers[1] + 1)),
            alike=True,
        )
        for row, stride in zip(ROWS, strides, strict=True)
    ]
    return StagedSpace(
        "bignas",
        resolutions=scale.resolutions or RESOLUTIONS,
        stem=Stem(widths(STEM), stem_stride, "swish"),
        stages=stages,
        head_widths={HEAD_WIDTH: widths(HIDDEN)},
        make_head=pooled_head(classes, "swish"),
    )
