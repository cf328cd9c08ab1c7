"""Rows of the store's tables from rounds, visits and failures, and back; each with its CRC-32."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from pydantic import TypeAdapter
from sqlalchemy import Row

from ..devices.device import (
    ModelKey,
    Placement,
    Round,
    Setup,
    Summary,
    TimingProtocol,
    Visit,
)
from .kernel_run import KernelRun, read_content, run_content

Values = dict[str, Any]

_SETUP = TypeAdapter(Setup)


def to_text(value: Any) -> str:
    """JSON, the same for equal values."""
    return json.dumps(value, separators=(",", ":"), sort_keys=True, default=_plain)


def with_crc(values: Mapping[str, Any]) -> Values:
    """The row with the CRC-32 of its values, which stand in the table's order."""
    return {**values, "crc": _crc(values.values())}


def is_intact(row: Sequence[Any]) -> bool:
    """Whether a row read as (values..., crc) is the one that was written."""
    return bool(_crc(row[:-1]) == row[-1])


def round_values(setup_id: int, info_sha256: str, protocol: TimingProtocol, item: Round) -> Values:
    """The row of a round, without its visits and failures."""
    return with_crc(
        {
            "setup_id": setup_id,
            "run_id": item.run_id,
            "process": item.process,
            "round_index": item.index,
            "attempt": item.attempt,
            "accepted": int(item.accepted),
            "started_at": float(item.started_at),
            "duration_s": float(item.duration_s),
            "canary_ns": to_text(item.canary_ns),
            "canary_drift": float(item.canary_drift),
            "context": to_text(dict(item.context)),
            "info_sha256": info_sha256,
            "protocol": to_text(asdict(protocol)),
        }
    )


def visit_values(round_id: int, subject_id: int, eviction_bytes: int, visit: Visit) -> Values:
    """The row of a model's visit in a round."""
    preempted = None
    if visit.preempted is not None:
        preempted = "".join("1" if value else "0" for value in visit.preempted)
    return with_crc(
        {
            "round_id": round_id,
            "subject_id": subject_id,
            "eviction_bytes": int(eviction_bytes),
            "samples_ns": to_text(visit.samples_ns),
            "preempted": preempted,
        }
    )


def note_values(round_id: int, subject_id: int, eviction_bytes: int, visit: Visit) -> Values:
    """The row of what else is known of a visit: where the model ran, and a tool's summary."""
    known = {"placement": visit.placement, "summary": visit.summary}
    noted = {name: asdict(value) for name, value in known.items() if value is not None}
    return with_crc(
        {
            "round_id": round_id,
            "subject_id": subject_id,
            "eviction_bytes": int(eviction_bytes),
            "json": to_text(noted),
        }
    )


def failure_values(round_id: int, subject_id: int, eviction_bytes: int, cause: str) -> Values:
    """The row of a model's failure in a round."""
    return with_crc(
        {
            "round_id": round_id,
            "subject_id": subject_id,
            "eviction_bytes": int(eviction_bytes),
            # A runtime's message may hold bytes that are no UTF-8.
            "cause": cause.encode(errors="replace").decode(),
        }
    )


def kernel_run_values(setup_id: int, info_sha256: str, run: KernelRun) -> Values:
    """The row of a probe network's timing."""
    return with_crc(
        {
            "setup_id": setup_id,
            "network": run.network,
            "accepted": int(run.accepted),
            "started_at": float(run.started_at),
            "duration_s": float(run.duration_s),
            "canary_ns": to_text(run.canary_ns),
            "canary_drift": float(run.canary_drift),
            "info_sha256": info_sha256,
            "json": to_text(run_content(run)),
        }
    )


def keyed_values(key: str, values: Mapping[str, Any]) -> Values:
    """The row of a subject or setup."""
    return with_crc({"key": key, "json": to_text(values)})


def read_round(
    row: Row[Any], visits: Mapping[ModelKey, Visit], failures: Mapping[ModelKey, str]
) -> Round:
    """The round of a row."""
    return Round(
        run_id=row.run_id,
        process=row.process,
        index=row.round_index,
        attempt=row.attempt,
        accepted=bool(row.accepted),
        started_at=row.started_at,
        duration_s=row.duration_s,
        canary_ns=tuple(json.loads(row.canary_ns)),
        canary_drift=row.canary_drift,
        visits=visits,
        failures=failures,
        context=json.loads(row.context),
    )


def read_visit(row: Row[Any], note: str | None = None) -> Visit:
    """The visit of a row, and of its note where it has one."""
    preempted = None
    if row.preempted is not None:
        preempted = tuple(letter == "1" for letter in row.preempted)
    noted = {} if note is None else json.loads(note)
    return Visit(
        tuple(json.loads(row.samples_ns)),
        preempted,
        Placement(**noted["placement"]) if "placement" in noted else None,
        Summary(**noted["summary"]) if "summary" in noted else None,
    )


def read_kernel_run(row: Row[Any]) -> KernelRun:
    """The probe network's timing of a row; `ValueError` where its content is none."""
    split, cause = read_content(row.json)
    return KernelRun(
        network=row.network,
        accepted=bool(row.accepted),
        started_at=row.started_at,
        duration_s=row.duration_s,
        canary_ns=tuple(json.loads(row.canary_ns)),
        canary_drift=row.canary_drift,
        split=split,
        cause=cause,
    )


def read_setup(text: str) -> Setup:
    """The setup of a row's JSON; pydantic's `ValidationError` where it is none."""
    return _SETUP.validate_json(text, strict=True)


def _plain(value: Any) -> Any:
    """What JSON has no form for: numpy's scalars as numbers, the rest as text."""
    return value.item() if isinstance(value, np.generic) else str(value)


def _crc(values: Iterable[Any]) -> int:
    return zlib.crc32(repr(tuple(values)).encode())
