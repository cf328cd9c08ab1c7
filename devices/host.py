"""Facts about the host: what its processors are, and what they are doing now.

What can't be read is `None`, with the reason under the same name and `_reason`.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

PROCESSORS = Path("/sys/devices/system/cpu")
COMMAND_TIMEOUT_S = 10


def can_pin() -> bool:
    """Whether a process can be pinned to processors here (Linux)."""
    return hasattr(os, "sched_setaffinity")


def allowed_cores() -> tuple[int, ...]:
    """The processors that this process may run on."""
    if sys.platform == "linux":
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(os.cpu_count() or 1))


def hardware_name() -> str:
    """Model and number of the processors: stable, and different where the hardware is.

    A hypervisor may give several generations one name, so family, model and stepping are part.
    """
    cores = os.cpu_count() or 1
    name = " ".join(processor_name().replace("|", "/").split())
    return f"{name} ({cores} core{'s' if cores > 1 else ''})"


def processor_name() -> str:
    """The processor's own name, with family, model and stepping where there are such."""
    if sys.platform == "darwin":
        try:
            return _sysctl("machdep.cpu.brand_string")
        except OSError:
            return platform.machine()
    try:
        fields = _processor_fields()
    except OSError:
        return platform.machine()
    name = fields.get("model name") or fields.get("Hardware") or platform.machine()
    labels = ("cpu family", "model", "stepping")
    arm_labels = ("CPU implementer", "CPU part", "CPU variant", "CPU revision")
    for group in (labels, arm_labels):
        if all(label in fields for label in group):
            return f"{name} {'-'.join(fields[label] for label in group)}"
    return name


def host_facts() -> dict[str, Any]:
    """Everything about the host that could explain a latency and does not change in a run."""
    readers: dict[str, Callable[[], Any]] = {
        "processor": processor_name,
        "processor_count": os.cpu_count,
        "allowed_cores": lambda: list(allowed_cores()),
        "architecture": platform.machine,
        "instruction_sets": _instruction_sets,
        "caches": _caches,
        "memory_bytes": _memory_bytes,
        "frequency_limits_mhz": lambda: list(_frequency_limits_mhz()),
        "governor": lambda: _read(PROCESSORS / "cpu0/cpufreq/scaling_governor"),
        "hypervisor": _hypervisor,
        "operating_system": _operating_system,
        "kernel": platform.release,
        "kernel_build": platform.version,
        "python": platform.python_version,
        "can_pin": can_pin,
    }
    return _gather(readers)


def activity(cores: tuple[int, ...] | None) -> dict[str, Any]:
    """What the processors `cores` (all for `None`) are doing now, that could disturb a timing.

    `steal_ticks` are the hundredths of a second that a hypervisor gave to others, and
    `throttle_events` how often the processor slowed itself down, both since boot.
    """
    readers: dict[str, Callable[[], Any]] = {
        "load_average": lambda: list(os.getloadavg()),
        "steal_ticks": lambda: _steal_ticks(cores),
        "frequency_mhz": lambda: _frequency_mhz(cores),
        "throttle_events": lambda: _throttle_events(cores),
    }
    return _gather(readers)


def _gather(readers: dict[str, Callable[[], Any]]) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    for name, reader in readers.items():
        try:
            facts[name] = reader()
        except (OSError, ValueError, KeyError, IndexError) as error:
            facts[name] = None
            facts[f"{name}_reason"] = str(error) or type(error).__name__
    return facts


def _read(path: Path) -> str:
    return path.read_text().strip()


def _sysctl(name: str) -> str:
    try:
        answer = subprocess.run(
            ["/usr/sbin/sysctl", "-n", name],
            capture_output=True,
            text=True,
            timeout=COMMAND_TIMEOUT_S,
        )
    except subprocess.TimeoutExpired as error:
        raise OSError(f"sysctl {name} gave no answer in {COMMAND_TIMEOUT_S} s") from error
    if answer.returncode:
        raise OSError(f"sysctl {name}: {answer.stderr.strip()}")
    return answer.stdout.strip()


