"""What an emulated phone says of itself."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from .sandbox import Core

ANDROID_VERSIONS = {28: "9", 29: "10", 30: "11", 31: "12", 33: "13", 34: "14", 35: "15", 36: "16"}


def host_cores() -> tuple[Core, ...]:
    """As many cores as this host has: the first half slow, the rest fast."""
    count = os.cpu_count() or 1
    return (Core(1_800_000, 400),) * (count // 2) + (Core(2_800_000, 1024),) * (count - count // 2)


@dataclass(frozen=True)
class PhoneSpec:
    """What a phone says of itself. `properties` come on top; a None takes one away.

    `fixed_performance` is whether its power service can hold the clocks (Android 11 on).
    """

    model: str = "Pixel Test"
    manufacturer: str = "Latkit"
    soc: tuple[str, str] = ("Sandbox", "SB1000")
    serial_number: str = "SANDBOX0001"
    build: str = "latkit/pixeltest/pixeltest:14/UP1A.231005.007/1:user/release-keys"
    abi: str = "x86_64"
    sdk: int = 34
    cores: tuple[Core, ...] = field(default_factory=host_cores)
    fixed_performance: bool = True
    properties: Mapping[str, str | None] = field(default_factory=dict)

    def all_properties(self) -> dict[str, str]:
        """Everything that getprop tells."""
        name = "".join(letter for letter in self.model.lower() if letter.isalnum())
        told: dict[str, str | None] = {
            "ro.product.model": self.model,
            "ro.product.manufacturer": self.manufacturer,
            "ro.product.brand": self.manufacturer.lower(),
            "ro.product.name": name,
            "ro.product.device": name,
            "ro.serialno": self.serial_number,
            "ro.soc.manufacturer": self.soc[0],
            "ro.soc.model": self.soc[1],
            "ro.board.platform": self.soc[1].lower(),
            "ro.hardware": self.soc[1].lower(),
            "ro.build.version.release": ANDROID_VERSIONS.get(self.sdk, "14"),
            "ro.build.version.sdk": str(self.sdk),
            "ro.build.fingerprint": self.build,
            "ro.build.type": "user",
            "ro.product.cpu.abi": self.abi,
            "ro.product.cpu.abilist": self.abi,
            "ro.product.cpu.abilist64": self.abi,
            "ro.product.cpu.abilist32": "",
            "ro.boot.qemu": "1",
            "sys.boot_completed": "1",
            **self.properties,
        }
        return {name: value for name, value in told.items() if value is not None}
