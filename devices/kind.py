"""A kind of device: what opens the devices of an address, and lists those that are there."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from .device import Device, Precision
from .options import DeviceOptions


@dataclass(frozen=True, slots=True)
class DeviceListing:
    """A device that is there: its address, and what it can do.

    `runtimes` maps the installed ones to their versions, `missing` the others to the reason;
    `precisions` are those that one of the runtimes has, and what another lacks is in `missing`.
    `problem` says why the device can't be used now, and what to do about it. What isn't known is
    empty or `None`.
    """

    address: str
    kind: str
    name: str
    soc: str | None = None
    architecture: str | None = None
    runtimes: dict[str, str] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    accelerators: tuple[str, ...] = ("cpu",)
    cores: tuple[int, ...] = ()
    can_pin: bool = False
    precisions: tuple[Precision, ...] = ("float32",)
    temperature: str | None = None
    problem: str | None = None


class DeviceKind(Protocol):
    """One kind of device: what the entry points of the group `latkit.devices` name.

    The entry point's name is the part of an address before the first colon; `place` is the rest.
    """

    def open(self, place: str, options: DeviceOptions) -> Device:
        """The device at `place`; `DeviceError` where there is none."""

    def name(self, place: str, options: DeviceOptions) -> str:
        """What `Setup.device` says for it, found without a runtime."""

    def found(self, options: DeviceOptions) -> list[DeviceListing]:
        """The devices of this kind that are there now."""
