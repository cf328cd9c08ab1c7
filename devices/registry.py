"""Finds devices by address: `cpu`, or a kind of the entry-point group `latkit.devices`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.metadata import EntryPoint, entry_points
from typing import Protocol

from .cpu import CpuDevice
from .device import Device, Precision
from .errors import DeviceError, LatkitError
from .host import allowed_cores, can_pin, hardware_name
from .runtimes import RUNTIMES

ENTRY_POINTS = "latkit.devices"


@dataclass(frozen=True, slots=True)
class DeviceListing:
    """A device that is there: its address, and what it can do.

    `runtimes` maps the installed ones to their versions, `missing` the others to the reason.
    """

    address: str
    name: str
    runtimes: dict[str, str]
    missing: dict[str, str]
    cores: tuple[int, ...]
    can_pin: bool
    precisions: tuple[Precision, ...]


class DeviceKind(Protocol):
    """One kind of device: what the entry points of the group `latkit.devices` name.

    The entry point's name is the part of an address before the first colon; `place` is the rest.
    """

    def open(
        self,
        place: str,
        *,
        runtime: str,
        threads: int,
        cores: tuple[int, ...] | None,
        precision: Precision,
    ) -> Device:
        """The device at `place`; `DeviceError` where there is none."""

    def found(self) -> list[DeviceListing]:
        """The devices of this kind that are there now."""


class CpuKind:
    """This host's processor, at the address `cpu`."""

    def open(
        self,
        place: str,
        *,
        runtime: str,
        threads: int,
        cores: tuple[int, ...] | None,
        precision: Precision,
    ) -> Device:
        """The device; `place` must be empty."""
        if place:
            raise DeviceError(f"there is no device cpu:{place}; this host's processor is: cpu")
        return CpuDevice(runtime=runtime, threads=threads, cores=cores, precision=precision)

    def found(self) -> list[DeviceListing]:
        """This host's processor, with the runtimes installed."""
        versions: dict[str, str] = {}
        missing: dict[str, str] = {}
        for name, runtime in RUNTIMES.items():
            try:
                versions[name] = runtime.version()
            except LatkitError as error:
                missing[name] = str(error)
        cores = allowed_cores()
        listing = DeviceListing(
            "cpu", hardware_name(), versions, missing, cores, can_pin(), ("float32",)
        )
        return [listing]


def open_device(
    address: str,
    *,
    runtime: str = "onnxruntime",
    threads: int = 1,
    cores: tuple[int, ...] | None = None,
    precision: Precision = "float32",
) -> Device:
    """The device at `address`, with a runtime and its options.

    Raises `DeviceError` where there is no such device, or the runtime is not installed.
    """
    name, _, place = address.partition(":")
    kinds = _kinds()
    if name not in kinds:
        known = ", ".join(sorted(kinds))
        raise DeviceError(f"there is no device {address!r}; the kinds of device are: {known}")
    return kinds[name]().open(
        place, runtime=runtime, threads=threads, cores=cores, precision=precision
    )


def list_devices() -> list[DeviceListing]:
    """All devices that are there now."""
    return [listing for make in _kinds().values() for listing in make().found()]


def _kinds() -> dict[str, Callable[[], DeviceKind]]:
    """Our own kinds of device, and those that installed packages add; loaded when called."""
    added = {entry.name: partial(_load, entry) for entry in entry_points(group=ENTRY_POINTS)}
    return {**added, "cpu": CpuKind}


def _load(entry: EntryPoint) -> DeviceKind:
    try:
        kind: DeviceKind = entry.load()()
    except (ImportError, AttributeError) as error:
        raise DeviceError(
            f"the devices {entry.name!r}, from {entry.value}, can't be loaded: {error}. "
            "Repair or uninstall that package."
        ) from error
    return kind
