"""The host's end of the runner, the program that times models on a phone: see runner/."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..adb import AdbLink
from ..backend import Loaded, Plan, TimeoutOf, Visited
from ..device import Placement, Visit
from ..errors import DeviceError
from ..job import CANARY, Job
from ..rounds import EVICTION_BYTES_A_SECOND
from .runner_process import RunnerProcess, why_failed
from .shell import put

PATIENCE_S = 10.0
"""How long an answer may be late before the phone is asked what the runner is at."""

SETTLE_NS = 1.5e8
"""How long the canary runs when the models are loaded, so that frequencies and pages settle."""

MAXIMUM_SETTLING_RUNS = 3000


@dataclass(frozen=True, slots=True)
class RunnerOptions:
    """What the runner is told before its models. Paths are the phone's.

    `delegate` is the library of the accelerator, where it is not in the runtime's. `cores` are
    pinned to.
    """

    program: str
    progress: str
    runtime: str
    library: str
    accelerator: str
    delegate: str | None
    threads: int
    cores: tuple[int, ...] | None


@dataclass(frozen=True, slots=True)
class Turns:
    """So many times the plain model, the profiled one and the canary are run after each other.

    Each is warmed up `warmups` times, then run `runs` times. With no turns the profiled one runs
    once.
    """

    count: int
    warmups: int
    runs: int

    @property
    def counted(self) -> list[bool]:
        """Of each run of the profiled model, whether it counts or was a warm-up."""
        return [not self.count] + ([False] * self.warmups + [True] * self.runs) * self.count


@dataclass(frozen=True, slots=True)
class Profiled:
    """What a runner told of profiling a model. Paths are the phone's.

    `canary` and `visits`, the plain model's, are in order; `optimized` is the graph that the
    runtime ran, `profile` its profiler's file.
    """

    canary: tuple[Visit, ...]
    visits: tuple[Visit, ...]
    optimized: str
    profile: str


PlacementOf = Callable[[str], tuple[Placement | None, str | None]]
"""From a runtime's log of loading a model: where it runs, and why that can't be accepted."""


class RunnerWorker:
    """A runner on a phone with the models of a job.

    Its answers are checked one by one: what it can't have measured is a `DeviceError`, never a
    sample.
    """

    def __init__(
        self, link: AdbLink, options: RunnerOptions, job: Job, placement_of: PlacementOf
    ) -> None:
        self._link = link
        self._options = options
        self._job = job
        self._placement_of = placement_of
        self._failed: set[int] = set(job.skip)
        self._first_run_ns: dict[int, int] = {}
        self._runner = RunnerProcess(link, options.program, options.progress, len(job.models))

    def load(self, timeout_s: float) -> Loaded:
        """Have the models loaded and run once."""
        options, job = self._options, self._job
        lines = [f"library {options.runtime} {options.library}"]
        if options.accelerator != "cpu":
            apart = "" if options.delegate is None else f" {options.delegate}"
            lines.append(f"accelerator {options.accelerator}{apart}")
        lines.append(f"threads {options.threads}")
        if options.cores is not None:
            lines.append(f"cores {sum(1 << core for core in options.cores):x}")
        lines.append(f"warmups {job.warmups} {job.warmup_ms:g}")
        lines.append(f"model {CANARY} 0 {job.canary}")
        for number, (place, eviction_bytes) in enumerate(job.models):
            if number not in self._failed:
                lines.append(f"model {number} {eviction_bytes} {place}")
        for line in (*lines, "load"):
            self._runner.tell(line)
        failures: dict[int, str] = {}
        placements: dict[int, Placement] = {}
        end: Mapping[str, Any] = {}
        for answer in self._runner.answers("load", PATIENCE_S, lambda _: timeout_s):
            if "end" in answer:
                end = answer
                continue
            number = self._runner.number(answer.get("loaded", answer.get("failed")))
            if number in self._first_run_ns or number in failures:
                raise self._runner.garbage(f"it told twice of loading model {number}")
            if "failed" in answer:
                failures[number] = f"can't be loaded: {why_failed(answer)}"
                continue
            self._first_run_ns[number] = self._runner.nanoseconds(answer.get("first_run_ns"))
            placement, cause = self._placement_of(str(answer.get("log", "")))
            if number != CANARY and placement is not None:
                placements[number] = placement
            if number != CANARY and cause is not None:
                failures[number] = cause
        if CANARY in failures:
            raise DeviceError(
                f"{self._link.serial}: the canary {failures[CANARY]}. So nothing can be timed: "
                "check that the library is one for this phone, and has the accelerator asked for"
            )
        expected = {CANARY, *range(len(job.models))} - self._failed
        answered = self._first_run_ns.keys() | failures.keys()
        if answered != expected:
            raise self._runner.garbage(f"it told of {len(answered)} models of {len(expected)}")
        self._failed |= failures.keys()
        settling = max(1, round(SETTLE_NS / self._first_run_ns[CANARY]))
        self.visit([(CANARY, min(settling, MAXIMUM_SETTLING_RUNS))], lambda _: timeout_s)
        first_run_ns = {key: time for key, time in self._first_run_ns.items() if key != CANARY}
        context = self._pinned_to(end)
        put(context, "runtime_version", end.get("runtime_version"), "the library does not tell it")
        if end.get("providers") is not None:
            context["providers"] = end["providers"]
        return Loaded(failures, first_run_ns, placements, context)

    def visit(self, plan: Plan, timeout_s: TimeoutOf) -> Visited:
        """Visit models in this order. Those that failed before are left out."""
        wanted = [(number, runs) for number, runs in plan if number not in self._failed]
        started_at = time.time()
        self._runner.tell("round " + " ".join(f"{number}:{runs}" for number, runs in wanted))
        expected_s = sum(self._expected_s(number, runs) for number, runs in wanted)
        left = iter(wanted)
        canary: list[Visit] = []
        visits: dict[int, Visit] = {}
        failures: dict[int, str] = {}
        walks: list[int] = []
        end: Mapping[str, Any] = {}
        for answer in self._runner.answers("round", PATIENCE_S + 3 * expected_s, timeout_s):
            if "memory_walk_ns" in answer:
                walks.append(self._runner.nanoseconds(answer["memory_walk_ns"]))
                continue
            if "end" in answer:
                end = answer
                continue
            number = self._runner.number(answer.get("visit", answer.get("failed")))
            asked, runs = next(left, (None, 0))
            if number != asked:
                raise self._runner.garbage(f"it visited model {number}, and {asked} was next")
            if "failed" in answer:
                failures[number] = f"can't be run: {why_failed(answer)}"
                continue
            visit = self._runner.visit(answer, runs)
            if number == CANARY:
                canary.append(visit)
            else:
                visits[number] = visit
        if next(left, None) is not None:
            raise self._runner.garbage("it ended the round before all models were visited")
        if CANARY in failures:
            raise DeviceError(f"{self._link.serial}: the canary {failures[CANARY]}")
        self._failed |= failures.keys()
        return Visited(
            started_at,
            self._runner.nanoseconds(end.get("duration_ns")) / 1e9,
            tuple(canary),
            visits,
            failures,
            {
                **self._pinned_to(end),
                "before": self._state(end.get("before")),
                "after": self._state(end.get("after")),
                "memory_walk_ns": walks,
            },
        )

    def profile(self, number: int, turns: Turns, prefix: str, timeout_s: float) -> Profiled:
        """Run a loaded model with the runtime's profiler on, and in turn without.

        The names of the files that come of it start with `prefix`, also where it fails. Raises
        `DeviceError` where the runtime can't profile the model.
        """
        runner = self._runner
        runner.tell(f"profile {number} {turns.count} {turns.warmups} {turns.runs} {prefix}")
        turn_s = 3 * self._expected_s(number, turns.warmups + turns.runs)
        expected = [CANARY, *[number, CANARY] * turns.count] if turns.count else []
        told: list[tuple[int, Visit]] = []
        end: Mapping[str, Any] = {}
        patience_s = PATIENCE_S + 3 * turn_s * turns.count
        for answer in runner.answers("profile", patience_s, lambda _: timeout_s + turn_s):
            if "end" in answer:
                end = answer
            elif "failed" in answer:
                what = "canary" if runner.number(answer["failed"]) == CANARY else "model"
                raise DeviceError(f"the {what} can't be profiled: {why_failed(answer)}")
            else:
                told.append((runner.number(answer.get("visit")), runner.visit(answer, turns.runs)))
        if [visited for visited, _ in told] != expected:
            raise runner.garbage(f"it visited {len(told)} models while profiling")
        return Profiled(
            tuple(visit for visited, visit in told if visited == CANARY),
            tuple(visit for visited, visit in told if visited == number),
            self._file(end.get("optimized"), prefix),
            self._file(end.get("profile"), prefix),
        )

    def end(self) -> None:
        """End the runner now, whatever it is at."""
        self._runner.end()

    def _expected_s(self, number: int, runs: int) -> float:
        """About how long a visit takes, rather too long: a first run is a slow one."""
        evicted = 0 if number == CANARY else self._job.models[number][1]
        runs_s = self._first_run_ns[number] * (runs + self._job.warmups) / 1e9
        return runs_s + runs * evicted / EVICTION_BYTES_A_SECOND

    def _file(self, path: Any, prefix: str) -> str:
        """A file that the runner wrote, which can be none but one of those with this prefix."""
        name = path.removeprefix(prefix) if isinstance(path, str) else None
        if name == path or name is None or re.fullmatch(r"[\w.-]{1,100}", name) is None:
            raise self._runner.garbage(f"it wrote {path!r:.200} while profiling")
        return prefix + name

    def _pinned_to(self, end: Mapping[str, Any]) -> dict[str, Any]:
        """Where the runner says that it is pinned to, for the context."""
        cores = end.get("pinned_to")
        is_known = isinstance(cores, list) and all(type(core) is int for core in cores)
        if not is_known and (cores is not None or self._options.cores is not None):
            raise self._runner.garbage(f"it is pinned to cores {cores!r:.80}")
        context: dict[str, Any] = {}
        put(context, "pinned_to", cores, "no cores were asked for")
        return context

    def _state(self, told: Any) -> dict[str, Any]:
        """The state of the cores that came with a round, with reasons for what is not known."""
        if not isinstance(told, dict):
            raise self._runner.garbage(f"the state of its cores is {told!r:.80}")
        state: dict[str, Any] = {}
        for name in ("frequency_khz", "load_average"):
            put(state, name, told.get(name), "the phone does not show it to its shell")
        return state
