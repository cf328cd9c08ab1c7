"""Rows of shared tables: each becomes an entry, or is refused with the cause; none gets lost."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from ..devices.errors import DamagedFileError, UsageError
from .blocks import Block
from .table_entry import Entry

REFUSED_SHOWN = 20
"""Refused rows that a message names; `ImportedTable.refused` has them all."""

LONGEST_TEXT = 120
"""Characters of a cell that a message shows."""


@dataclass(frozen=True, slots=True)
class Row:
    """A row that says how long a block takes. `key` and `value` are as the file has them."""

    number: int
    key: str
    value: str
    block: Block
    entry: Entry


Problem = Literal["broken row", "bad latency", "duplicate", "no such block"]


@dataclass(frozen=True, slots=True)
class RefusedRow:
    """A row that can't be used, and why: `problem` is the kind of cause.

    `row` is the line of a CSV file (the header is line 1), the place of a JSON record from 1, or
    that of a data frame's row from 0.
    """

    row: int
    key: str
    value: str
    problem: Problem
    cause: str

    def __str__(self) -> str:
        return f"row {self.row}: {self.key}, {self.value}: {self.problem}: {self.cause}"


def collect(
    rows: Iterable[Row | RefusedRow],
) -> tuple[dict[Block, Entry], tuple[RefusedRow, ...]]:
    """The entries of the good rows, and all the others in the order of their numbers.

    Rows that give one block different latencies contradict each other, and nothing tells which is
    right: all of them are refused. Rows that say the same count once.
    """
    refused: list[RefusedRow] = []
    by_block: defaultdict[Block, list[Row]] = defaultdict(list)
    for row in rows:
        if isinstance(row, Row):
            by_block[row.block].append(row)
        else:
            refused.append(row)
    entries = {}
    for block, same in by_block.items():
        others = [row for row in same if row.entry != same[0].entry]
        if not others:
            entries[block] = same[0].entry
            continue
        for row in same:
            other = others[0] if row.entry == same[0].entry else same[0]
            cause = f"row {other.number} gives {other.value} for the same block"
            refused.append(RefusedRow(row.number, row.key, row.value, "duplicate", cause))
    return entries, tuple(sorted(refused, key=lambda row: row.row))


def counted(refused: Iterable[RefusedRow]) -> str:
    """How many rows are refused for each kind of cause."""
    counts = Counter(row.problem for row in refused)
    return ", ".join(f"{count} {problem}" for problem, count in counts.most_common())


def refusal(name: str, refused: Sequence[RefusedRow], good: int) -> DamagedFileError:
    """The error for a table with rows that can't be used; it names the first of them."""
    listed = [f"  {row}" for row in refused[:REFUSED_SHOWN]]
    if len(refused) > REFUSED_SHOWN:
        listed.append(f"  ... and {len(refused) - REFUSED_SHOWN} more")
    rows = "1 row" if len(refused) == 1 else f"{len(refused)} rows"
    remedy = (
        f"Mend them, or leave them out (--skip-bad-rows): {good} blocks are left."
        if good
        else "No other row is left."
    )
    problems = f"{name} has {rows} that can't be used ({counted(refused)}). {remedy}"
    return DamagedFileError("\n".join([problems, *listed]))


def shown(value: Any) -> str:
    """A cell as messages show it."""
    text = "nothing" if is_missing(value) else str(value)
    return text if len(text) <= LONGEST_TEXT else text[:LONGEST_TEXT] + "..."


def is_missing(value: Any) -> bool:
    """Whether a cell is empty: none, not a number, no text."""
    return value is None or value == "" or bool(pd.api.types.is_scalar(value) and pd.isna(value))


def positive_ms(value: Any) -> float:
    """A latency in ms; `UsageError` where it is none."""
    if is_missing(value):
        raise UsageError("the latency is missing")
    latency_ms = number(value, "the latency")
    if not math.isfinite(latency_ms):
        raise UsageError("the latency is no finite number")
    if latency_ms <= 0:
        raise UsageError("the latency is " + ("negative" if latency_ms < 0 else "zero"))
    return latency_ms


def number(value: Any, what: str) -> float:
    """A number, as text too; `UsageError` where it is none. It may be infinite, or no number."""
    try:
        # Python reads 1_0 as 10; in a file it is damage.
        if isinstance(value, bool) or "_" in str(value):
            raise ValueError
        return float(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise UsageError(f"{what} is no number") from error


def whole_number(value: Any, what: str) -> int:
    """A whole number, as text or as a float too; `UsageError` where it is none."""
    found = number(value, what)
    if not found.is_integer():
        raise UsageError(f"{what} is no whole number")
    return int(found)
