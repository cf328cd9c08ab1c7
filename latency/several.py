"""Several devices at once: a thread for each; one that is lost stops none of the others."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, TypeVar

from ..devices.console import stderr
from ..devices.device import Device, Model, Round, Setup, TimingProtocol
from ..devices.errors import DeviceError, LatkitError, UsageError
from ..devices.operations import device_operations
from ..devices.options import DeviceOptions
from ..devices.per_op import RUNS, WARMUPS, OperationTimes
from ..devices.registry import open_device

T = TypeVar("T")


class _Stoppable:
    """A device that stops between two rounds once `stop` is set."""

    def __init__(self, device: Device, stop: threading.Event) -> None:
        self._device = device
        self._stop = stop

    @property
    def setup(self) -> Setup:
        return self._device.setup

    def info(self) -> dict[str, Any]:
        return self._device.info()

    def measure(self, models: Sequence[Model], protocol: TimingProtocol) -> Iterator[Round]:
        for item in self._device.measure(models, protocol):
            yield item
            if self._stop.is_set():
                raise DeviceError(f"{self.setup.device} was stopped; all of its rounds are stored")

    def operations(
        self,
        path: Path,
        *,
        runs: int = RUNS,
        warmups: int = WARMUPS,
        optimized: Path | None = None,
    ) -> OperationTimes:
        return device_operations(
            self._device, path, runs=runs, warmups=warmups, optimized=optimized
        )


def on_each(
    addresses: Sequence[str], options: DeviceOptions, action: Callable[[Device, str], T]
) -> tuple[Mapping[str, T], Mapping[str, LatkitError]]:
    """Open each device and do something with it, all at once; what came of it, and what failed.

    `action` also gets a label for its progress: empty for a single device. An error of one device
    stops none of the others. Ctrl-C lets each finish its round.
    """
    if len(set(addresses)) < len(addresses):
        twice = next(item for item in addresses if addresses.count(item) > 1)
        raise UsageError(f"--device {twice} is given twice")
    stop = threading.Event()
    opening = threading.Lock()

    def run(address: str) -> T:
        # One after the other: of two adb clients that start the server at once, one fails.
        with opening:
            device = open_device(address, options)
        if len(addresses) == 1:
            return action(device, "")
        return action(_Stoppable(device, stop), f"{address}: ")

    if len(addresses) == 1:
        try:
            return {addresses[0]: run(addresses[0])}, {}
        except LatkitError as error:
            return {}, {addresses[0]: error}
    with ThreadPoolExecutor(len(addresses)) as pool:
        futures: dict[str, Future[T]] = {item: pool.submit(run, item) for item in addresses}
        try:
            wait(futures.values())
        except KeyboardInterrupt:
            stderr.print("stopping: each device finishes the round that it is at")
            raise
        finally:
            stop.set()
    errors = {address: future.exception() for address, future in futures.items()}
    for failed in errors.values():
        if failed is not None and not isinstance(failed, LatkitError):
            raise failed
    return (
        {address: future.result() for address, future in futures.items() if not errors[address]},
        {address: error for address, error in errors.items() if isinstance(error, LatkitError)},
    )
