"""The kind of device `adb`: opens phones, and lists those that adb knows, ready or not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..adb import Adb, AdbDevice
from ..device import PRECISIONS, Device
from ..errors import LatkitError
from ..kind import DeviceListing
from ..options import DeviceOptions
from .device import PhoneDevice, architecture, phone_name
from .facts import read_facts
from .programs import ACCELERATORS
from .state import read_state

NNAPI_SDK = 27
"""Android 8.1 brought NNAPI."""


class AdbKind:
    """Android phones on a cable or in the network, at `adb:SERIAL`, or `adb` for the only one."""

    def open(self, place: str, options: DeviceOptions) -> Device:
        """The phone of this serial."""
        return PhoneDevice(Adb(options.adb), place or None, options)

    def name(self, place: str, options: DeviceOptions) -> str:
        """What `Setup.device` says for the phone."""
        with Adb(options.adb).connect(place or None) as link:
            return phone_name(read_facts(link), link.serial)

    def found(self, options: DeviceOptions) -> list[DeviceListing]:
        """The phones that adb lists, ready or not; without adb, how to get it."""
        try:
            adb = Adb(options.adb)
            phones = adb.devices()
        except LatkitError as error:
            return [DeviceListing("adb", "phone", "", accelerators=(), problem=str(error))]
        return [_listing(adb, phone) for phone in phones]


def _listing(adb: Adb, phone: AdbDevice) -> DeviceListing:
    address = f"adb:{phone.serial}"
    model = phone.properties.get("model", "").replace("_", " ")
    advice = phone.advice
    if advice is not None:
        return DeviceListing(address, "phone", model, accelerators=(), problem=advice)
    try:
        with adb.connect(phone.serial) as link:
            facts, state = read_facts(link), read_state(link)
        problem = None
    except LatkitError as error:
        return DeviceListing(address, "phone", model, accelerators=(), problem=str(error))
    try:
        abi = architecture(facts, phone.serial)
    except LatkitError as error:
        abi, problem = ",".join(facts["abis"] or []), str(error)
    nnapi = (facts["sdk"] or 0) >= NNAPI_SDK
    return DeviceListing(
        address,
        "emulated phone" if facts["emulated"] else "phone",
        " ".join(str(facts[name]) for name in ("manufacturer", "model") if facts[name]),
        soc=facts["soc"],
        architecture=abi,
        missing={"runtime": "give --runtime-library"},
        accelerators=tuple(name for name in ACCELERATORS if name != "nnapi" or nnapi),
        cores=tuple(core["core"] for core in facts["cores"] or ()),
        can_pin=True,
        precisions=PRECISIONS,
        temperature=_temperature(state),
        problem=problem,
    )


def _temperature(state: Mapping[str, Any]) -> str:
    parts = []
    if state["thermal_status"] is not None:
        parts.append(f"thermal status {state['thermal_status']}")
    if state["battery_temperature_c"] is not None:
        parts.append(f"battery {state['battery_temperature_c']:g} °C")
    return ", ".join(parts) or str(state.get("thermal_status_reason", "unknown"))
