"""The process that times models on this host: `python -m latkit.devices.worker`.

It speaks JSON lines. The first line it reads is a `HostJob`; it answers with what loaded. Then
each line `{"plan": [[number, runs], ...]}` has it visit models in that order, and answer with the
samples. At the end of its input, or when its parent is gone, it ends.

The parent decides what is visited when, and what a round is worth.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from .host import activity, can_pin
from .job import CANARY, HostJob, Progress
from .runtimes import Session, TimedSession, find_runtime

FEWEST_WARMUPS = 2
SETTLE_S = 0.3
"""How long the canary runs untimed when a worker starts, so that frequencies and pages settle."""

CACHE_LINE_BYTES = 64


class Evictor:
    """Walks through memory of its own, so that the caches hold that instead of the model."""

    def __init__(self, size_bytes: int) -> None:
        # One word of each cache line is written: that moves the whole line into the cache.
        words = -(-size_bytes // CACHE_LINE_BYTES) * (CACHE_LINE_BYTES // 8)
        self._words = np.ones(words, np.uint64)

    def timed_walk_ns(self) -> int | None:
        """How long a walk through all of it takes now: what the host's memory is up to.

        The canary fits into the caches; this does not. `None` where nothing is evicted.
        """
        if not self._words.size:
            return None
        words = self._words[:: CACHE_LINE_BYTES // 8]
        start = time.perf_counter_ns()
        np.add(words, 1, out=words)
        return time.perf_counter_ns() - start

    def lines(self, size_bytes: int) -> NDArray[np.uint64]:
        """A view that has one word of each cache line in the first `size_bytes`."""
        step = CACHE_LINE_BYTES // 8
        return self._words[: -(-size_bytes // CACHE_LINE_BYTES) * step : step]


def switch_counter(threads: int) -> Callable[[], int] | None:
    """A function that counts how often the runtime's threads lost their processor so far.

    One thread: the calling one. Several: all of this process. `None` where the host can't tell.
    """
    try:
        import resource
    except ImportError:
        return None
    if threads == 1:
        whose = getattr(resource, "RUSAGE_THREAD", resource.RUSAGE_SELF)
        return lambda: resource.getrusage(whose).ru_nivcsw
    if not Path("/proc/self/task").is_dir():
        return lambda: resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw
    return _switches_of_all_threads


def _switches_of_all_threads() -> int:
    total = 0
    for task in os.listdir("/proc/self/task"):  # noqa: PTH208 (the quicker of the two)
        try:
            with open(f"/proc/self/task/{task}/status", "rb") as file:  # noqa: PTH123
                text = file.read()
        except OSError:
            continue
        total += int(text.rpartition(b"nonvoluntary_ctxt_switches:")[2])
    return total


def timed_runs(
    session: Session,
    evicted: NDArray[np.uint64],
    warmups: int,
    warmup_ms: float,
    runs: int,
    count_switches: Callable[[], int] | None,
) -> tuple[list[int], list[bool] | None]:
    """Run a model untimed to warm up, then `runs` times timed; nanoseconds, preempted."""
    run, clock = session.run, time.perf_counter_ns
    warm_up(run, warmups, warmup_ms)
    samples: list[int] = []
    preempted: list[bool] = []
    for _ in range(runs):
        if evicted.size:
            np.add(evicted, 1, out=evicted)
            session.touch_input()
        before = count_switches() if count_switches else 0
        start = clock()
        run()
        stop = clock()
        if count_switches:
            preempted.append(count_switches() != before)
        samples.append(stop - start)
    return samples, preempted if count_switches else None


def self_timed_runs(
    session: TimedSession, eviction_bytes: int, warmups: int, warmup_ms: float, runs: int
) -> list[int]:
    """As `timed_runs`, where the session has a clock and caches of its own, as a GPU's has."""
    warm_up(session.timed_run, warmups, warmup_ms)
    samples: list[int] = []
    for _ in range(runs):
        if eviction_bytes:
            session.evict(eviction_bytes)
            session.touch_input()
        samples.append(session.timed_run())
    return samples


def warm_up(run: Callable[[], Any], warmups: int, warmup_ms: float) -> None:
    """Run a model untimed: `warmups` times, a long one until the time is over."""
    clock = time.perf_counter_ns
    warm_at = clock() + round(1e6 * warmup_ms)
    for count in range(warmups):
        if count >= FEWEST_WARMUPS and clock() > warm_at:
            break
        run()


