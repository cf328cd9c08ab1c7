"""A device that counts where the time of a profile goes: each call of its backend is timed."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from latkit.devices.backend import Backend, Loaded, Plan, TimeoutOf, Visited, Worker
from latkit.devices.device import Device, Model, Round, Setup, TimingProtocol
from latkit.devices.errors import LatkitError
from latkit.devices.job import Job
from latkit.devices.rounds import measure_rounds


class Clock:
    """Adds up where time goes."""

    def __init__(self) -> None:
        self.parts: dict[str, float] = defaultdict(float)
        self.first_runs_s = 0.0
        self._waited_at: float | None = None

    @contextmanager
    def at(self, part: str) -> Iterator[None]:
        """Count the time that the block takes; what follows a wait's look is a pause of it."""
        started = time.monotonic()
        if self._waited_at is not None:
            self.parts["wait"] += started - self._waited_at
        try:
            yield
        finally:
            ended = time.monotonic()
            self.parts[part] += ended - started
            self._waited_at = ended if part == "wait" else None


class ClockedDevice:
    """A device whose backend's calls are timed."""

    def __init__(self, device: Device, clock: Clock) -> None:
        self._device = device
        self._backend = cast(Backend, device)  # Every kind of ours is both.
        self._clock = clock

    @property
    def setup(self) -> Setup:
        """The key of its measurements."""
        return self._device.setup

    def info(self) -> dict[str, Any]:
        """What it tells of itself."""
        with self._clock.at("open"):
            return self._device.info()

    def measure(self, models: Sequence[Model], protocol: TimingProtocol) -> Iterator[Round]:
        """Time models, each call of its backend clocked."""
        return measure_rounds(ClockedBackend(self._backend, self._clock), models, protocol)


class ClockedBackend:
    """What a device brings to the rounds, each call timed."""

    def __init__(self, backend: Backend, clock: Clock) -> None:
        self._backend = backend
        self._clock = clock
        self.setup = backend.setup
        self.timeout_s = backend.timeout_s
        self.throttled = backend.throttled

    @contextmanager
    def session(self) -> Iterator[Mapping[str, Any]]:
        """Ready for a call, and back."""
        session = self._backend.session()
        with self._clock.at("prepare"):
            done = session.__enter__()
        try:
            yield done
        finally:
            with self._clock.at("prepare"):
                session.__exit__(None, None, None)

    def deliver(self, models: Sequence[Path]) -> list[str | LatkitError]:
        """Bring models."""
        with self._clock.at("push"):
            return self._backend.deliver(models)

    def canary(self) -> str:
        """Bring the canary."""
        with self._clock.at("push"):
            return self._backend.canary()

    def worker(self, job: Job, folder: Path) -> Worker:
        """Start a worker."""
        with self._clock.at("start"):
            return ClockedWorker(self._backend.worker(job, folder), self._clock)

    def state(self) -> Mapping[str, Any]:
        """What changes."""
        with self._clock.at("state"):
            return self._backend.state()

    def cool(self, before: Mapping[str, Any]) -> float:
        """Wait until it is cool."""
        with self._clock.at("wait"):
            return self._backend.cool(before)


class ClockedWorker:
    """A worker, each call of it timed."""

    def __init__(self, worker: Worker, clock: Clock) -> None:
        self._worker = worker
        self._clock = clock

    def load(self, timeout_s: float) -> Loaded:
        """Load the models."""
        with self._clock.at("load"):
            loaded = self._worker.load(timeout_s)
        self._clock.first_runs_s += sum(loaded.first_run_ns.values()) / 1e9
        return loaded

    def visit(self, plan: Plan, timeout_s: TimeoutOf) -> Visited:
        """Visit models; only the canary where it is a wait for a quiet device."""
        if len(plan) == 1:  # The canary alone.
            with self._clock.at("wait"):
                return self._worker.visit(plan, timeout_s)
        with self._clock.at("answer"):
            visited = self._worker.visit(plan, timeout_s)
        self._clock.parts["round"] += visited.duration_s
        self._clock.parts["answer"] -= visited.duration_s
        return visited

    def end(self) -> None:
        """End the process."""
        with self._clock.at("end"):
            self._worker.end()
