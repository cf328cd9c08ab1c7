"""The process that times models on this host: `python -m latkit.devices.worker`.

It speaks JSON lines. The first line it reads is a `Job`; it answers with what loaded. Then each
line `{"round": index, "attempt": attempt}` has it visit all models once, and answer with the
samples. At the end of its input, or when its parent is gone, it ends.

The parent decides what a round is worth. The order of a round depends on the seed, the round and
the attempt only.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from .host import activity, can_pin
from .job import CANARY, Job, Progress
from .runtimes import Session, find_runtime

CANARY_SPOTS = 5
"""How often a round runs the canary: first, last, and evenly between."""

CANARY_RUNS = 5
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
    warm_at = clock() + round(1e6 * warmup_ms)
    for count in range(warmups):
        if count >= FEWEST_WARMUPS and clock() > warm_at:
            break
        run()
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


def visiting_order(seed: int, index: int, attempt: int, count: int) -> list[int]:
    """The order in which a round visits its models."""
    order = np.random.default_rng((seed, index, attempt)).permutation(count)
    return [int(number) for number in order]


def canary_spots(count: int) -> set[int]:
    """Before which of `count` visits, and after the last one, the canary is run."""
    return {round(spot * count / (CANARY_SPOTS - 1)) for spot in range(CANARY_SPOTS)}


class Worker:
    """Loaded models, and the way to time them."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._progress = Progress(Path(job.progress))
        self._runtime = find_runtime(job.runtime)
        self._count_switches = switch_counter(job.threads)
        self._evictor = Evictor(max((size for _, size in job.models), default=0))
        self._sessions: dict[str, Session] = {}
        self._failures: dict[int, str] = {}
        self._parent = os.getppid()

    def load(self) -> dict[str, Any]:
        """Load all models and run each once; what failed, took how long, and was placed where."""
        first_run_ns: dict[int, int] = {}
        placements: dict[int, str] = {}
        self._progress.at(CANARY, "load")
        self._sessions[self._job.canary] = self._runtime.load(
            Path(self._job.canary), self._job.threads
        )
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
                placements[number] = session.placement
        self._progress.at(CANARY, "settle")
        settled_at = time.perf_counter() + SETTLE_S
        while time.perf_counter() < settled_at:
            self._sessions[self._job.canary].run()
        return {
            "failures": self._failures,
            "first_run_ns": first_run_ns,
            "placements": placements,
            "pinned_to": sorted(os.sched_getaffinity(0)) if sys.platform == "linux" else None,
        }

    def round(self, index: int, attempt: int) -> dict[str, Any]:
        """Visit all models once, in a new order, the canary among them."""
        gc.collect()
        before = activity(self._job.cores)
        started_at, started = time.time(), time.perf_counter()
        order = visiting_order(self._job.seed, index, attempt, len(self._job.models))
        order = [number for number in order if number not in self._job.skip]
        spots = canary_spots(len(order))
        visits: dict[int, tuple[list[int], list[bool] | None]] = {}
        canary: list[int] = []
        canary_preempted: list[bool] = []
        walks: list[int | None] = []
        for position in range(len(order) + 1):
            if position in spots:
                walks.append(self._evictor.timed_walk_ns())
                samples, preempted = self._visit(CANARY, self._job.canary, 0, CANARY_RUNS)
                canary += samples
                canary_preempted += preempted or [False] * len(samples)
            if position == len(order) or order[position] in self._failures:
                continue
            number = order[position]
            path, eviction_bytes = self._job.models[number]
            try:
                visits[number] = self._visit(number, path, eviction_bytes, self._job.runs)
            except Exception as error:
                self._failures[number] = f"can't be run: {type(error).__name__}: {error}"
        clean = [time for time, hit in zip(canary, canary_preempted, strict=True) if not hit]
        return {
            "started_at": started_at,
            "duration_s": time.perf_counter() - started,
            "canary_ns": clean or canary,
            "canary_preempted": sum(canary_preempted),
            "memory_walk_ns": [walk for walk in walks if walk is not None],
            "visits": visits,
            "failures": self._failures,
            "before": before,
            "after": activity(self._job.cores),
        }

    def canary(self) -> dict[str, Any]:
        """The canary alone, as often as in a round."""
        samples, preempted = self._visit(CANARY, self._job.canary, 0, CANARY_SPOTS * CANARY_RUNS)
        hits = preempted or [False] * len(samples)
        clean = [time for time, hit in zip(samples, hits, strict=True) if not hit]
        return {"canary_ns": clean or samples}

    def _session(self, path: str) -> Session:
        if path not in self._sessions:
            self._sessions[path] = self._runtime.load(Path(path), self._job.threads)
        return self._sessions[path]

    def _visit(
        self, number: int, path: str, eviction_bytes: int, runs: int
    ) -> tuple[list[int], list[bool] | None]:
        if os.getppid() != self._parent:
            raise SystemExit("the process that asked for this is gone")
        self._progress.at(number, "run")
        return timed_runs(
            self._sessions[path],
            self._evictor.lines(eviction_bytes),
            self._job.warmups,
            self._job.warmup_ms,
            runs,
            self._count_switches,
        )


def serve(questions: Iterator[str], answers: TextIO) -> None:
    """Answer each line of `questions` with one line of JSON, until they end."""
    first = next(questions, None)
    if first is None:
        return
    job = Job.from_json(json.loads(first))
    if job.cores is not None and can_pin():
        os.sched_setaffinity(0, job.cores)
    worker = Worker(job)
    gc.disable()
    answer = worker.load()
    gc.freeze()
    while True:
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
        line = next(questions, None)
        if line is None:
            return
        question = json.loads(line)
        if "canary" in question:
            answer = worker.canary()
        else:
            answer = worker.round(question["round"], question["attempt"])


def main() -> None:
    """Serve standard input and output. What a runtime itself prints goes to standard error."""
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)
        serve(iter(sys.stdin), answers)


if __name__ == "__main__":
    main()
