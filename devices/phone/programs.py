"""The two programs that time models on a phone: our runner, and TFLite's benchmark_model."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ..adb import FOLDER, AdbLink
from ..backend import Loaded, Plan, TimeoutOf, Visited, Worker
from ..device import Placement, Setup, Visit
from ..errors import DeviceError, UsageError
from ..job import CANARY, Job
from ..options import DeviceOptions
from ..placement import check_placement, read_placement
from ..runner import runner_path
from .benchmark_model import BenchmarkFailedError, BenchmarkModelTool
from .elf import read_abi, read_shared_library
from .runtime_library import RuntimeLibrary, open_runtime_library
from .worker import RunnerOptions, RunnerWorker

ACCELERATORS = ("cpu", "xnnpack", "nnapi", "gpu")
PLUGIN = "plugin"
DELEGATE_FUNCTIONS = {
    "xnnpack": "TfLiteXNNPackDelegateCreate",
    "nnapi": "TfLiteNnapiDelegateCreate",
    "gpu": "TfLiteGpuDelegateV2Create",
    PLUGIN: "tflite_plugin_create_delegate",
}
"""What TFLite's library, or one of a delegate alone, exports where it has an accelerator."""


@dataclass(frozen=True, slots=True)
class Accelerator:
    """An accelerator that was asked for. `library` is its delegate's own, of that `sha256`."""

    name: str
    library: Path | None = None
    sha256: str | None = None

    @classmethod
    def of(cls, asked: str | None, abi: str) -> Accelerator:
        """The accelerator that an option names: NAME, or NAME:LIBRARY where it is in one apart.

        Raises `UsageError`, which lists the known, or says what the library lacks.
        """
        name, has_library, place = (asked or "cpu").partition(":")
        if has_library and name in DELEGATE_FUNCTIONS:
            path = Path(place)
            content = _read(path, abi)
            wanted = DELEGATE_FUNCTIONS[name]
            if wanted not in read_shared_library(content, place).exports:
                raise UsageError(f"{path} is no delegate for {name}: it exports no {wanted}")
            return cls(name, path, hashlib.sha256(content).hexdigest())
        if has_library or name not in ACCELERATORS:
            known = ", ".join(ACCELERATORS)
            raise UsageError(
                f"--accelerator {asked}: a phone has {known}, each also with the library of its "
                f"delegate, as in gpu:LIBRARY.so, and {PLUGIN}:LIBRARY.so"
            )
        return cls(name)

    def check(self, library: RuntimeLibrary) -> None:
        """Raise `UsageError` where TFLite's library can't give the accelerator."""
        wanted = DELEGATE_FUNCTIONS.get(self.name)
        if wanted is None or self.library is not None or library.runtime != "litert":
            return
        if wanted not in library.exports:
            raise UsageError(
                f"{library.source} has no {self.name}: it exports no {wanted}. Give the library "
                f"that does, as --accelerator {self.name}:LIBRARY.so, or time by --benchmark-model"
            )

    @property
    def key(self) -> str:
        """What the setup says."""
        return self.name if self.sha256 is None else f"{self.name}:{self.sha256[:12]}"

    def pushed(self, link: AdbLink) -> str | None:
        """Bring the delegate's library to the phone; its path there."""
        return None if self.library is None else link.push([self.library])[0]

    def placement(
        self, log: str, runtime: str, allow_fallback: bool
    ) -> tuple[Placement | None, str | None]:
        """Where a model ran by the runtime's log, and why that can't be accepted."""
        placement = read_placement(runtime, self.name, log)
        return placement, check_placement(self.name, placement, allow_fallback)


Profiler = Callable[[AdbLink, Setup, Job], RunnerWorker]
"""Starts a program with a job, of which it can tell the single operations."""


class PhoneProgram(Protocol):
    """A program that times models on a phone."""

    runtime: str
    """What the setup says; names the statistic where there are no single samples."""
    version: str
    accelerator: Accelerator

    def info(self) -> Mapping[str, Any]:
        """What the program is, for the context."""

    def worker(self, link: AdbLink, setup: Setup, job: Job) -> Worker:
        """Start it with a job."""

    def profiler(self) -> Profiler:
        """What tells single operations; `UsageError` where it can't."""


