"""Per-operation times of a model, by the runtime's own profiler; the child process that asks it.

The times explain where a latency comes from: profiling itself costs time, and the caches are warm.
The model as a whole is timed in turn with the profiled one, without the profiler, and so is the
canary: whether the host was equally fast all along can be seen in the answer.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from .canary import canary_file
from .convert import default_cache, prepare
from .device import Setup
from .errors import DeviceError, UsageError
from .host import can_pin
from .onnx_profile import OnnxProfile, profiler_ms
from .profiled import ProfiledOperation, Shaped, middle_ms
from .runtimes import LiteRt, OnnxRuntime, Session, find_runtime
from .worker import switch_counter, warm_up

RUNS = 50
WARMUPS = 5
TIMEOUT_S = 600
STDERR_TAIL = 2000

SLICES = 5
"""Into how many parts the runs are cut: profiled runs, plain runs and canaries take turns."""

SLICE_WARMUPS, SLICE_WARMUP_MS = 10, 20.0
"""Warm-ups of each part, as many as a visit has: the other session has emptied the caches."""

CANARY_RUNS = 20
LEAST_MS = 1e-4
"""What an operation takes at least: about what it costs to call one."""

FEWEST_CLEAN = 5
"""Unprofiled runs that kept their processor, from which the others are left out."""


@dataclass(frozen=True, slots=True)
class OperationTime:
    """One operation as the runtime executes it, after its own fusions, and its time.

    `median_ms` is the mean of the middle half of the runs (see `middle_ms`), less what the
    profiler adds. `outputs` are the element types and shapes that it writes, where the runtime
    tells them.
    """

    name: str
    kind: str
    median_ms: float
    outputs: tuple[Shaped, ...] = ()


@dataclass(frozen=True, slots=True)
class OperationTimes:
    """Time of every operation, in the order they run, and of the whole model.

    `whole_ms` was timed without the profiler, in the same process, `profiled_ms` with it;
    `profiler_ms` is what profiling added to each operation, and was taken off. `remainder_ms` is
    what the operations leave of the whole: calls between them. `canary_ns` are medians of the
    canary from before the first run to after the last. `clean_share` is the share of the
    unprofiled runs during which the process kept its processor; where it is small, `whole_ms` is
    too large. `inputs` are the model's, by name.
    """

    operations: tuple[OperationTime, ...]
    whole_ms: float
    profiled_ms: float = 0.0
    profiler_ms: float = 0.0
    canary_ns: tuple[float, ...] = ()
    clean_share: float = 1.0
    inputs: tuple[tuple[str, Shaped], ...] = ()

    @property
    def sum_ms(self) -> float:
        """Sum over the operations."""
        return sum(item.median_ms for item in self.operations)

    @property
    def remainder_ms(self) -> float:
        """The whole less the sum; negative where profiling cost more than it missed."""
        return self.whole_ms - self.sum_ms

    @property
    def canary_drift(self) -> float:
        """By what share the slowest canary was slower than the fastest; 0 where none was timed."""
        return max(self.canary_ns) / min(self.canary_ns) - 1 if self.canary_ns else 0.0


class Profile(Protocol):
    """A loaded model with the runtime's profiler on."""

    run: Callable[[], Any]
    """One inference."""

    def operations(self, counted: Sequence[bool]) -> tuple[list[ProfiledOperation], list[float]]:
        """Each operation, and the milliseconds of each whole run; runs that count only."""


def operation_times(
    path: Path,
    setup: Setup,
    *,
    runs: int = RUNS,
    warmups: int = WARMUPS,
    optimized: Path | None = None,
) -> OperationTimes:
    """Times of a model's operations on this host, in a fresh process pinned as `setup` says.

    `path` is a file that the runtime eats, or an .onnx file to be converted. With `runs=0` the
    model is profiled once only: the operations are known then, not their times. ONNX Runtime
    writes the graph that it executes to `optimized`.

    Raises `UsageError` where the runtime or device can't tell them, `DeviceError` where the model
    can't be run.
    """
    if setup.runtime not in (OnnxRuntime.name, LiteRt.name):
        raise UsageError(
            f"{setup.runtime} does not tell the times of single operations; use --runtime "
            f"{OnnxRuntime.name} or {LiteRt.name}, or leave --per-op out"
        )
    if not setup.device.startswith("cpu:"):
        raise UsageError(
            f"times of single operations are known for this host only, not {setup.key}"
        )
    cache = default_cache()
    file = prepare(path, setup.runtime, cache, setup.batch_size, setup.precision)
    question = {
        "runtime": setup.runtime,
        "path": str(file.absolute()),
        "canary": str(prepare(canary_file(cache), setup.runtime, cache).absolute()),
        "threads": setup.threads,
        "cores": setup.cores,
        "runs": runs,
        "warmups": warmups,
        "optimized": None if optimized is None else str(optimized.absolute()),
    }
    answer = _asked(question, path)
    return OperationTimes(
        operations=tuple(
            OperationTime(**{**item, "outputs": tuple(map(_shaped, item["outputs"]))})
            for item in answer["operations"]
        ),
        whole_ms=answer["whole_ms"],
        profiled_ms=answer.get("profiled_ms", 0.0),
        profiler_ms=answer["profiler_ms"],
        canary_ns=tuple(answer.get("canary_ns", ())),
        clean_share=answer.get("clean_share", 1.0),
        inputs=tuple((name, _shaped(value)) for name, value in answer["inputs"]),
    )


