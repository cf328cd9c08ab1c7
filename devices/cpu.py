"""This host's processor as a device: rounds in fresh, pinned worker processes."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from .backend import Visited
from .canary import canary_file
from .convert import check_precision, default_cache, each_prepared, prepare
from .device import PRECISIONS, Device, Model, Precision, Round, Setup, TimingProtocol
from .errors import DeviceError, LatkitError, UsageError
from .host import allowed_cores, can_pin, hardware_name, host_facts
from .job import HostJob, Job
from .kind import DeviceListing
from .options import DeviceOptions
from .precision import convolution_runs_as, described, made_by
from .rounds import measure_rounds
from .runtimes import RUNTIMES, find_runtime, runtime_facts
from .worker_process import WorkerProcess

TIMEOUT_S = 300.0
"""How long one model may take to load, or to be visited beyond its usual time."""


class CpuDevice:
    """Times model files on this host's processor.

    Every process that times is fresh, pinned to `cores` (by default the last `threads` of those
    allowed, where the host can pin), and loads all models before its first round. Conversions are
    kept in `cache`. Raises `DeviceError` where the runtime, or what writes its files in
    `precision`, is not installed, `UsageError` where the cores don't fit.
    """

    def __init__(
        self,
        *,
        runtime: str = "onnxruntime",
        threads: int = 1,
        cores: Sequence[int] | None = None,
        precision: Precision = "float32",
        batch_size: int = 1,
        cache: Path | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self._runtime = find_runtime(runtime)
        check_precision(precision)
        made_by(self._runtime.suffix, precision)
        self._cache = default_cache() if cache is None else cache
        self.timeout_s = timeout_s
        self._setup = Setup(
            device=cpu_name(),
            runtime=self._runtime.name,
            runtime_version=self._runtime.version(),
            threads=threads,
            cores=_choose_cores(threads, cores),
            precision=precision,
            batch_size=batch_size,
        )

    @property
    def setup(self) -> Setup:
        """The key under which its measurements are filed."""
        return self._setup

    def info(self) -> dict[str, Any]:
        """Everything about the host and the runtime that could explain a latency."""
        suffix, precision = self._runtime.suffix, self._setup.precision
        form = described(suffix, precision, platform.machine())
        if suffix == ".onnx" and precision != "float32":
            form["convolution_runs_as"] = convolution_runs_as(precision, platform.machine())
        facts = runtime_facts(self._runtime, self._setup.threads)
        return {**host_facts(), **facts, "precision": form}

    def measure(self, models: Sequence[Model], protocol: TimingProtocol) -> Iterator[Round]:
        """Time `models` by `protocol`; yield each round as it is finished. See `measure_rounds`."""
        return measure_rounds(self, models, protocol)

    def session(self) -> AbstractContextManager[Mapping[str, Any]]:
        """This host needs no preparation."""
        return nullcontext({})

    def deliver(self, models: Sequence[Path]) -> list[str | LatkitError]:
        """The files that the runtime eats, converted where needed."""
        precision = self._setup.precision
        found = each_prepared(models, lambda path: self._prepare(path, precision))
        return [str(item) if isinstance(item, Path) else item for item in found]

    def canary(self) -> str:
        """The canary's file: float32 in every precision, since it watches the host."""
        return str(self._prepare(canary_file(self._cache), "float32"))

    def worker(self, job: Job, folder: Path) -> WorkerProcess:
        """A fresh process of this host."""
        setup = self._setup
        progress = str(folder / "progress")
        return WorkerProcess(
            HostJob(setup.runtime, setup.threads, setup.cores, progress, job), folder
        )

    def state(self) -> Mapping[str, Any]:
        """Empty: workers tell what the host does."""
        return {}

    def throttled(
        self, before: Mapping[str, Any], after: Mapping[str, Any], visited: Visited, drift: float
    ) -> str | None:
        """Whether the processor's own count of throttling went up, where the host tells it."""
        del before, after, drift
        events = [visited.context[when].get("throttle_events") for when in ("before", "after")]
        if None in events or events[0] == events[1]:
            return None
        return f"the processor throttled {events[1] - events[0]} times"

    def cool(self, before: Mapping[str, Any]) -> float:
        """Waits no longer than the next round does for a quiet canary."""
        del before
        return 0.0

    def _prepare(self, path: Path, precision: Precision) -> Path:
        name, batch_size = self._runtime.name, self._setup.batch_size
        return prepare(path, name, self._cache, batch_size, precision).resolve()


class CpuKind:
    """This host's processor, at the address `cpu`."""

    def open(self, place: str, options: DeviceOptions) -> Device:
        """The device; `place` must be empty."""
        self._check(place)
        if options.accelerator not in (None, "cpu"):
            raise UsageError(
                f"the cpu device has no accelerator {options.accelerator!r}; leave it out"
            )
        for name in ("runtime_library", "benchmark_model"):
            if getattr(options, name) is not None:
                raise UsageError(
                    f"--{name.replace('_', '-')} is for phones, not for the cpu device"
                )
        return CpuDevice(
            runtime=options.runtime or "onnxruntime",
            threads=options.threads,
            cores=options.cores,
            precision=options.precision,
            batch_size=options.batch_size,
        )

    def name(self, place: str, options: DeviceOptions) -> str:
        """The processor's name."""
        del options
        self._check(place)
        return cpu_name()

    def found(self, options: DeviceOptions) -> list[DeviceListing]:
        """This host's processor, with the runtimes installed."""
        del options
        versions: dict[str, str] = {}
        missing: dict[str, str] = {}
        able: set[Precision] = set()
        for name, runtime in RUNTIMES.items():
            try:
                versions[name] = runtime.version()
            except LatkitError as error:
                missing[name] = str(error)
                continue
            for precision in PRECISIONS:
                try:
                    made_by(runtime.suffix, precision)
                    able.add(precision)
                except LatkitError as error:
                    missing[f"{name} {precision}"] = str(error)
        return [
            DeviceListing(
                "cpu",
                "cpu",
                hardware_name(),
                architecture=platform.machine(),
                runtimes=versions,
                missing=missing,
                cores=allowed_cores(),
                can_pin=can_pin(),
                precisions=tuple(item for item in PRECISIONS if item in able),
            )
        ]

    @staticmethod
    def _check(place: str) -> None:
        if place:
            raise DeviceError(f"there is no device cpu:{place}; this host's processor is: cpu")


def cpu_name() -> str:
    """What `Setup.device` says for this host's processor."""
    return f"cpu:{hardware_name()}"


def _choose_cores(threads: int, cores: Sequence[int] | None) -> tuple[int, ...] | None:
    """The processors to pin to; the last ones by default: systems keep to the first."""
    allowed = allowed_cores()
    if threads < 1:
        raise UsageError(f"threads is {threads}, and must be at least 1")
    if threads > len(allowed):
        raise UsageError(
            f"{threads} threads are asked for, and this process may use {len(allowed)} processors"
        )
    if cores is None:
        return allowed[-threads:] if can_pin() else None
    if not can_pin():
        raise UsageError("this host can't pin a process to cores; leave them out")
    chosen = tuple(sorted(set(cores)))
    foreign = [core for core in chosen if core not in allowed]
    if foreign:
        raise UsageError(f"cores {foreign} are not among those allowed here, {list(allowed)}")
    if len(chosen) < threads:
        raise UsageError(f"{threads} threads need as many cores; given are {list(chosen)}")
    return chosen