class RunnerProgram:
    """Our runner, with the runtime's library that the user has."""

    def __init__(self, options: DeviceOptions, abi: str, cache: Path) -> None:
        if options.runtime_library is None:
            raise UsageError(
                "a phone needs the runtime's library, which does not come with it: give "
                "--runtime-library FILE, the onnxruntime-android or TensorFlow Lite .aar, or its "
                ".so; or --benchmark-model PROGRAM"
            )
        self._library = open_runtime_library(options.runtime_library, abi, cache)
        self.runtime: str = self._library.runtime
        if options.runtime not in (None, self.runtime):
            raise UsageError(
                f"{self._library.source} is a library of {self.runtime}, and --runtime "
                f"{options.runtime} is asked for"
            )
        if self._library.extra:
            names = ", ".join(path.name for path in self._library.extra)
            raise UsageError(
                f"{self._library.source} needs other libraries ({names}), which can't be loaded "
                "beside it yet; give one that needs none"
            )
        self.version = f"sha256:{self._library.sha256[:16]}"
        asked = options.accelerator or _default_accelerator(self._library)
        self.accelerator = Accelerator.of(asked, abi)
        self.accelerator.check(self._library)
        self._runner = runner_path(abi)
        # A default asks for nothing: what it can't take runs where it can, and is told so.
        self._allow_fallback = options.allow_fallback or options.accelerator is None

    def info(self) -> Mapping[str, Any]:
        """The library, its checksum, and the runner's."""
        return {
            "runtime": self.runtime,
            "runtime_library": self._library.source,
            "runtime_binary_sha256": self._library.sha256,
            "runner_sha256": hashlib.sha256(self._runner.read_bytes()).hexdigest(),
        }

    def profiler(self) -> Profiler:
        """A runner, where the runtime has a profiler."""
        if self._library.runner_name != "onnxruntime":
            raise UsageError(
                f"{self._library.source} can't tell the times of single operations on a phone: "
                "TensorFlow Lite's C interface has no profiler. Give ONNX Runtime's library, or "
                "leave --per-op out"
            )
        return self.worker

    def worker(self, link: AdbLink, setup: Setup, job: Job) -> RunnerWorker:
        """A fresh runner on the phone."""
        (program,) = link.push([self._runner], executable=True)
        (library,) = link.push([self._library.path])
        options = RunnerOptions(
            program=program,
            progress=f"{FOLDER}/progress",
            runtime=self._library.runner_name,
            library=library,
            accelerator=self.accelerator.name,
            delegate=self.accelerator.pushed(link),
            threads=setup.threads,
            cores=setup.cores,
        )

        def placement_of(log: str) -> tuple[Placement | None, str | None]:
            return self.accelerator.placement(log, self.runtime, self._allow_fallback)

        return RunnerWorker(link, options, job, placement_of)


class BenchmarkProgram:
    """TFLite's benchmark_model, the user's, for delegates that no library exports."""

    def __init__(self, options: DeviceOptions, abi: str, link: AdbLink, canary: Path) -> None:
        assert options.benchmark_model is not None
        if options.runtime not in (None, "litert") or options.runtime_library is not None:
            raise UsageError(
                "--benchmark-model is a runtime of its own, litert's; leave out --runtime-library "
                "and any other --runtime"
            )
        self._path = options.benchmark_model
        self._sha256 = hashlib.sha256(_read(self._path, abi)).hexdigest()
        self.version = f"sha256:{self._sha256[:16]}"
        self.accelerator = Accelerator.of(options.accelerator, abi)
        self._allow_fallback = options.allow_fallback
        self._precision = options.precision
        tool = self._tool(link, options.threads, None)
        self.runtime = tool.probe_statistic(link.push([canary])[0])

    def info(self) -> Mapping[str, Any]:
        """The program and its checksum."""
        return {
            "runtime": self.runtime,
            "benchmark_model": str(self._path),
            "runtime_binary_sha256": self._sha256,
        }

    def profiler(self) -> Profiler:
        """It tells aggregates of whole models only."""
        raise UsageError(
            f"{self._path} is not asked for the times of single operations; give ONNX Runtime's "
            "library as --runtime-library instead, or leave --per-op out"
        )

    def worker(self, link: AdbLink, setup: Setup, job: Job) -> Worker:
        """Starts the program once for each visit."""
        tool = self._tool(link, setup.threads, setup.cores)
        if tool.probe_statistic(job.canary) != self.runtime:
            raise DeviceError(f"{self._path} tells another statistic than before; try again")
        return BenchmarkWorker(tool, job, self.accelerator, self._allow_fallback)

    def _tool(
        self, link: AdbLink, threads: int, cores: tuple[int, ...] | None
    ) -> BenchmarkModelTool:
        (binary,) = link.push([self._path], executable=True)
        return BenchmarkModelTool(
            link,
            binary,
            accelerator=self.accelerator.name,
            plugin=self.accelerator.pushed(link),
            threads=threads,
            cores=cores,
            precision=self._precision,
        )


