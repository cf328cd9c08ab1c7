"""Channel grid of a runtime: the widths at which its latency over channels runs smoothly.

Runtimes compute channels in vectors of 4 to 32, so latency over width is a sawtooth: what lies
between two multiples of the vector costs as much as the next multiple, or more. A few blocks that
differ in one width show which multiples those are.

Decision rule of `channel_grid`: of the steps 32, 16, 8 and 4, the largest one whose multiples are
all needed. Every probe halfway between two neighbouring multiples of the step (for 4: every probe
that is no multiple of it) is compared with the straight line between those two. Where nothing is
padded the two agree, apart from noise; where the step is the vector, the halfway points stick out
above the line, as if they had the channels of the next multiple. The step is the grid if their
median sticks out by `STICKING_OUT`, by `PADDING_SHARE` of what such padding would cost, and by
`NOISE_FACTOR` times its own uncertainty. If no step does, latency is smooth, any width would do,
and `DEFAULT_GRID` is kept, which divides the widths that spaces are made of.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ..devices.errors import UsageError
from .blocks import MBConv

GRIDS = (32, 16, 8, 4)
DEFAULT_GRID = 8

STICKING_OUT = 0.04
"""Share by which points off the grid must lie above the line through points on it."""

PADDING_SHARE = 1 / 3
"""Share of the cost of padding to the next multiple that they must stick out by. A runtime that
prefers multiples of 32 a little and needs those of 16 has the grid of 16."""

NOISE_FACTOR = 3.0
"""How many of its standard errors the median must lie above the line."""

FEWEST_POINTS = 3
"""Points halfway between multiples that a step needs to be judged by."""

DIP = 0.01
"""Share by which a wider probe may be faster and still count as noise."""

PROBE_CHANNELS = (*range(32, 132, 4), 33, 46, 57, 70, 83, 94)
"""Widths to probe: all multiples of 4 over three periods of 32, and some that are none."""


def probe_blocks(pixels: int = 14) -> list[MBConv]:
    """Blocks that show the grid: 1x1, depthwise 3x3, 1x1, alike but for the channels between.

    The 16 channels at either end lie on the grid of every step up to 16.
    """
    return [
        MBConv(
            in_channels=16,
            out_channels=16,
            expanded_channels=channels,
            height=pixels,
            width=pixels,
            residual=False,
        )
        for channels in sorted(PROBE_CHANNELS)
    ]


def channel_grid(channels: Sequence[int], latency_ms: Sequence[float]) -> int:
    """The step on whose multiples latency over width is smooth: 4, 8, 16 or 32.

    The rule stands at the top of the module. 8 unless the probes clearly say otherwise, or where
    there are too few of them to tell. Raises `UsageError` for latencies that can't be.
    """
    if len(channels) != len(latency_ms) or not all(0 < value < math.inf for value in latency_ms):
        raise UsageError("each probed width needs one latency, positive and finite")
    probes = dict(zip(channels, latency_ms, strict=True))
    for step in GRIDS:
        halfway = _halfway(probes, step)
        if _sticks_out(excess(probes, step), np.array([-c % step / c for c in halfway])):
            return step
    return DEFAULT_GRID


def grows(channels: Sequence[int], latency_ms: Sequence[float], grid: int) -> bool:
    """Whether the probes confirm that on multiples of `grid` a wider block is never faster.

    No where fewer than `FEWEST_POINTS` of them lie there.
    """
    on_grid = sorted(
        (width, value)
        for width, value in zip(channels, latency_ms, strict=True)
        if width % grid == 0
    )
    steps = [after / before for (_, before), (_, after) in itertools.pairwise(on_grid)]
    return len(on_grid) >= FEWEST_POINTS and min(steps) >= 1 - DIP


def excess(probes: Mapping[int, float], step: int) -> NDArray[np.float64]:
    """By what share the probes halfway between multiples of `step` lie above the line."""
    found = []
    for channels in _halfway(probes, step):
        below = channels // step * step
        share = (channels - below) / step
        line = (1 - share) * probes[below] + share * probes[below + step]
        found.append(probes[channels] / line - 1)
    return np.array(found)


def _halfway(probes: Mapping[int, float], step: int) -> list[int]:
    """The probed widths halfway between two probed multiples of `step`.

    For 4 that is every width which is no multiple of it; no finer step is told apart.
    """
    half = step // 2 if step > min(GRIDS) else 1
    return [
        channels
        for channels in sorted(probes)
        if channels % step
        and channels % half == 0
        and {channels // step * step, channels // step * step + step} <= probes.keys()
    ]


def _sticks_out(above_line: NDArray[np.float64], padding: NDArray[np.float64]) -> bool:
    """Whether the points stick out; `padding` is by how much they would if they were padded."""
    if len(above_line) < FEWEST_POINTS:
        return False
    middle = float(np.median(above_line))
    spread = 1.4826 * float(np.median(np.abs(above_line - middle)))
    return middle > max(
        STICKING_OUT,
        PADDING_SHARE * float(np.median(padding)),
        NOISE_FACTOR * spread / math.sqrt(len(above_line)),
    )
