"""How a device is opened: what the command's options say, the same for every kind of device."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .device import Precision


@dataclass(frozen=True, slots=True)
class DeviceOptions:
    """What a device is opened with. `None` leaves a choice to the kind of device.

    `precision` is what float32 .onnx files are written in before they are timed; `float32` times
    every file as it is. `accelerator` is the one asked for; where a model runs on another one after
    all, that is its failure unless `allow_fallback`. `runtime_library` (an .aar or .so) and
    `benchmark_model` are files that a phone needs and the user has; `adb` is the program to speak
    to phones with.
    """

    runtime: str | None = None
    threads: int = 1
    cores: tuple[int, ...] | None = None
    precision: Precision = "float32"
    accelerator: str | None = None
    allow_fallback: bool = False
    batch_size: int = 1
    runtime_library: Path | None = None
    benchmark_model: Path | None = None
    adb: Path | None = None
