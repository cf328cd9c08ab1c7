"""Finds devices by address: `cpu`, or a kind of the entry-point group `latkit.devices`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib.metadata import EntryPoint, entry_points

from .cpu import CpuKind
from .device import Device
from .errors import DeviceError
from .kind import DeviceKind, DeviceListing
from .options import DeviceOptions

ENTRY_POINTS = "latkit.devices"
DEFAULTS = DeviceOptions()


def open_device(address: str, options: DeviceOptions = DEFAULTS) -> Device:
    """The device at `address`, with a runtime and its options.

    Raises `DeviceError` where there is no such device, or the runtime is not installed.
    """
    kind, place = _kind_of(address)
    return kind.open(place, options)


def device_name(address: str, options: DeviceOptions = DEFAULTS) -> str:
    """What `Setup.device` says for the device at `address`; errors as `open_device`."""
    kind, place = _kind_of(address)
    return kind.name(place, options)


def list_devices(options: DeviceOptions = DEFAULTS) -> list[DeviceListing]:
    """All devices that are there now, and those that could be."""
    return [listing for make in _kinds().values() for listing in make().found(options)]


def _kind_of(address: str) -> tuple[DeviceKind, str]:
    name, _, place = address.partition(":")
    kinds = _kinds()
    if name not in kinds:
        known = ", ".join(sorted(kinds))
        raise DeviceError(f"there is no device {address!r}; the kinds of device are: {known}")
    return kinds[name](), place


def _kinds() -> dict[str, Callable[[], DeviceKind]]:
    """Our own kinds of device, and those that installed packages add; loaded when called."""
    added = {entry.name: partial(_load, entry) for entry in entry_points(group=ENTRY_POINTS)}
    return {"cpu": CpuKind, "adb": _phones, "cuda": _gpus, **added}


def _phones() -> DeviceKind:
    from .phone.kind import AdbKind

    return AdbKind()


def _gpus() -> DeviceKind:
    from .cuda.device import CudaKind

    return CudaKind()


def _load(entry: EntryPoint) -> DeviceKind:
    try:
        kind: DeviceKind = entry.load()()
    except (ImportError, AttributeError) as error:
        raise DeviceError(
            f"the devices {entry.name!r}, from {entry.value}, can't be loaded: {error}. "
            "Repair or uninstall that package."
        ) from error
    return kind
