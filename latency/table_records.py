"""Our own form of a shared table: a record for each block, for data frames, CSV and JSON.

A record has the block's kind and fields (one that holds several numbers as a JSON list),
`median_ms`, `low_ms`, `high_ms` (95 % interval), `verdict`, and `reasons` as a JSON list. What
holds for the whole table (setup, eviction, channel grid, calibration) stands as JSON in the column
`table` of the first record. Records that others wrote by hand may leave out all but the block and
`median_ms`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any, get_args

from ..devices.errors import DamagedFileError, UsageError
from .blocks import BLOCK_KINDS, Block
from .subject import block_from_json, subject_to_json
from .table_entry import Entry, VerdictKind
from .table_rows import RefusedRow, Row, is_missing, positive_ms, shown

ABOUT = "table"
ENTRY_COLUMNS = ("median_ms", "low_ms", "high_ms", "verdict", "reasons")
NO_INTERVAL = "no interval is known"


def to_records(about: Mapping[str, Any], entries: Mapping[Block, Entry]) -> list[dict[str, Any]]:
    """The records of a table, in the order of its entries."""
    records: list[dict[str, Any]] = []
    for block, entry in entries.items():
        record = {
            name: json.dumps(value) if isinstance(value, tuple) else value
            for name, value in subject_to_json(block).items()
        }
        record |= {name: getattr(entry, name) for name in ENTRY_COLUMNS}
        record["reasons"] = json.dumps(entry.reasons) if entry.reasons else None
        records.append(record | {ABOUT: None if records else json.dumps(about)})
    return records


def columns_of(records: Iterable[Mapping[str, Any]]) -> list[str]:
    """The columns of records in the order to show them: the block, its latency, the table."""
    last = (*ENTRY_COLUMNS, ABOUT)
    return [
        *dict.fromkeys(name for record in records for name in record if name not in last),
        *last,
    ]


def about_of(records: Iterable[Mapping[str, Any]]) -> dict[str, Any] | None:
    """What the records say of the whole table; `None` where they say nothing.

    Raises `DamagedFileError` where it is no JSON object, and where records say different things.
    """
    found = {str(cell) for record in records if not is_missing(cell := record.get(ABOUT))}
    if not found:
        return None
    if len(found) > 1:
        raise DamagedFileError(
            f"column {ABOUT}: it holds what {len(found)} different tables are of. Split the rows "
            "by table, one of which each came from."
        )
    try:
        about = json.loads(found.pop())
    except (ValueError, RecursionError) as error:
        raise DamagedFileError(f"column {ABOUT} is no JSON: {error}") from error
    if not isinstance(about, dict):
        raise DamagedFileError(f"column {ABOUT}: a JSON object is needed")
    return about


def read_record(number: int, record: Mapping[str, Any]) -> Row | RefusedRow:
    """The block and entry of one record."""
    values = {
        name: _plain(value)
        for name, value in record.items()
        if name not in (*ENTRY_COLUMNS, ABOUT) and not is_missing(value)
    }
    key = shown(", ".join(f"{name}={cell}" for name, cell in values.items()))
    value = shown(record.get("median_ms"))
    try:
        entry = _entry(record)
    except UsageError as error:
        return RefusedRow(number, key, value, "bad latency", str(error))
    for name in _truths(values.get("kind")) & values.keys():
        # pandas' JSON reader makes numbers of truths where other rows have none.
        if values[name] in (0, 1):
            values[name] = bool(values[name])
    try:
        block = block_from_json(values, "block")
    except UsageError as error:
        return RefusedRow(number, key, value, "no such block", str(error))
    return Row(number, block.key, value, block, entry)


def _truths(kind: Any) -> set[str]:
    """The fields of a kind of block that are true or false."""
    known = BLOCK_KINDS.get(str(kind))
    return {item.name for item in fields(known) if item.type in (bool, "bool")} if known else set()


def _entry(record: Mapping[str, Any]) -> Entry:
    median_ms = positive_ms(record.get("median_ms"))
    low, high, verdict = (record.get(name) for name in ("low_ms", "high_ms", "verdict"))
    reasons = _reasons(record.get("reasons"))
    if is_missing(low) and is_missing(high):
        low = high = median_ms
        reasons = (*reasons, NO_INTERVAL)
    if is_missing(verdict):
        verdict = "unknown"
    kinds: dict[str, VerdictKind] = {kind: kind for kind in get_args(VerdictKind)}
    if str(verdict) not in kinds:
        raise UsageError(f"verdict {shown(verdict)}: it is one of {', '.join(kinds)}")
    return Entry(median_ms, positive_ms(low), positive_ms(high), kinds[str(verdict)], reasons)


def _reasons(cell: Any) -> tuple[str, ...]:
    if is_missing(cell):
        return ()
    try:
        reasons = json.loads(cell)
    except (TypeError, ValueError, RecursionError) as error:
        raise UsageError("the reasons are no JSON list") from error
    if not isinstance(reasons, list) or not all(isinstance(item, str) for item in reasons):
        raise UsageError("the reasons are no list of texts")
    return tuple(reasons)


def _listed(text: str) -> Any:
    """The list that a cell holds as JSON; the text where it holds none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _plain(value: Any) -> Any:
    """A cell as JSON has it: CSV knows texts only, frames have floats for whole numbers."""
    if isinstance(value, str):
        if value.lower() in ("true", "false"):
            return value.lower() == "true"
        if value.startswith("["):
            return _listed(value)
        digits = value.removesuffix(".0")
        return int(digits) if digits.isdecimal() and len(digits) < 19 else value
    value = value.item() if hasattr(value, "item") else value
    return int(value) if isinstance(value, float) and value.is_integer() else value
