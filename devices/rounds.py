"""Rounds: what every kind of device is timed by. A backend brings a place to run; this decides.

Which model is visited when, when to wait, what to repeat, and whom to blame when a worker dies is
settled here, once.
"""

from __future__ import annotations

import statistics
import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from .backend import Backend, Loaded, Plan, Visited, Worker, WorkerLostError
from .device import (
    CANARY_DRIFT_LIMIT,
    Model,
    ModelKey,
    Round,
    TimingProtocol,
    Visit,
)
from .errors import DeviceError, LatkitError, UsageError
from .job import CANARY, Job
from .quiet import QuietWatch

SEVERE_DRIFT = 0.1
"""A canary that is slower by more than this share at a round's end, twice, discards the round:
the samples since the last good canary are all within it."""

CANARY_SPOTS = 5
"""How often a round runs the canary: first, last, and evenly between."""

CANARY_RUNS = 5

EXPECTED_TIMES = 100
"""A visit may take `Backend.timeout_s` plus so many times its usual time."""

EVICTION_BYTES_A_SECOND = 1e9
"""A low guess, for timeouts only."""

MAX_LOST_WORKERS = 20
"""So many models may crash or hang their worker in one call; after that the device is given up."""


def visiting_order(seed: int, index: int, attempt: int, count: int) -> list[int]:
    """The order in which a round visits its models."""
    order = np.random.default_rng((seed, index, attempt)).permutation(count)
    return [int(number) for number in order]


def canary_spots(count: int) -> set[int]:
    """Before which of `count` visits, and after the last one, the canary is run."""
    return {round(spot * count / (CANARY_SPOTS - 1)) for spot in range(CANARY_SPOTS)}


def round_plan(order: Sequence[int], runs: int) -> list[tuple[int, int]]:
    """The visits of a round: the models in `order`, the canary among them."""
    spots = canary_spots(len(order))
    plan: list[tuple[int, int]] = []
    for position in range(len(order) + 1):
        if position in spots:
            plan.append((CANARY, CANARY_RUNS))
        if position < len(order):
            plan.append((order[position], runs))
    return plan


def canary_ns(visits: Sequence[Visit]) -> tuple[int, ...]:
    """The canary's samples; those of runs that were not preempted, where there are such."""
    every: list[int] = []
    clean: list[int] = []
    for visit in visits:
        if visit.summary is not None:
            every.append(round(visit.summary.value_ns))
            continue
        every += visit.samples_ns
        hits = visit.preempted or (False,) * len(visit.samples_ns)
        clean += [time for time, hit in zip(visit.samples_ns, hits, strict=True) if not hit]
    return tuple(clean or every)


def measure_rounds(
    backend: Backend, models: Sequence[Model], protocol: TimingProtocol
) -> Iterator[Round]:
    """Time `models` by `protocol`; yield each round as it is finished.

    A round waits for a quiet device, up to `protocol.max_wait_s` in all. It is done again, while
    repeats are left, where its canary was slower than the quiet device's by more than
    `CANARY_DRIFT_LIMIT`, where the canary at its end is slower by more than `SEVERE_DRIFT` and
    stays so, or where the device throttled; then the device may cool first. The rounds that were
    repeated are yielded with `accepted=False`. What throttled with no repeats left says so in
    `context["throttled"]`. A model that fails once is left out from then on, with its cause in
    `failures`, also when it takes the worker with it.

    Raises `UsageError` where a key occurs twice or the protocol asks for nothing, `DeviceError`
    where workers can't be started or are lost again and again, or the device is.
    """
    keys = [model.key for model in models]
    if len(set(keys)) < len(keys):
        twice = next(key for key in keys if keys.count(key) > 1)
        raise UsageError(f"the model {twice[0]!r}, eviction {twice[1]} bytes, is given twice")
    if any(model.eviction_bytes < 0 for model in models):
        raise UsageError("eviction_bytes must be at least 0")
    if min(protocol.rounds, protocol.processes, protocol.runs) < 1:
        raise UsageError(f"rounds, processes and runs must be at least 1: {protocol}")
    least = (protocol.warmups, protocol.warmup_ms, protocol.max_repeats, protocol.max_wait_s)
    if min(*least, protocol.seed) < 0:
        raise UsageError(f"warm-ups, repeats, waits and seed must be at least 0: {protocol}")
    return _rounds(backend, tuple(models), protocol)


def _rounds(
    backend: Backend, models: tuple[Model, ...], protocol: TimingProtocol
) -> Iterator[Round]:
    run_id = uuid.uuid4().hex
    watch = QuietWatch(protocol.quiet_canary_ns, protocol.max_wait_s)
    repeats_left = protocol.max_repeats
    processes = min(protocol.processes, protocol.rounds)
    with tempfile.TemporaryDirectory(prefix="latkit-") as folder, backend.session() as session:
        batch = _Batch(backend, models, protocol, Path(folder))
        before = backend.state()
        try:
            for index in range(protocol.rounds):
                process = index * processes // protocol.rounds
                for attempt in range(protocol.max_repeats + 1):
                    watch.wait(partial(batch.canary_ns, process))
                    visited = batch.round(process, index, attempt)
                    after = backend.state()
                    samples = canary_ns(visited.canary)
                    drift = watch.drift(statistics.median(samples))
                    throttled = backend.throttled(before, after, visited, drift)
                    good = drift <= CANARY_DRIFT_LIMIT and throttled is None
                    if good and watch.is_severe(canary_ns(visited.canary[-1:]), SEVERE_DRIFT):
                        good = not watch.is_severe((batch.canary_ns(process),), SEVERE_DRIFT)
                    accepted = good or repeats_left == 0
                    context = {**session, **batch.context(visited), "throttled": throttled}
                    if before or after:
                        context |= {"state": [dict(before), dict(after)]}
                    limit, before = before, after
                    yield Round(
                        run_id=run_id,
                        process=process,
                        index=index,
                        attempt=attempt,
                        accepted=accepted,
                        started_at=visited.started_at,
                        duration_s=visited.duration_s,
                        canary_ns=samples,
                        canary_drift=drift,
                        visits=batch.visits(visited),
                        failures=dict(batch.failures),
                        context=context,
                    )
                    if accepted:
                        break
                    repeats_left -= 1
                    if throttled is not None:
                        backend.cool(limit)
                        before = backend.state()
        finally:
            batch.end()


