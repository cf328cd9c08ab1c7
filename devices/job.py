"""What a worker process is told, and what it leaves behind if it dies."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

CANARY = -1
"""Number of the canary among the models."""


@dataclass(frozen=True)
class Job:
    """The models that a worker loads: places of files, each with its eviction bytes.

    Numbers in `skip` name models that are known to fail. `warmups` and `warmup_ms` are those of
    `TimingProtocol`.
    """

    canary: str
    models: tuple[tuple[str, int], ...]
    skip: tuple[int, ...]
    warmups: int
    warmup_ms: float


@dataclass(frozen=True)
class HostJob:
    """What a worker process of this host is told when it starts.

    `progress` is a file in which the worker leaves what it is at, to be read if it dies.
    """

    runtime: str
    threads: int
    cores: tuple[int, ...] | None
    progress: str
    job: Job

    def to_json(self) -> dict[str, Any]:
        """The job as plain JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> HostJob:
        """The job that `to_json` wrote."""
        given = {item.name: values[item.name] for item in fields(cls)}
        given["cores"] = None if given["cores"] is None else tuple(given["cores"])
        job = {item.name: values["job"][item.name] for item in fields(Job)}
        job["models"] = tuple((place, size) for place, size in job["models"])
        job["skip"] = tuple(job["skip"])
        return cls(**{**given, "job": Job(**job)})


class Progress:
    """Leaves in a file what the worker is at: a step counter, a model's number, and what it does.

    A file, because a write to it wakes no one up, as a line to the parent would.
    """

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
        self._step = 0

    def at(self, number: int, action: str) -> None:
        """Say that model `number` is now loaded or run."""
        self._step += 1
        os.pwrite(self._file, f"{self._step} {number} {action}".ljust(64).encode(), 0)


def read_progress(path: Path) -> tuple[int, int, str] | None:
    """Step, number and action that a worker left last; `None` before its first model."""
    try:
        step, number, action = path.read_text().split()
    except (OSError, ValueError):
        return None
    return int(step), int(number), action