class Worker:
    """Loaded models, and the way to time them."""

    def __init__(self, told: HostJob) -> None:
        self._told = told
        self._job = told.job
        self._progress = Progress(Path(told.progress))
        self._runtime = find_runtime(told.runtime)
        self._count_switches = switch_counter(told.threads)
        self._evictor: Evictor | None = None
        self._sessions: dict[str, Session] = {}
        self._failures: dict[int, str] = {}
        self._parent = os.getppid()

    def load(self) -> dict[str, Any]:
        """Load all models and run each once; what failed, took how long, and was placed where."""
        first_run_ns: dict[int, int] = {}
        placements: dict[int, dict[str, Any]] = {}
        self._progress.at(CANARY, "load")
        canary = self._session(self._job.canary)
        if not isinstance(canary, TimedSession):
            self._evictor = Evictor(max((size for _, size in self._job.models), default=0))
        for number, (path, _) in enumerate(self._job.models):
            if number in self._job.skip:
                continue
            self._progress.at(number, "load")
            try:
                session = self._session(path)
                start = time.perf_counter_ns()
                session.run()
                first_run_ns[number] = time.perf_counter_ns() - start
            except Exception as error:
                self._failures[number] = f"can't be loaded: {type(error).__name__}: {error}"
                continue
            if session.placement is not None:
                placements[number] = asdict(session.placement)
        self._progress.at(CANARY, "settle")
        settled_at = time.perf_counter() + SETTLE_S
        while time.perf_counter() < settled_at:
            canary.run()
        return {
            "failures": self._failures,
            "first_run_ns": first_run_ns,
            "placements": placements,
            "pinned_to": sorted(os.sched_getaffinity(0)) if sys.platform == "linux" else None,
        }

    def visit(self, plan: Sequence[tuple[int, int]]) -> dict[str, Any]:
        """Visit models in the order of `plan`, which gives their numbers and runs."""
        gc.collect()
        before = activity(self._told.cores)
        started_at, started = time.time(), time.perf_counter()
        visits: dict[int, tuple[list[int], list[bool] | None]] = {}
        canary: list[tuple[list[int], list[bool] | None]] = []
        walks: list[int | None] = []
        for number, runs in plan:
            if number == CANARY:
                walks.append(self._evictor.timed_walk_ns() if self._evictor else None)
                canary.append(self._visit(CANARY, self._job.canary, 0, runs))
                continue
            if number in self._failures:
                continue
            path, eviction_bytes = self._job.models[number]
            try:
                visits[number] = self._visit(number, path, eviction_bytes, runs)
            except Exception as error:
                self._failures[number] = f"can't be run: {type(error).__name__}: {error}"
        return {
            "started_at": started_at,
            "duration_s": time.perf_counter() - started,
            "canary": canary,
            "memory_walk_ns": [walk for walk in walks if walk is not None],
            "visits": visits,
            "failures": self._failures,
            "before": before,
            "after": activity(self._told.cores),
        }

    def _session(self, path: str) -> Session:
        if path not in self._sessions:
            self._sessions[path] = self._runtime.load(Path(path), self._told.threads)
        return self._sessions[path]

    def _visit(
        self, number: int, path: str, eviction_bytes: int, runs: int
    ) -> tuple[list[int], list[bool] | None]:
        if os.getppid() != self._parent:
            raise SystemExit("the process that asked for this is gone")
        self._progress.at(number, "run")
        session, job = self._sessions[path], self._job
        if isinstance(session, TimedSession):
            samples = self_timed_runs(session, eviction_bytes, job.warmups, job.warmup_ms, runs)
            return samples, None
        assert self._evictor is not None
        return timed_runs(
            session,
            self._evictor.lines(eviction_bytes),
            job.warmups,
            job.warmup_ms,
            runs,
            self._count_switches,
        )


def serve(questions: Iterator[str], answers: TextIO) -> None:
    """Answer each line of `questions` with one line of JSON, until they end."""
    first = next(questions, None)
    if first is None:
        return
    told = HostJob.from_json(json.loads(first))
    if told.cores is not None and can_pin():
        os.sched_setaffinity(0, told.cores)
    worker = Worker(told)
    gc.disable()
    answer = worker.load()
    gc.freeze()
    while True:
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
        line = next(questions, None)
        if line is None:
            return
        answer = worker.visit(json.loads(line)["plan"])


def main() -> None:
    """Serve standard input and output. What a runtime itself prints goes to standard error."""
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)
        serve(iter(sys.stdin), answers)


if __name__ == "__main__":
    main()
