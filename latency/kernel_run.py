"""A kernel run: one probe network timed once, as a whole and kernel by kernel inside it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError

from .splitting.model_split import Split


@dataclass(frozen=True, slots=True)
class KernelRun:
    """What one timing of a probe network gave: its split with times, or the cause of a failure.

    `canary_ns` are the canary's medians before, during and after it, `canary_drift` the share by
    which their median is slower than on the quiet device, as far as that was known then. A run
    that is not `accepted` was repeated; it is kept, but no fit uses it.
    """

    network: str
    accepted: bool
    started_at: float
    duration_s: float
    canary_ns: tuple[int, ...]
    canary_drift: float
    split: Split | None = None
    cause: str = ""


def run_content(run: KernelRun) -> dict[str, Any]:
    """The split of a run, or its cause, as plain JSON values."""
    if run.split is None:
        return {"cause": run.cause.encode(errors="replace").decode()}
    return {"split": asdict(run.split)}


def read_content(text: str) -> tuple[Split | None, str]:
    """What `run_content` gave, from JSON; `ValueError` where it is none of that."""
    data = json.loads(text)
    if "cause" in data:
        return None, str(data["cause"])
    try:
        return _SPLIT.validate_json(json.dumps(data["split"]), strict=True), ""
    except (KeyError, ValidationError) as error:
        raise ValueError(str(error)) from error


_SPLIT = TypeAdapter(Split)
