"""What an NVIDIA GPU is and does, as `nvidia-smi` tells it: facts, clocks, power, throttling.

The program comes with the driver. Fields have come, gone and been renamed between drivers; one
that is not known there is left out and read as `None`, with the reason beside it.
"""

from __future__ import annotations

import csv
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import DeviceError

TIMEOUT_S = 30.0
"""How long `nvidia-smi` may take: without persistence mode it wakes the driver first."""

UNKNOWN_FIELD = re.compile(r'Field "([^"]+)" is not a valid field to query')
CUDA_VERSION = re.compile(r"CUDA (?:UMD )?Version\s*:\s*([\d.]+)")

REASONS = {
    0x1: "idle",
    0x2: "application clocks",
    0x4: "power cap",
    0x8: "hardware slowdown",
    0x10: "sync boost",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "hardware power brake",
    0x100: "display clocks",
}
"""Bits of the clocks' event reasons, as NVIDIA's management library defines them."""

SLOWDOWNS = 0x8 | 0x20 | 0x40 | 0x80
"""Reasons that a measurement must not have. A power cap is how the GPU is meant to run."""


def _number(text: str) -> float:
    value = float(text.split()[0])
    return int(value) if value.is_integer() else value


def _mask(text: str) -> int:
    return int(text, 16)


Field = tuple[tuple[str, ...], Callable[[str], Any]]
"""The names that a field has had, the newest first, and how its text is read."""

IDENTITY: dict[str, Field] = {
    "index": (("index",), int),
    "uuid": (("uuid",), str),
    "name": (("name",), str),
    "mig_mode": (("mig.mode.current",), str),
}
FACTS: dict[str, Field] = {
    "driver": (("driver_version",), str),
    "vbios": (("vbios_version",), str),
    "compute_capability": (("compute_cap",), str),
    "memory_mib": (("memory.total",), _number),
    "bus": (("pci.bus_id",), str),
    "persistence_mode": (("persistence_mode",), str),
    "compute_mode": (("compute_mode",), str),
    "error_correction": (("ecc.mode.current",), str),
    "power_limit_w": (("power.limit",), _number),
    "power_limit_default_w": (("power.default_limit",), _number),
    "clock_sm_limit_mhz": (("clocks.max.sm",), _number),
    "clock_memory_limit_mhz": (("clocks.max.memory",), _number),
    "clock_application_mhz": (("clocks.applications.graphics",), _number),
}
STATE: dict[str, Field] = {
    "clock_sm_mhz": (("clocks.current.sm",), _number),
    "clock_memory_mhz": (("clocks.current.memory",), _number),
    "power_w": (("power.draw",), _number),
    "temperature_c": (("temperature.gpu",), _number),
    "temperature_memory_c": (("temperature.memory",), _number),
    "performance_state": (("pstate",), str),
    "utilisation_percent": (("utilization.gpu",), _number),
    "memory_used_mib": (("memory.used",), _number),
    "reasons": (("clocks_event_reasons.active", "clocks_throttle_reasons.active"), _mask),
    **{
        f"{name}_us": ((f"clocks_event_reasons_counters.{name}",), _number)
        for name in (
            "sw_power_cap",
            "sw_thermal_slowdown",
            "hw_thermal_slowdown",
            "hw_power_brake_slowdown",
        )
    },
}


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU of this host. `index` is nvidia-smi's, in the order of the bus."""

    index: int
    uuid: str
    name: str
    mig: bool
    """Whether it is split into instances (MIG)."""