class BenchmarkWorker:
    """Times each visit by a start of benchmark_model, which tells aggregates only."""

    def __init__(
        self, tool: BenchmarkModelTool, job: Job, accelerator: Accelerator, allow_fallback: bool
    ) -> None:
        self._tool = tool
        self._job = job
        self._accelerator = accelerator
        self._allow_fallback = allow_fallback
        self._failed = set(job.skip)
        self._context = {"pinned_to": None, "pinned_to_reason": "benchmark_model does not tell it"}

    def load(self, timeout_s: float) -> Loaded:
        """Run each model once."""
        del timeout_s  # The program has bounds of its own.
        failures: dict[int, str] = {}
        first_run_ns: dict[int, int] = {}
        for number, (place, eviction_bytes) in enumerate(self._job.models):
            if number in self._failed:
                continue
            if eviction_bytes:
                failures[number] = "benchmark_model can't evict the caches before a run"
                continue
            try:
                visit = self._visit(place, 1)
            except BenchmarkFailedError as error:
                failures[number] = f"can't be loaded: {error}"
                continue
            assert visit.summary is not None
            first_run_ns[number] = round(visit.summary.value_ns)
            cause = check_placement(self._accelerator.name, visit.placement, self._allow_fallback)
            if cause is not None:
                failures[number] = cause
        self._failed |= failures.keys()
        return Loaded(failures, first_run_ns)

    def visit(self, plan: Plan, timeout_s: TimeoutOf) -> Visited:
        """Visit models in this order. Those that failed before are left out."""
        del timeout_s
        started_at, started = time.time(), time.monotonic()
        canary: list[Visit] = []
        visits: dict[int, Visit] = {}
        failures: dict[int, str] = {}
        for number, runs in plan:
            if number == CANARY:
                canary.append(self._visit(self._job.canary, runs))
            elif number not in self._failed:
                try:
                    visits[number] = self._visit(self._job.models[number][0], runs)
                except BenchmarkFailedError as error:
                    failures[number] = f"can't be run: {error}"
        self._failed |= failures.keys()
        duration_s = time.monotonic() - started
        return Visited(started_at, duration_s, tuple(canary), visits, failures, self._context)

    def end(self) -> None:
        """Nothing runs between visits."""

    def _visit(self, place: str, runs: int) -> Visit:
        reading = self._tool.run(place, runs=runs, warmups=self._job.warmups)
        return Visit((), None, reading.placement, reading.summary)


def _default_accelerator(library: RuntimeLibrary) -> str:
    """What the runtime's own Java and Python interfaces use: for TFLite, XNNPACK on the CPU."""
    return "xnnpack" if DELEGATE_FUNCTIONS["xnnpack"] in library.exports else "cpu"


def _read(path: Path, abi: str) -> bytes:
    """A program or library for the phone's processor; `UsageError` where it is none."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UsageError(f"can't read {path}: {error.strerror}") from error
    found = read_abi(content, str(path))
    if found != abi:
        raise UsageError(f"{path} is for {found}, and the phone runs {abi}")
    return content
