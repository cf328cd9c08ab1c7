"""What spaces of cells have in common: how a cell's inputs are brought to it, and its operations.

A cell reads the outputs of the two cells before it (Zoph et al. 2018, section 3).
"""

from __future__ import annotations

from dataclasses import dataclass

from ...latency.blocks import (
    Block,
    CellConv,
    FactorisedConv,
    FactorisedReduce,
    Pooling,
    SeparableConv,
    Skip,
)
from ...latency.ops import PoolKind
from ..choices import Choice, Mirror

KINDS = ("normal", "reduce")
"""The cells of a network: those that keep the size, and those that halve it."""


SLOTS = ("first", "second")
"""The halves of a node: a value each, through an operation of its own."""


@dataclass(frozen=True, slots=True)
class CellValue:
    """A cell's output, or the stem's."""

    name: str
    channels: int
    size: int


def entry(value: CellValue, channels: int, size: int) -> Block:
    """What brings a cell's input to the channels and the size of the cell."""
    place = {"in_channels": value.channels, "height": value.size, "width": value.size}
    if value.size == size:
        return CellConv(**place, out_channels=channels)
    return FactorisedReduce(**place, out_channels=channels)


def operation(name: str, channels: int, size: int, stride: int) -> Block:
    """The block of an operation of DARTS's, ENAS's or NASNet's, as each paper calls it."""
    place = {"in_channels": channels, "height": size, "width": size}
    match name.split("_"):
        case ["max" | "avg" as kind, "pool", window]:
            pool: PoolKind = "max" if kind == "max" else "average"
            return Pooling(**place, pool=pool, kernel=int(window[0]), stride=stride)
        case ["skip", "connect"] | ["identity"]:
            if stride == 1:
                return Skip(**place)
            return FactorisedReduce(**place, out_channels=channels)
        case ["sep" | "dil" as kind, "conv", window]:
            dilated = kind == "dil"
            return SeparableConv(
                **place,
                out_channels=channels,
                kernel=int(window[0]),
                stride=stride,
                dilation=2 if dilated else 1,
                repeats=1 if dilated else 2,
            )
        case ["conv", window]:
            return CellConv(**place, out_channels=channels, kernel=int(window[0]), stride=stride)
        case ["conv", across, _]:
            kernel = int(across[-1])
            return FactorisedConv(**place, out_channels=channels, kernel=kernel, stride=stride)
        case _:
            raise AssertionError(name)


def cell_kinds(cells: int) -> list[str]:
    """The kind of each cell: reductions after a third and two thirds of them."""
    reductions = (cells // 3, 2 * cells // 3)
    return ["reduce" if number in reductions else "normal" for number in range(cells)]


def half_choices(node: str, slot: str, values: int, operations: tuple[str, ...]) -> list[Choice]:
    """Which of the cell's first `values` values a half of a node reads, and its operation."""
    name = f"{node}.{slot}"
    return [Choice(f"{name}.input", tuple(range(values))), Choice(name, operations)]


def mirrored(node: str) -> Mirror:
    """The two halves of a node, which may be exchanged."""
    first, second = ((f"{node}.{slot}.input", f"{node}.{slot}") for slot in SLOTS)
    return first, second
