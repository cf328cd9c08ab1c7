"""What the file of a latency table holds, checked as it is read."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..devices.device import Setup
from ..devices.errors import DamagedFileError, UsageError
from .blocks import Block
from .calibration import Calibration
from .subject import block_from_json
from .table_entry import Entry, EvictionTrial, VerdictKind

VERSION = 2
"""Version 2 added the verdict `unknown`, for entries that others measured."""

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class EntryBody(BaseModel):
    """One entry as it stands in a file."""

    model_config = ConfigDict(extra="forbid")
    block: dict[str, Any]
    median_ms: Positive
    low_ms: Positive
    high_ms: Positive
    verdict: VerdictKind
    reasons: tuple[str, ...]


class TableAbout(BaseModel):
    """What holds for a whole table."""

    model_config = ConfigDict(extra="forbid")
    setup: Setup
    eviction_bytes: Annotated[int, Field(ge=0)]
    channel_grid: Annotated[int, Field(ge=1)]
    calibration: Calibration
    trials: tuple[EvictionTrial, ...]


class TableBody(TableAbout):
    """What a table's file holds, versions 1 and 2."""

    entries: list[EntryBody]

    def blocks(self) -> dict[Block, Entry]:
        """The entries by block; `UsageError` names the one that is impossible."""
        return entries_by_block(self.entries)


def entries_by_block(entries: Sequence[EntryBody]) -> dict[Block, Entry]:
    """What entries of a file say of their blocks; `UsageError` names the one that is impossible."""
    found: dict[Block, Entry] = {}
    for index, item in enumerate(entries):
        block = block_from_json(item.block, f"entry {index}")
        try:
            found[block] = Entry(
                item.median_ms, item.low_ms, item.high_ms, item.verdict, item.reasons
            )
        except UsageError as error:
            raise UsageError(f"entry {index}, {block}: {error}") from error
    return found


def check_latencies(body: Any) -> None:
    """Raise `UsageError` naming the block whose latency is no positive, finite number.

    For bodies that are not validated yet, which say no more than where in the file it is.
    """
    entries = body.get("entries") if isinstance(body, dict) else None
    for index, entry in enumerate(entries if isinstance(entries, list) else ()):
        for name in ("median_ms", "low_ms", "high_ms"):
            value = entry.get(name) if isinstance(entry, dict) else None
            if isinstance(value, int | float) and not 0 < value < math.inf:
                raise UsageError(
                    f"{name} of entry {index} is {value}, no positive number of milliseconds: "
                    f"{entry.get('block')}"
                )


def parse_about(about: Mapping[str, Any]) -> TableAbout:
    """Read what shared rows say of their table, with `version` beside it.

    `DamagedFileError` where it makes no sense or is newer.
    """
    version = about.get("version")
    if type(version) is not int or version < 1:
        raise DamagedFileError(f"what the rows say of their table has no version: {version!r}")
    if version > VERSION:
        raise DamagedFileError(
            f"the rows are of version {version} of latency tables; this latkit reads up to "
            f"{VERSION}. Install a newer latkit, which reads version {version}."
        )
    values = {name: value for name, value in about.items() if name != "version"}
    try:
        return TableAbout.model_validate_json(json.dumps(values, allow_nan=False), strict=True)
    except (ValidationError, ValueError) as error:
        raise DamagedFileError(f"what the rows say of their table is none: {error}") from error