class NvidiaSmi:
    """Asks `nvidia-smi`; `DeviceError` where there is no driver, or it gives no answer in time."""

    def __init__(self, timeout_s: float = TIMEOUT_S) -> None:
        path = shutil.which("nvidia-smi")
        if path is None:
            raise DeviceError(
                "there is no NVIDIA driver here: nvidia-smi is not on the PATH. Install the "
                "driver, or choose another device: latkit devices"
            )
        self._path = path
        self._timeout_s = timeout_s
        self._unknown: set[str] = set()

    def gpus(self) -> list[Gpu]:
        """The GPUs that this process may use, by CUDA_VISIBLE_DEVICES where that is set."""
        found = []
        for row in self._query(IDENTITY, None):
            if row["index"] is None or not row["uuid"] or not row["name"]:
                raise DeviceError(f"nvidia-smi tells no index, uuid or name of a GPU: {row}")
            mig = row["mig_mode"] == "Enabled"
            found.append(Gpu(row["index"], row["uuid"], " ".join(row["name"].split()), mig))
        return visible(found, os.environ.get("CUDA_VISIBLE_DEVICES"))

    def facts(self, gpu: Gpu) -> dict[str, Any]:
        """What does not change in a run: driver, CUDA, limits of power and clocks."""
        (row,) = self._query(FACTS, gpu)
        cuda = CUDA_VERSION.search(self._run([]))
        row["driver_cuda"] = None if cuda is None else cuda[1]
        if cuda is None:
            row["driver_cuda_reason"] = "nvidia-smi does not tell it"
        return {"index": gpu.index, "uuid": gpu.uuid, "name": gpu.name, **row}

    def state(self, gpu: Gpu) -> dict[str, Any]:
        """What it does now. Counters, in microseconds, run since the driver was loaded."""
        (row,) = self._query(STATE, gpu)
        mask = row["reasons"]
        if mask is not None:
            known = [name for bit, name in REASONS.items() if mask & bit]
            others = mask & ~sum(REASONS)
            row["reasons"] = known + ([f"{others:#x}"] if others else [])
        return row

    def _query(self, fields: Mapping[str, Field], gpu: Gpu | None) -> list[dict[str, Any]]:
        """One row for each GPU asked for; fields that the driver does not know are left out."""
        for _ in range(sum(len(names) for names, _ in fields.values()) + 1):
            asked = {}
            for name, (spellings, _) in fields.items():
                known = [item for item in spellings if item not in self._unknown]
                if known:
                    asked[name] = known[0]
            chosen = [] if gpu is None else [f"--id={gpu.uuid}"]
            query = f"--query-gpu={','.join(asked.values())}"
            try:
                text = self._run([*chosen, query, "--format=csv,noheader,nounits"])
            except _UnknownFieldError as error:
                if error.field not in asked.values():
                    raise DeviceError(f"nvidia-smi does not know what it names: {error}") from None
                self._unknown.add(error.field)
                continue
            rows = [row for row in csv.reader(text.splitlines(), skipinitialspace=True) if row]
            if not rows or any(len(row) != len(asked) for row in rows):
                raise DeviceError(f"nvidia-smi gave no table of {len(asked)} columns: {text!r}")
            return [_read_row(fields, dict(zip(asked, row, strict=True))) for row in rows]
        raise DeviceError("nvidia-smi knows none of the fields it was asked for")

    def _run(self, words: Sequence[str]) -> str:
        try:
            done = subprocess.run(
                [self._path, *words],
                capture_output=True,
                text=True,
                errors="replace",
                timeout=self._timeout_s,
            )
        except subprocess.TimeoutExpired:
            raise DeviceError(
                f"nvidia-smi gave no answer in {self._timeout_s:.0f} s; the driver hangs. Look at "
                "the kernel's log (dmesg), and restart the host if a GPU fell off the bus"
            ) from None
        except OSError as error:
            raise DeviceError(f"{self._path} can't be run: {error.strerror}") from error
        said = (done.stdout + done.stderr).strip()
        if unknown := UNKNOWN_FIELD.search(said):
            raise _UnknownFieldError(unknown[1])
        if done.returncode:
            raise DeviceError(
                f"nvidia-smi failed with exit code {done.returncode}: {said[:500]}. Repair the "
                "NVIDIA driver, or choose another device: latkit devices"
            )
        return done.stdout


class _UnknownFieldError(Exception):
    """nvidia-smi does not know a field."""

    def __init__(self, field: str) -> None:
        super().__init__(field)
        self.field = field


def visible(gpus: Sequence[Gpu], chosen: str | None) -> list[Gpu]:
    """Those that CUDA_VISIBLE_DEVICES leaves, in its order; as CUDA does, up to what is unknown.

    Numbers in it are read as nvidia-smi counts, uuids may be shortened.
    """
    if chosen is None:
        return list(gpus)
    left: list[Gpu] = []
    for word in (word.strip() for word in chosen.split(",")):
        fitting = [
            gpu
            for gpu in gpus
            if word == str(gpu.index) or (word.startswith("GPU-") and gpu.uuid.startswith(word))
        ]
        if len(fitting) != 1 or fitting[0] in left:
            break
        left += fitting
    return left


def slowdown(before: Mapping[str, Any], after: Mapping[str, Any]) -> str | None:
    """Why the GPU slowed itself down between two states; `None` where it did not, or can't tell.

    Counters tell of all that lies between, where the driver has them; else what is active after.
    """
    for name in ("sw_thermal_slowdown", "hw_thermal_slowdown", "hw_power_brake_slowdown"):
        first, last = before.get(f"{name}_us"), after.get(f"{name}_us")
        if first is not None and last is not None and last > first:
            return f"the GPU was under {name} for {(last - first) / 1000:.1f} ms"
    bad = {name for bit, name in REASONS.items() if bit & SLOWDOWNS}
    active = [name for name in after.get("reasons") or () if name in bad]
    return f"the GPU's clocks are lowered: {', '.join(active)}" if active else None


def _read_row(fields: Mapping[str, Field], texts: Mapping[str, str]) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for name, (spellings, read) in fields.items():
        if name not in texts:
            row[name] = None
            row[f"{name}_reason"] = f"this driver's nvidia-smi does not know {spellings[0]}"
            continue
        text = texts[name].strip()
        try:
            if not text or text == "N/A" or text.startswith("["):
                raise ValueError(text.strip("[]") or "empty")
            row[name] = read(text)
        except ValueError as error:
            row[name] = None
            row[f"{name}_reason"] = f"nvidia-smi: {error}"
    return row
