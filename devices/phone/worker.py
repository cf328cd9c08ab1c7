"""The host's end of the runner, the program that times models on a phone: see runner/."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..adb import AdbLink, LinkLostError
from ..backend import Loaded, Plan, TimeoutOf, Visited, WorkerLostError
from ..device import Placement, Visit
from ..errors import DeviceError
from ..job import CANARY, Job
from ..rounds import EVICTION_BYTES_A_SECOND
from .shell import put

PATIENCE_S = 10.0
"""How long an answer may be late before the phone is asked what the runner is at."""

POLL_S = 5.0
SETTLE_NS = 1.5e8
"""How long the canary runs when the models are loaded, so that frequencies and pages settle."""

MAXIMUM_SETTLING_RUNS = 3000
SIGNALS = {132: "SIGILL", 134: "SIGABRT", 135: "SIGBUS", 136: "SIGFPE", 137: "SIGKILL"}
SIGNALS |= {139: "SIGSEGV", 143: "SIGTERM"}
"""What a shell's exit codes over 128 mean."""

MAXIMUM_NS = 2**62


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
        link.shell(["rm", "-f", options.progress, f"{options.progress}.log"])
        self._process = link.start([options.program, options.progress])

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
            self._process.write_line(line)
        failures: dict[int, str] = {}
        placements: dict[int, Placement] = {}
        end: Mapping[str, Any] = {}
        for answer in self._answers("load", PATIENCE_S, lambda _: timeout_s):
            if "end" in answer:
                end = answer
                continue
            number = self._number(answer.get("loaded", answer.get("failed")))
            if number in self._first_run_ns or number in failures:
                raise self._garbage(f"it told twice of loading model {number}")
            if "failed" in answer:
                failures[number] = f"can't be loaded: {_cause(answer)}"
                continue
            self._first_run_ns[number] = self._nanoseconds(answer.get("first_run_ns"))
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
            raise self._garbage(f"it told of {len(answered)} models of {len(expected)}")
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
        self._process.write_line("round " + " ".join(f"{number}:{runs}" for number, runs in wanted))
        expected_s = sum(self._expected_s(number, runs) for number, runs in wanted)
        left = iter(wanted)
        canary: list[Visit] = []
        visits: dict[int, Visit] = {}
        failures: dict[int, str] = {}
        walks: list[int] = []
        end: Mapping[str, Any] = {}
        for answer in self._answers("round", PATIENCE_S + 3 * expected_s, timeout_s):
            if "memory_walk_ns" in answer:
                walks.append(self._nanoseconds(answer["memory_walk_ns"]))
                continue
            if "end" in answer:
                end = answer
                continue
            number = self._number(answer.get("visit", answer.get("failed")))
            asked, runs = next(left, (None, 0))
            if number != asked:
                raise self._garbage(f"it visited model {number}, and {asked} was next")
            if "failed" in answer:
                failures[number] = f"can't be run: {_cause(answer)}"
                continue
            visit = self._visit(answer, runs)
            if number == CANARY:
                canary.append(visit)
            else:
                visits[number] = visit
        if next(left, None) is not None:
            raise self._garbage("it ended the round before all models were visited")
        if CANARY in failures:
            raise DeviceError(f"{self._link.serial}: the canary {failures[CANARY]}")
        self._failed |= failures.keys()
        return Visited(
            started_at,
            self._nanoseconds(end.get("duration_ns")) / 1e9,
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

    def end(self) -> None:
        """End the runner now, whatever it is at."""
        self._process.end()

    def _expected_s(self, number: int, runs: int) -> float:
        """About how long a visit takes, rather too long: a first run is a slow one."""
        evicted = 0 if number == CANARY else self._job.models[number][1]
        runs_s = self._first_run_ns[number] * (runs + self._job.warmups) / 1e9
        return runs_s + runs * evicted / EVICTION_BYTES_A_SECOND

    def _pinned_to(self, end: Mapping[str, Any]) -> dict[str, Any]:
        """Where the runner says that it is pinned to, for the context."""
        cores = end.get("pinned_to")
        is_known = isinstance(cores, list) and all(type(core) is int for core in cores)
        if not is_known and (cores is not None or self._options.cores is not None):
            raise self._garbage(f"it is pinned to cores {cores!r:.80}")
        context: dict[str, Any] = {}
        put(context, "pinned_to", cores, "no cores were asked for")
        return context

    def _state(self, told: Any) -> dict[str, Any]:
        """The state of the cores that came with a round, with reasons for what is not known."""
        if not isinstance(told, dict):
            raise self._garbage(f"the state of its cores is {told!r:.80}")
        state: dict[str, Any] = {}
        for name in ("frequency_khz", "load_average"):
            put(state, name, told.get(name), "the phone does not show it to its shell")
        return state

    def _visit(self, answer: Mapping[str, Any], runs: int) -> Visit:
        samples, preempted = answer.get("samples_ns"), answer.get("preempted")
        if not isinstance(samples, list) or len(samples) != runs:
            raise self._garbage(f"{runs} samples were asked for, and it sent {samples!r:.80}")
        if not isinstance(preempted, list) or len(preempted) != runs:
            raise self._garbage(f"{runs} samples came with {preempted!r:.80} for preemption")
        return Visit(
            tuple(self._nanoseconds(sample) for sample in samples),
            tuple(bool(hit) for hit in preempted),
        )

    def _number(self, value: Any) -> int:
        if type(value) is not int or not CANARY <= value < len(self._job.models):
            raise self._garbage(f"it told of a model {value!r:.80}")
        return value

    def _nanoseconds(self, value: Any) -> int:
        if type(value) is not int or not 0 < value < MAXIMUM_NS:
            raise self._garbage(f"it sent {value!r:.80} as a time in nanoseconds")
        return value

    def _answers(
        self, command: str, patience_s: float, timeout_s: TimeoutOf
    ) -> Iterator[Mapping[str, Any]]:
        """The answers to a command, up to the one that ends them; `WorkerLostError` as told."""
        seen, since, wait_s = None, time.monotonic(), patience_s
        while True:
            try:
                line = self._process.read_line(wait_s)
            except TimeoutError:
                progress = self._progress()
                if progress != seen:
                    seen, since = progress, time.monotonic()
                number = None if progress is None else progress[1]
                bound_s = timeout_s(None if number == CANARY else number)
                if time.monotonic() - since > bound_s:
                    raise self._lost(f"did not end within {bound_s:.0f} s", False) from None
                wait_s = min(POLL_S, bound_s)
                continue
            if line is None:
                raise self._ended()
            answer = self._read(line)
            if "error" in answer:
                raise DeviceError(f"{self._link.serial}: the runner says: {answer['error']}")
            yield answer
            if answer.get("end") == command:
                return

    def _read(self, line: str) -> Mapping[str, Any]:
        try:
            answer = json.loads(line, parse_constant=_refuse)
        except (ValueError, RecursionError):
            raise self._garbage(f"it wrote {line!r:.200}") from None
        if not isinstance(answer, dict):
            raise self._garbage(f"it wrote {line!r:.200}")
        return answer

    def _ended(self) -> WorkerLostError:
        code = self._process.exit_code
        # What the runtime says while it loads goes to a file, which a crash leaves behind.
        log = self._link.shell(["tail", "-c", "500", f"{self._options.progress}.log"])
        said = "" if log.exit_code else log.stdout.strip()
        if code in SIGNALS:
            how = f"by {SIGNALS[code]}"
        else:
            how = f"with exit code {code}"
            said = said or self._process.stderr_tail[-500:].strip()
        return self._lost(f"ended the runner {how}{said and f': {said}'}", code == 137)

    def _lost(self, cause: str, killed: bool) -> WorkerLostError:
        progress = self._progress()
        if progress is None:
            return WorkerLostError(None, "start", cause, killed)
        _, number, action = progress
        return WorkerLostError(number if number >= 0 else None, action, cause, killed)

    def _progress(self) -> tuple[int, int, str] | None:
        """What the runner is at: step, model, action; `LinkLostError` where the phone is gone."""
        found = self._link.shell(["cat", self._options.progress])
        words: Sequence[str] = found.stdout.split()
        if found.exit_code or len(words) != 3:
            return None
        try:
            step, number = int(words[0]), int(words[1])
        except ValueError:
            return None
        is_known = CANARY <= number < len(self._job.models)
        return (step, number, words[2]) if is_known else None

    def _garbage(self, what: str) -> LinkLostError:
        """The error for an answer that no runner gives."""
        return LinkLostError(
            f"phone {self._link.serial} answered with what no runner says: {what}. Nothing of this "
            "round is kept; give the same command again to go on."
        )


def _cause(answer: Mapping[str, Any]) -> str:
    return str(answer.get("cause") or "the runner does not say why")


def _refuse(text: str) -> float:
    raise ValueError(f"{text} is no number")
