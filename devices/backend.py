"""What a kind of device brings to the rounds: places for files, workers, and its state."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from .device import Placement, Setup, Visit
from .errors import LatkitError
from .job import Job

Plan = Sequence[tuple[int, int]]
"""Visits in order: a model's number (`CANARY` for the canary's) and how many runs are timed."""

TimeoutOf = Callable[[int | None], float]
"""How many seconds a model, by its number, may be at work; `None` where it isn't known which."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a worker tells once its models are loaded, by the models' numbers."""

    failures: Mapping[int, str]
    first_run_ns: Mapping[int, int]
    placements: Mapping[int, Placement] = field(default_factory=dict)
    context: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Visited:
    """What a worker's visits gave. `canary` are those of the canary, in order."""

    started_at: float
    duration_s: float
    canary: tuple[Visit, ...]
    visits: Mapping[int, Visit]
    failures: Mapping[int, str] = field(default_factory=dict)
    context: Mapping[str, Any] = field(default_factory=dict)


class WorkerLostError(Exception):
    """The worker died or hangs. `number` is the model it was at, `None` where it was at none."""

    def __init__(self, number: int | None, action: str, cause: str, killed: bool = False) -> None:
        super().__init__(cause)
        self.number = number
        self.action = action
        self.cause = cause
        self.killed = killed
        """Whether something outside of the model ended it: SIGKILL, as when memory runs out."""


class Worker(Protocol):
    """A fresh process on the device that has the models of a job loaded, and times them.

    Both calls raise `WorkerLostError` where it dies or hangs, `DeviceError` where the device does.
    """

    def load(self, timeout_s: float) -> Loaded:
        """Load all models, and run each once."""

    def visit(self, plan: Plan, timeout_s: TimeoutOf) -> Visited:
        """Visit models in this order. Those that failed before are left out."""

    def end(self) -> None:
        """End the process now, whatever it is at."""


class Backend(Protocol):
    """What a kind of device brings to the rounds."""

    @property
    def setup(self) -> Setup:
        """The key under which its measurements are filed."""

    @property
    def timeout_s(self) -> float:
        """How long one model may take to load, or to be visited beyond its usual time."""

    def session(self) -> AbstractContextManager[Mapping[str, Any]]:
        """Make the device ready for one call, and put it back; what was done, for the context."""

    def deliver(self, models: Sequence[Path]) -> list[str | LatkitError]:
        """Bring files to where workers find them: each one's place, or why it can't be used."""

    def canary(self) -> str:
        """Bring the canary; its place."""

    def worker(self, job: Job, folder: Path) -> Worker:
        """Start a worker. `folder` is the call's own, for what passes between the two."""

    def state(self) -> Mapping[str, Any]:
        """What the device is like now, that changes: read between rounds. May be empty."""

    def throttled(
        self, before: Mapping[str, Any], after: Mapping[str, Any], visited: Visited, drift: float
    ) -> str | None:
        """Why the device slowed itself down in a round; `None` where it didn't."""

    def cool(self, before: Mapping[str, Any]) -> float:
        """Wait, up to a bound of its own, until the device is as `before`; seconds waited."""
