"""NVIDIA GPUs of this host as devices: rounds in fresh worker processes that see one GPU each."""

from __future__ import annotations

import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..backend import Loaded, Visited, Worker
from ..canary import canary_file
from ..convert import check_precision, default_cache, each_prepared, prepare
from ..device import FALLBACK, Device, Model, Placement, Precision, Round, Setup, TimingProtocol
from ..errors import DeviceError, LatkitError, UsageError
from ..host import host_facts
from ..job import HostJob, Job
from ..kind import DeviceListing
from ..options import DeviceOptions
from ..placement import check_placement
from ..precision import described
from ..rounds import measure_rounds
from ..runtimes import runtime_facts
from ..worker_process import WorkerProcess
from .nvidia import Gpu, NvidiaSmi, slowdown
from .runtimes import NAMES, PRECISIONS, find_cuda_runtime

TIMEOUT_S = 600.0
"""How long one model may take to load, or to be visited beyond its usual time. Kernels that are
compiled for the GPU on their first use take minutes."""

COOLING_S = 60.0
"""How long a GPU that slowed itself down may take to cool."""

COOLING_POLL_S = 2.0
COOLED_C = 3.0
"""So much warmer than before the round it may still be."""


class CudaDevice:
    """Times model files on the GPU that nvidia-smi counts as `index`.

    Processes that time see this GPU alone. Batches of `batch_size` stand in every input. Raises
    `DeviceError` where there is no such GPU or the runtime can't use it. A model of which some
    nodes run on the processor is a failure unless `allow_fallback`.
    """

    def __init__(
        self,
        index: int = 0,
        *,
        runtime: str | None = None,
        precision: Precision = "float32",
        batch_size: int = 1,
        allow_fallback: bool = False,
        cache: Path | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        check_precision(precision, PRECISIONS)
        if batch_size < 1:
            raise UsageError(f"the batch size is {batch_size}, and must be at least 1")
        self._nvidia_smi = NvidiaSmi()
        self._gpu = choose_gpu(self._nvidia_smi.gpus(), index)
        self._runtime = find_cuda_runtime(runtime or default_runtime(), self._gpu.uuid)
        self._allow_fallback = allow_fallback
        self._cache = default_cache() if cache is None else cache
        self.timeout_s = timeout_s
        self._setup = Setup(
            device=gpu_name(self._gpu),
            runtime=self._runtime.name,
            runtime_version=self._runtime.version(),
            accelerator=f"cuda{FALLBACK}" if allow_fallback else "cuda",
            precision=precision,
            batch_size=batch_size,
        )

    @property
    def setup(self) -> Setup:
        """The key under which its measurements are filed."""
        return self._setup

    def info(self) -> dict[str, Any]:
        """Everything about the GPU, the host and the runtime that could explain a latency."""
        gpu = self._nvidia_smi.facts(self._gpu)
        form = described(self._runtime.suffix, self._setup.precision, platform.machine())
        facts = runtime_facts(self._runtime, 1)
        return {**host_facts(), **facts, "gpu": gpu, "precision": form}

    def measure(self, models: Sequence[Model], protocol: TimingProtocol) -> Iterator[Round]:
        """Time `models` by `protocol`; yield each round as it is finished. See `measure_rounds`."""
        return measure_rounds(self, models, protocol)

    def session(self) -> AbstractContextManager[Mapping[str, Any]]:
        """The GPU is taken as it is: its settings are its owner's."""
        return nullcontext({})

    def deliver(self, models: Sequence[Path]) -> list[str | LatkitError]:
        """The files that the runtime eats, in this batch size and precision."""
        precision = self._setup.precision
        found = each_prepared(models, lambda path: self._prepare(path, precision))
        return [str(item) if isinstance(item, Path) else item for item in found]

    def canary(self) -> str:
        """The canary's file: float32 in every precision, since it watches the GPU."""
        return str(self._prepare(canary_file(self._cache), "float32"))

    def worker(self, job: Job, folder: Path) -> Worker:
        """A fresh process that sees this GPU alone."""
        told = HostJob(
            runtime=f"{self._runtime.name}@{self._gpu.uuid}",
            threads=self._setup.threads,
            cores=self._setup.cores,
            progress=str(folder / "progress"),
            job=job,
        )
        worker = WorkerProcess(told, folder)
        return worker if self._allow_fallback else _WithoutFallback(worker)

    def state(self) -> Mapping[str, Any]:
        """Clocks, power, temperatures, and why the clocks are what they are."""
        return self._nvidia_smi.state(self._gpu)

    def throttled(
        self, before: Mapping[str, Any], after: Mapping[str, Any], visited: Visited, drift: float
    ) -> str | None:
        """Whether heat or a power brake lowered the clocks."""
        del visited, drift
        return slowdown(before, after)

    def cool(self, before: Mapping[str, Any]) -> float:
        """Wait, for a minute at most, until clocks and temperature are as before."""
        started = time.monotonic()
        until_c = before.get("temperature_c")
        while (waited_s := time.monotonic() - started) < COOLING_S:
            now = self._nvidia_smi.state(self._gpu)
            is_warm = until_c is not None and (now["temperature_c"] or 0) > until_c + COOLED_C
            if not is_warm and slowdown({}, now) is None:
                break
            time.sleep(COOLING_POLL_S)
        return waited_s

    def _prepare(self, path: Path, precision: Precision) -> Path:
        name, size = self._runtime.name, self._setup.batch_size
        return prepare(path, name, self._cache, size, precision).resolve()


class _WithoutFallback:
    """A worker for which a model that runs partly on the processor has failed."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self.visit = worker.visit
        self.end = worker.end

    def load(self, timeout_s: float) -> Loaded:
        """Load all models; those that fell back are among the failures."""
        loaded = self._worker.load(timeout_s)
        failures = dict(loaded.failures)
        for number in loaded.first_run_ns:
            cause = fallback(loaded.placements.get(number))
            if cause is not None:
                failures.setdefault(number, cause)
        return replace(loaded, failures=failures)


def fallback(placement: Placement | None) -> str | None:
    """Why a model's latency is not that of the GPU alone; `None` where it is."""
    if placement is not None and placement.nodes == 0:
        return None
    cause = check_placement("cuda", placement, allow_fallback=False)
    if cause is not None or placement is None:
        return cause
    if placement.delegated is None or placement.nodes is None:
        return None
    left = placement.nodes - placement.delegated
    if not left:
        return None
    return (
        f"asked for cuda, and {left} of {placement.nodes} nodes run on the processor. "
        "--allow-fallback times it all the same"
    )


def choose_gpu(gpus: Sequence[Gpu], index: int) -> Gpu:
    """The GPU of this index; `DeviceError` lists those that are there."""
    for gpu in gpus:
        if gpu.index != index:
            continue
        if gpu.mig:
            raise DeviceError(
                f"cuda:{index}, {gpu.name}, is split into instances (MIG), and which one would be "
                "timed is not settled; choose a GPU that is whole"
            )
        return gpu
    there = ", ".join(f"cuda:{gpu.index} ({gpu.name})" for gpu in gpus) or "none"
    raise DeviceError(
        f"there is no device cuda:{index}; the GPUs here are: {there}. CUDA_VISIBLE_DEVICES may "
        "hide some"
    )


def default_runtime() -> str:
    """The first runtime that can use a GPU here; `DeviceError` says why none can."""
    missing = []
    for name in NAMES:
        try:
            find_cuda_runtime(name).version()
        except DeviceError as error:
            missing.append(str(error))
        else:
            return name
    raise DeviceError("no runtime can use the GPU: " + "; ".join(missing))


def gpu_name(gpu: Gpu) -> str:
    """What `Setup.device` says for a GPU."""
    return f"cuda:{gpu.name.replace('|', '/')}"


def parse_index(place: str) -> int:
    """The index in `cuda:N`, 0 where there is none; `UsageError` where it is no number."""
    if not place:
        return 0
    if not (place.isascii() and place.isdigit()):
        raise UsageError(f"there is no device cuda:{place}; give a GPU's number, as in cuda:0")
    return int(place)


class CudaKind:
    """NVIDIA GPUs of this host, at the addresses `cuda:0`, `cuda:1`, ..."""

    def open(self, place: str, options: DeviceOptions) -> Device:
        """The GPU of this number; `cuda` alone is the first."""
        index = parse_index(place)
        if options.accelerator not in (None, "cuda"):
            raise UsageError(
                f"the cuda device has no accelerator {options.accelerator!r}; leave it out"
            )
        for name in ("runtime_library", "benchmark_model"):
            if getattr(options, name) is not None:
                raise UsageError(f"--{name.replace('_', '-')} is for phones, not for GPUs")
        if options.threads != 1 or options.cores is not None:
            raise UsageError("--threads and --cores are for processors, not for GPUs")
        return CudaDevice(
            index,
            runtime=options.runtime,
            precision=options.precision,
            batch_size=options.batch_size,
            allow_fallback=options.allow_fallback,
        )

    def name(self, place: str, options: DeviceOptions) -> str:
        """The GPU's name, found without a runtime."""
        del options
        return gpu_name(choose_gpu(NvidiaSmi().gpus(), parse_index(place)))

    def found(self, options: DeviceOptions) -> list[DeviceListing]:
        """The GPUs, with the runtimes that can use them; none where there is no driver."""
        del options
        try:
            nvidia_smi = NvidiaSmi()
        except DeviceError:
            return []
        try:
            gpus = nvidia_smi.gpus()
        except DeviceError as error:
            return [DeviceListing("cuda:0", "cuda", "NVIDIA GPU", problem=str(error))]
        versions: dict[str, str] = {}
        missing: dict[str, str] = {}
        for name in NAMES if gpus else ():
            try:
                versions[name] = find_cuda_runtime(name).version()
            except DeviceError as error:
                missing[name] = str(error)
        return [_listing(nvidia_smi, gpu, versions, missing) for gpu in gpus]


def _listing(
    nvidia_smi: NvidiaSmi, gpu: Gpu, versions: dict[str, str], missing: dict[str, str]
) -> DeviceListing:
    problem, temperature = None, None
    try:
        choose_gpu([gpu], gpu.index)
        celsius = nvidia_smi.state(gpu)["temperature_c"]
        temperature = None if celsius is None else f"{celsius} C"
    except DeviceError as error:
        problem = str(error)
    return DeviceListing(
        f"cuda:{gpu.index}",
        "cuda",
        gpu.name,
        runtimes=dict(versions),
        missing=dict(missing),
        accelerators=("cuda",),
        precisions=PRECISIONS,
        temperature=temperature,
        problem=problem,
    )