class _Batch:
    """The models of one call, and the worker that has them loaded."""

    def __init__(
        self,
        backend: Backend,
        models: tuple[Model, ...],
        protocol: TimingProtocol,
        folder: Path,
    ) -> None:
        self._backend = backend
        self._models = models
        self._protocol = protocol
        self._folder = folder
        self._worker: Worker | None = None
        self._process = -1
        self._loaded = Loaded({}, {})
        self._lost_workers = 0
        self._places: list[str] = []
        self.failures: dict[ModelKey, str] = {}
        self._canary = backend.canary()
        places = backend.deliver([model.path for model in models])
        for model, place in zip(models, places, strict=True):
            self._places.append("" if isinstance(place, LatkitError) else place)
            if isinstance(place, LatkitError):
                self.failures[model.key] = str(place)

    def round(self, process: int, index: int, attempt: int) -> Visited:
        """One round, in the worker of this process; again in a fresh one if a model ends it."""
        order = visiting_order(self._protocol.seed, index, attempt, len(self._models))
        while True:
            left = [number for number in order if self._models[number].key not in self.failures]
            visited = self._visited(process, round_plan(left, self._protocol.runs))
            if visited is not None:
                return visited

    def canary_ns(self, process: int) -> float:
        """Median of the canary alone, now, as often as in a round."""
        while True:
            visited = self._visited(process, [(CANARY, CANARY_SPOTS * CANARY_RUNS)])
            if visited is not None:
                return float(statistics.median(canary_ns(visited.canary)))

    def visits(self, visited: Visited) -> dict[ModelKey, Visit]:
        """The visits of the models, by their keys, with where the models ran."""
        placements = self._loaded.placements
        return {
            self._models[number].key: replace(
                visit, placement=visit.placement or placements.get(number)
            )
            for number, visit in visited.visits.items()
        }

    def context(self, visited: Visited) -> dict[str, Any]:
        """What a worker told, when it loaded and in a round."""
        canary_preempted = sum(sum(visit.preempted or ()) for visit in visited.canary)
        return {
            **self._loaded.context,
            **visited.context,
            "canary_preempted": canary_preempted,
            "lost_workers": self._lost_workers,
        }

    def end(self) -> None:
        """Let the worker go."""
        if self._worker is not None:
            self._worker.end()
            self._worker = None

    def _visited(self, process: int, plan: Plan) -> Visited | None:
        """What these visits gave; `None` where a model took the worker with it, and is out now."""
        try:
            worker = self._worker_of(process)
            visited = worker.visit(plan, self._visit_timeout_s)
        except WorkerLostError as lost:
            self._drop_culprit(lost)
            return None
        self._note_failures(visited.failures)
        return visited

    def _worker_of(self, process: int) -> Worker:
        if self._worker is not None and self._process == process:
            return self._worker
        self.end()
        protocol = self._protocol
        skip = [number for number, model in enumerate(self._models) if model.key in self.failures]
        job = Job(
            canary=self._canary,
            models=tuple(
                (place, model.eviction_bytes)
                for place, model in zip(self._places, self._models, strict=True)
            ),
            skip=tuple(skip),
            warmups=protocol.warmups,
            warmup_ms=protocol.warmup_ms,
        )
        self._worker = self._backend.worker(job, self._folder)
        self._process = process
        self._loaded = self._worker.load(self._backend.timeout_s)
        self._note_failures(self._loaded.failures)
        return self._worker

    def _visit_timeout_s(self, number: int | None) -> float:
        first_run_ns = None if number is None else self._loaded.first_run_ns.get(number)
        if number is None or first_run_ns is None:
            return self._backend.timeout_s
        protocol, size = self._protocol, self._models[number].eviction_bytes
        expected_s = (protocol.warmups + protocol.runs) * first_run_ns / 1e9
        expected_s += protocol.runs * size / EVICTION_BYTES_A_SECOND
        return self._backend.timeout_s + EXPECTED_TIMES * expected_s

    def _note_failures(self, failures: Mapping[int, str]) -> None:
        for number, cause in failures.items():
            self.failures.setdefault(self._models[number].key, cause)

    def _drop_culprit(self, lost: WorkerLostError) -> None:
        """Blame the model that the worker was at; `DeviceError` where that would not be fair."""
        self.end()
        self._lost_workers += 1
        if lost.number is None:
            raise DeviceError(
                f"the worker process {lost.cause} (at: {lost.action}). Nothing of the batch was at "
                "fault; check that the runtime runs on this device: latkit devices"
            )
        key = self._models[lost.number].key
        if lost.killed:
            raise DeviceError(
                f"something {lost.cause} while the model {key[0]} was at {lost.action}; that is "
                "what happens when memory runs out. Time fewer models at once."
            )
        if self._lost_workers > MAX_LOST_WORKERS:
            raise DeviceError(
                f"{self._lost_workers} worker processes were lost; the last one {lost.cause} at "
                f"the model {key[0]} ({lost.action}). Time the models one by one to find out why."
            )
        self.failures[key] = f"{lost.action}: {lost.cause}"
