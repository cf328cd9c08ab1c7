"""Which measured blocks stand for one that was not: those that differ from it in widths alone.

Latency over width is a sawtooth wherever a runtime pads channels to the vectors of the processor,
so two blocks are only compared in a width in which both lie on the runtime's channel grid.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import fields
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog

from .blocks import Block
from .network import block_graph

WIDTH_FIELDS = ("in_channels", "out_channels", "expanded_channels", "hidden_channels")
"""The fields of blocks that count channels."""

NEGLIGIBLE = 1e-9
"""Weights below this are rounding errors of the linear programme."""

Family = tuple[Any, ...]
"""What blocks have in common that differ in widths alone."""


@lru_cache(maxsize=100_000)
def widths(block: Block) -> dict[str, int]:
    """The block's numbers of channels by field."""
    names = [item.name for item in fields(block) if item.name in WIDTH_FIELDS]
    return {name: getattr(block, name) for name in names}


@lru_cache(maxsize=100_000)
def family(block: Block) -> Family:
    """Kind, all fields but widths, and the operations (a width may switch one on or off)."""
    rest = tuple(
        (item.name, getattr(block, item.name))
        for item in fields(block)
        if item.name not in WIDTH_FIELDS
    )
    operations = tuple((type(node.op).__name__, node.inputs) for node in block_graph(block).nodes)
    return (type(block).__name__, rest, operations)


def off_grid(block: Block, grid: int) -> dict[str, tuple[int, int]]:
    """The widths off the channel grid, each with the neighbours on it."""
    found = {}
    for name, channels in widths(block).items():
        if channels % grid:
            below = channels // grid * grid
            found[name] = (max(below, grid), below + grid)
    return found


def comparable(block: Block, measured: Iterable[Block], grid: int) -> list[Block]:
    """Those of a family that differ from `block` only in widths in which both lie on the grid."""
    own = widths(block)
    return [
        other
        for other in measured
        if all(
            channels == own[name] or (channels % grid == 0 and own[name] % grid == 0)
            for name, channels in widths(other).items()
        )
    ]


def surrounding(block: Block, measured: Sequence[Block]) -> dict[Block, float]:
    """Weights of the measured blocks between which `block` lies; empty outside of all.

    They sum to 1 and average to the block's widths. Of all such weights those with the smallest
    mean squared relative distance: in one width the two neighbours, in several the corners of the
    Delaunay simplex, whichever widths happen to be measured.
    """
    if not measured:
        return {}
    offsets = _offsets(block, measured)
    constraints = np.vstack([offsets.T, np.ones(len(measured))])
    target = np.append(np.zeros(offsets.shape[1]), 1.0)
    found = linprog((offsets**2).sum(axis=1), A_eq=constraints, b_eq=target, method="highs-ds")
    if found.x is None:
        return {}
    return {
        other: float(weight)
        for other, weight in zip(measured, found.x, strict=True)
        if weight > NEGLIGIBLE
    }


def nearest(block: Block, measured: Sequence[Block]) -> Block:
    """The measured block at the smallest relative distance."""
    distances = (_offsets(block, measured) ** 2).sum(axis=1)
    return measured[int(distances.argmin())]


def _offsets(block: Block, measured: Sequence[Block]) -> NDArray[np.float64]:
    """(N, widths): relative to the block's own widths, so that each counts alike."""
    own = np.array(list(widths(block).values()), dtype=float)
    others = np.array([list(widths(other).values()) for other in measured], dtype=float)
    return np.asarray((others - own) / own)
