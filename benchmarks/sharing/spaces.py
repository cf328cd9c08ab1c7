"""The spaces in which ways of sharing weights are compared, small and large.

    latkit profile --device cpu --space benchmarks/sharing/spaces.py:large_widths ...

`operations`: kernel and expansion of each layer, depth of each stage. `widths`: the same, with
skips in place of depths, and the channels of each stage. `cells`: NAS-Bench-201's. Networks of the
small ones take at most 3 million multiply-adds.
"""

from __future__ import annotations

from collections.abc import Callable

from latkit.search.space import SearchSpace
from latkit.search.spaces import Scale
from latkit.search.spaces.heads import pooled_head
from latkit.search.spaces.layers import OneOf, Operation
from latkit.search.spaces.nasbench201 import NasBench201Space
from latkit.search.spaces.staged import HEAD_WIDTH, Stage, StagedSpace, Stem

CLASSES = 10
OPERATIONS = OneOf(tuple(Operation(kernel, expansion) for kernel in (3, 5) for expansion in (3, 6)))

Widths = tuple[tuple[int, ...], ...]


def small_operations() -> SearchSpace:
    """Three stages of up to two layers; 32 pixels, halved at once."""
    return _staged("operations", ((8,), (16,), (32,)), layers=2, stem_stride=2, skips=False)


def small_widths() -> SearchSpace:
    """The same with up to three widths a stage."""
    widths = ((8,), (8, 16), (16, 24, 32))
    return _staged("widths", widths, layers=2, stem_stride=2, skips=True)


def small_cells() -> SearchSpace:
    """One cell a stage, 8 to 32 channels, 16 pixels."""
    return NasBench201Space(CLASSES, Scale(width=0.5, resolutions=(16,)), cells=1)


def large_operations() -> SearchSpace:
    """Three stages of up to four layers; 32 pixels."""
    return _staged("operations", ((24,), (48,), (96,)), layers=4, stem_stride=1, skips=False)


def large_widths() -> SearchSpace:
    """The same with three widths a stage."""
    widths = ((16, 24, 32), (32, 48, 64), (64, 96, 128))
    return _staged("widths", widths, layers=4, stem_stride=1, skips=True)


def large_cells() -> SearchSpace:
    """The published space."""
    return NasBench201Space(CLASSES)


SPACES: dict[str, dict[str, Callable[[], SearchSpace]]] = {
    "small": {"operations": small_operations, "widths": small_widths, "cells": small_cells},
    "large": {"operations": large_operations, "widths": large_widths, "cells": large_cells},
}


def _staged(
    name: str, widths: Widths, *, layers: int, stem_stride: int, skips: bool
) -> StagedSpace:
    """Stages of these widths; layers are skipped one by one, or a stage's depth is chosen."""
    strides = (1, 2, 2)
    stages = [
        Stage(
            width,
            layers,
            stride,
            OPERATIONS,
            depths=() if skips else tuple(range(1, layers + 1)),
            may_skip=skips,
        )
        for width, stride in zip(widths, strides, strict=True)
    ]
    return StagedSpace(
        name,
        resolutions=(32,),
        stem=Stem((16,), stem_stride),
        stages=stages,
        head_widths={HEAD_WIDTH: (128 if layers == 2 else 256,)},
        make_head=pooled_head(CLASSES),
    )