def _processor_fields() -> dict[str, str]:
    """Names and values of the first processor in /proc/cpuinfo."""
    fields: dict[str, str] = {}
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, colon, value = line.partition(":")
        if colon:
            fields.setdefault(name.strip(), value.strip())
    return fields


def _instruction_sets() -> list[str]:
    """The vector instructions that kernels are chosen by."""
    if sys.platform == "darwin":
        return sorted(_sysctl("machdep.cpu.features").lower().split())
    fields = _processor_fields()
    known = ("sse4", "avx", "fma", "amx", "asimd", "neon", "fp16", "fphp", "sve", "sme", "i8mm")
    flags = (fields.get("flags") or fields["Features"]).split()
    return sorted(
        flag for flag in flags if flag != "smep" and (flag.startswith(known) or "bf16" in flag)
    )


def _caches() -> list[dict[str, Any]]:
    """Level, kind, size and sharing of the first processor's caches."""
    if sys.platform == "darwin":
        names = {1: "hw.l1dcachesize", 2: "hw.l2cachesize", 3: "hw.l3cachesize"}
        found = []
        for level, name in names.items():
            try:
                found.append({"level": level, "size_bytes": int(_sysctl(name))})
            except (OSError, ValueError):
                continue
        return found
    caches = []
    for folder in sorted((PROCESSORS / "cpu0/cache").glob("index[0-9]*")):
        size = _read(folder / "size")
        units = {"K": 1 << 10, "M": 1 << 20}
        caches.append(
            {
                "level": int(_read(folder / "level")),
                "kind": _read(folder / "type").lower(),
                "size_bytes": int(size[:-1]) * units[size[-1]] if size[-1] in units else int(size),
                "shared_by": _read(folder / "shared_cpu_list"),
            }
        )
    if not caches:
        raise OSError(f"{PROCESSORS}/cpu0/cache lists no caches")
    return caches


def _memory_bytes() -> int:
    if sys.platform == "darwin":
        return int(_sysctl("hw.memsize"))
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _operating_system() -> str:
    if sys.platform == "darwin":
        return f"macOS {platform.mac_ver()[0]}"
    return platform.freedesktop_os_release()["PRETTY_NAME"]


def _hypervisor() -> bool:
    """Whether the processors are virtual."""
    if sys.platform == "darwin":
        return _sysctl("kern.hv_vmm_present") == "1"
    fields = _processor_fields()
    if "flags" not in fields:
        raise ValueError("/proc/cpuinfo of this architecture does not tell")
    return "hypervisor" in fields["flags"].split()


def _chosen(cores: tuple[int, ...] | None) -> tuple[int, ...]:
    return allowed_cores() if cores is None else cores


def _frequency_limits_mhz() -> tuple[float, float]:
    folder = PROCESSORS / "cpu0/cpufreq"
    low, high = (float(_read(folder / f"cpuinfo_{bound}_freq")) for bound in ("min", "max"))
    return low / 1000, high / 1000


def _frequency_mhz(cores: tuple[int, ...] | None) -> list[float]:
    """Current frequency of each core; under a hypervisor the nominal one."""
    chosen = _chosen(cores)
    paths = [PROCESSORS / f"cpu{core}/cpufreq/scaling_cur_freq" for core in chosen]
    if all(path.exists() for path in paths):
        return [float(_read(path)) / 1000 for path in paths]
    listed = [
        float(line.partition(":")[2])
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("cpu MHz")
    ]
    return [listed[core] for core in chosen]


def _steal_ticks(cores: tuple[int, ...] | None) -> int:
    names = {f"cpu{core}" for core in _chosen(cores)}
    lines = Path("/proc/stat").read_text().splitlines()
    return sum(int(line.split()[8]) for line in lines if line.split()[0] in names)


def _throttle_events(cores: tuple[int, ...] | None) -> int:
    folders = [PROCESSORS / f"cpu{core}/thermal_throttle" for core in _chosen(cores)]
    return sum(int(_read(folder / "core_throttle_count")) for folder in folders)