def _asked(question: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """What a fresh process answers; `DeviceError` with its cause where it doesn't."""
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "latkit.devices.per_op"],
            input=json.dumps(question),
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TIMEOUT_S,
            check=False,
            env=environment,
        )
    except subprocess.TimeoutExpired as error:
        raise DeviceError(f"{path} was not profiled within {TIMEOUT_S} s") from error
    if done.returncode != 0:
        tail = done.stderr[-STDERR_TAIL:].strip()
        raise DeviceError(f"{path} can't be profiled (exit code {done.returncode}): {tail}")
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def _shaped(value: Sequence[Any]) -> Shaped:
    kind, shape = value
    return kind, tuple(shape)


class _Timing:
    """Plain and profiled runs of one model, and the canary, in turns."""

    def __init__(
        self, profile: Profile, plain: Session, canary: Session, switches: Callable[[], int] | None
    ) -> None:
        self._profile, self._plain, self._canary = profile, plain, canary
        self._switches = switches
        self.counted: list[bool] = []
        self.canary_ns: list[float] = []
        self._whole: list[tuple[int, bool]] = []
        """Nanoseconds of each plain run, and whether the process kept its processor."""

    def time(self, runs: int, warmups: int) -> None:
        """Run everything: `warmups` times first, then `runs` times in slices."""
        self._profiled(warmups, False)
        self._timed(self._plain, warmups)
        self._timed(self._canary, CANARY_RUNS)
        self._time_canary()
        slices = min(SLICES, runs)
        for index in range(slices):
            size = runs * (index + 1) // slices - runs * index // slices
            warm_up(self._plain.run, SLICE_WARMUPS, SLICE_WARMUP_MS)
            self._whole += self._timed(self._plain, size)
            warm_up(lambda: self._profiled(1, False), SLICE_WARMUPS, SLICE_WARMUP_MS)
            self._profiled(size, True)
            self._time_canary()

    @property
    def clean_share(self) -> float:
        """Share of the plain runs during which the process kept its processor."""
        return sum(clean for _, clean in self._whole) / len(self._whole)

    @property
    def whole_ms(self) -> float:
        """Median of the plain runs; of the clean ones alone where there are enough."""
        clean_ns = [ns for ns, clean in self._whole if clean]
        enough = len(clean_ns) >= FEWEST_CLEAN
        return statistics.median(clean_ns if enough else [ns for ns, _ in self._whole]) / 1e6

    def _timed(self, session: Session, runs: int) -> list[tuple[int, bool]]:
        samples = []
        for _ in range(runs):
            before = self._switches() if self._switches else 0
            start = time.perf_counter_ns()
            session.run()
            stop = time.perf_counter_ns()
            clean = self._switches is None or self._switches() == before
            samples.append((stop - start, clean))
        return samples

    def _profiled(self, runs: int, counts: bool) -> None:
        for _ in range(runs):
            self._profile.run()
            self.counted.append(counts)

    def _time_canary(self) -> None:
        warm_up(self._canary.run, SLICE_WARMUPS, SLICE_WARMUP_MS)
        samples = self._timed(self._canary, CANARY_RUNS)
        self.canary_ns.append(statistics.median(ns for ns, _ in samples))


def _profile(question: Mapping[str, Any], path: Path, folder: Path) -> Profile:
    if question["runtime"] == LiteRt.name:
        from .litert_profile import LiteRtProfile

        return LiteRtProfile(path, question["threads"])
    optimized = question["optimized"]
    given = None if optimized is None else Path(optimized)
    return OnnxProfile(path, question["threads"], folder, given)


def _answer(question: Mapping[str, Any]) -> dict[str, Any]:
    """Profile in this process: with the runtime's profiler, and timed as a whole in turn."""
    path, runs, threads = Path(question["path"]), question["runs"], question["threads"]
    if question["cores"] is not None and can_pin():
        os.sched_setaffinity(0, question["cores"])
    runtime = find_runtime(question["runtime"])
    with tempfile.TemporaryDirectory(prefix="latkit-") as folder:
        profile = _profile(question, path, Path(folder))
        if not runs:
            profile.run()
            operations, _ = profile.operations([True])
            return _told(profile, operations, 0.0)
        timing = _Timing(
            profile,
            runtime.load(path, threads),
            runtime.load(Path(question["canary"]), threads),
            switch_counter(threads),
        )
        timing.time(runs, question["warmups"])
        operations, runs_ms = profile.operations(timing.counted)
        onnx = question["runtime"] == OnnxRuntime.name
        added_ms = profiler_ms(threads, Path(folder)) if onnx else 0.0
        return _told(profile, operations, added_ms) | {
            "whole_ms": timing.whole_ms,
            "profiled_ms": statistics.median(runs_ms),
            "canary_ns": timing.canary_ns,
            "clean_share": timing.clean_share,
        }


def _told(
    profile: Profile, operations: Sequence[ProfiledOperation], added_ms: float
) -> dict[str, Any]:
    """What is known of the operations, whether or not the whole model is timed."""
    timed = [
        OperationTime(
            item.name,
            item.kind,
            max(LEAST_MS, middle_ms(item.times_ms) - added_ms),
            item.outputs,
        )
        for item in operations
    ]
    return {
        "operations": [asdict(item) for item in timed],
        "whole_ms": 0.0,
        "profiler_ms": added_ms,
        "inputs": profile.inputs if isinstance(profile, OnnxProfile) else [],
    }


def main() -> None:
    """Answer the question on standard input; the runtime's own output goes to standard error."""
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)
        answers.write(json.dumps(_answer(json.load(sys.stdin))))


if __name__ == "__main__":
    main()
