"""Times of single operations on whichever device tells them."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol, runtime_checkable

from .device import Device
from .per_op import RUNS, WARMUPS, OperationTimes, operation_times


@runtime_checkable
class TellsOperations(Protocol):
    """A device that asks its own runtime for the operations of a model, where they run."""

    def operations(
        self,
        path: Path,
        *,
        runs: int = RUNS,
        warmups: int = WARMUPS,
        optimized: Path | None = None,
    ) -> OperationTimes:
        """As `per_op.operation_times`, of the device."""


def device_operations(
    device: Device,
    path: Path,
    *,
    runs: int = RUNS,
    warmups: int = WARMUPS,
    optimized: Path | None = None,
) -> OperationTimes:
    """Times of a model's operations on a device: by its own runtime's profiler, where it runs.

    See `per_op.operation_times`. Raises `UsageError` where the device or its runtime can't tell
    them, `DeviceError` where the model can't be run or the device is lost.
    """
    if isinstance(device, TellsOperations):
        return device.operations(path, runs=runs, warmups=warmups, optimized=optimized)
    return operation_times(path, device.setup, runs=runs, warmups=warmups, optimized=optimized)
