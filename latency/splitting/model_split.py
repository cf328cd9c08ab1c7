"""Splits a model file into the kernels that a runtime runs, with their times on the device."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import onnx

from ...devices.convert import default_cache, prepare
from ...devices.cpu import cpu_name
from ...devices.device import Device, Setup
from ...devices.errors import LatkitError, UsageError
from ...devices.operations import device_operations
from ...devices.per_op import RUNS, OperationTimes, operation_times
from ...devices.runtimes import RUNTIMES, LiteRt, OnnxRuntime, find_runtime
from ..counts import Kernel
from .litert import RuntimeKernel, joined_kernels, litert_kernels
from .onnxruntime import executed_kernels, fused_kernels
from .tflite import read_tflite


@dataclass(frozen=True, slots=True)
class NamedKernel:
    """One kernel of a model: the runtime's name for it, and its time where it was profiled.

    `median_ms` is the mean of the middle half of the runs, less what the profiler adds.
    """

    name: str
    kernel: Kernel
    median_ms: float | None = None


@dataclass(frozen=True, slots=True)
class Split:
    """The kernels of a model in the order they run.

    `source` tells whether the runtime itself named them, or rules on what it does with the file.
    `whole_ms` is the model's latency timed without the profiler. `canary_ns` are the canary's
    medians from before the first run to after the last; `clean_share` is the share of the
    unprofiled runs during which the process kept its processor.
    """

    kernels: tuple[NamedKernel, ...]
    source: Literal["runtime", "rules"]
    whole_ms: float | None = None
    canary_ns: tuple[float, ...] = ()
    clean_share: float = 1.0

    @property
    def canary_drift(self) -> float:
        """By what share the slowest canary was slower than the fastest; 0 where none was timed.

        Where it is large the host was disturbed meanwhile, and the times should be taken again.
        """
        return max(self.canary_ns) / min(self.canary_ns) - 1 if self.canary_ns else 0.0


def split(path: Path, setup: Setup) -> Split:
    """The kernels that `setup` runs for a model file, without their times.

    `path` is an .onnx file, or what the runtime eats; it is converted as the device would. For
    ONNX Runtime on this host the runtime tells them; LiteRT's follow from the .tflite by rules,
    on any device. For ONNX Runtime elsewhere plain ONNX fusions are assumed: an optimized graph is
    this host's own. Raises `UsageError` where the model can't be used or for other setups.
    """
    if setup.runtime == OnnxRuntime.name and _is_here(setup):
        return _told_by_onnxruntime(path, setup, _asker(setup, 0))
    if setup.runtime not in RUNTIMES or setup.accelerator_name not in ("cpu", "xnnpack"):
        raise UsageError(
            f"what {setup.key} makes of a model is not known; kernels are known for "
            f"{' and '.join(RUNTIMES)} on processors"
        )
    file = _prepared(path, setup)
    if setup.runtime == LiteRt.name:
        kernels = _litert(file, xnnpack=setup.accelerator_name == "xnnpack" or _is_host(setup))
        return Split(tuple(NamedKernel(item.name, item.kernel) for item in kernels), "rules")
    plain = enumerate(fused_kernels(_read_onnx(file)))
    named = (NamedKernel(f"{kernel.operation}_{index}", kernel) for index, kernel in plain)
    return Split(tuple(named), "rules")


def timed_split(path: Path, setup: Setup, *, runs: int = RUNS) -> Split:
    """The kernels that this host runs for a model file, each with its time, and the whole's.

    Raises `UsageError` for a setup of another device, runtime or version than this host's, or
    where the model can't be used; `DeviceError` where it can't be run.
    """
    if not _is_here(setup):
        raise UsageError(
            f"single kernels can be timed on this host with what is installed, not on {setup.key}"
        )
    if runs < 1:
        raise UsageError(f"runs is {runs}, and must be at least 1")
    if setup.runtime == OnnxRuntime.name:
        return _told_by_onnxruntime(path, setup, _asker(setup, runs))
    file = _prepared(path, setup)
    times = operation_times(file, _as_it_is(setup), runs=runs)
    return _timed(joined_kernels(_litert(file, xnnpack=True), times), times)


def device_split(path: Path, device: Device, *, runs: int = RUNS) -> Split:
    """The kernels that an open device runs for a model file, told by its own runtime.

    As `split` with `runs=0`, else as `timed_split`; also on phones with ONNX Runtime, whose
    optimized graph is the phone's own. Raises `UsageError` where the device can't tell, or where
    the model can't be used; `DeviceError` where it can't be run or the device is lost.
    """
    setup = device.setup
    if _is_host(setup):
        return timed_split(path, setup, runs=runs) if runs else split(path, setup)
    if setup.runtime != OnnxRuntime.name:
        if not runs:
            return split(path, setup)
        raise UsageError(f"{setup.key} does not tell single kernels; give ONNX Runtime's library")

    def asked(file: Path, optimized: Path) -> OperationTimes:
        return device_operations(device, file, runs=runs, optimized=optimized)

    return _told_by_onnxruntime(path, setup, asked)


Asker = Callable[[Path, Path], OperationTimes]
"""Has a runtime profile a file, and write the graph that it runs to another."""


def _asker(setup: Setup, runs: int) -> Asker:
    """This host's ONNX Runtime; with times for `runs` above 0."""
    return lambda file, optimized: operation_times(
        file, _as_it_is(setup), runs=runs, optimized=optimized
    )


def _told_by_onnxruntime(path: Path, setup: Setup, asked: Asker) -> Split:
    """What ONNX Runtime tells of itself, where it runs."""
    file = _prepared(path, setup)
    original = _read_onnx(file)
    with tempfile.TemporaryDirectory(prefix="latkit-") as folder:
        optimized = Path(folder) / "optimized.onnx"
        times = asked(file, optimized)
        kernels = executed_kernels(onnx.load(optimized), original, times)
    return _timed(kernels, times)


def _timed(kernels: tuple[Kernel, ...], times: OperationTimes) -> Split:
    timed = times.whole_ms > 0
    named = tuple(
        NamedKernel(item.name, kernel, item.median_ms if timed else None)
        for kernel, item in zip(kernels, times.operations, strict=True)
    )
    whole_ms = times.whole_ms if timed else None
    return Split(named, "runtime", whole_ms, times.canary_ns, times.clean_share)


def _litert(file: Path, *, xnnpack: bool) -> tuple[RuntimeKernel, ...]:
    return litert_kernels(read_tflite(file.read_bytes(), str(file)), xnnpack=xnnpack)


def _read_onnx(file: Path) -> onnx.ModelProto:
    try:
        return onnx.load(file)
    except Exception as error:  # whatever damaged bytes have protobuf raise
        raise UsageError(f"{file} is no ONNX model that can be read: {error}") from error


def _prepared(path: Path, setup: Setup) -> Path:
    return prepare(path, setup.runtime, default_cache(), setup.batch_size, setup.precision)


def _as_it_is(setup: Setup) -> Setup:
    """The setup for a file that is already in its batch size and precision."""
    return replace(setup, batch_size=1, precision="float32")


def _is_host(setup: Setup) -> bool:
    return setup.device == cpu_name()


def _is_here(setup: Setup) -> bool:
    """Whether `setup` is this host with the runtime that is installed."""
    if not _is_host(setup) or setup.runtime not in RUNTIMES or setup.accelerator_name != "cpu":
        return False
    try:
        return find_runtime(setup.runtime).version() == setup.runtime_version
    except LatkitError:
        return False
