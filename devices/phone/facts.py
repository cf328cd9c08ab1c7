"""What a phone is: model, processor, memory and cores, and the cores to pin to by default."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..errors import UsageError
from .shell import Shell, integer, label, put, read_sections

MAX_CORES = 1024

EMULATOR_HARDWARE = {"goldfish", "ranchu", "cutf_cvm", "vsoc_x86", "vsoc_x86_64", "vbox86"}
"""ro.hardware of Android's emulators, of Cuttlefish (cutf_cvm, vsoc) and of Genymotion (vbox86)."""

INSTRUCTION_SETS = ("asimd", "neon", "vfpv4", "fphp", "sve", "sme", "i8mm", "bf16")
INSTRUCTION_SETS_X86 = ("sse4", "avx", "fma", "amx", "f16c")
"""Beginnings of those features of /proc/cpuinfo that kernels are chosen by."""

NAMES = {
    "serial_number": ("ro.serialno", "ro.boot.serialno"),
    "manufacturer": ("ro.product.manufacturer",),
    "model": ("ro.product.model",),
    "android": ("ro.build.version.release",),
    "build": ("ro.build.fingerprint",),
}
"""Facts that are one property as it is; of several the first that isn't empty."""

PROPERTIES = (
    *(name for names in NAMES.values() for name in names),
    "ro.build.version.sdk",
    "ro.soc.manufacturer",  # Android 12+, as is ro.soc.model
    "ro.soc.model",
    "ro.board.platform",
    "ro.hardware",
    "ro.product.cpu.abilist",
    "ro.product.cpu.abi",
    "ro.kernel.qemu",  # up to Android 11, then ro.boot.qemu
    "ro.boot.qemu",
)

FACTS_SCRIPT = r"""
nonce=$1
shift
mark() { echo; echo "$nonce $1"; }
for name in "$@"; do
  mark "$name"
  getprop "$name" 2>/dev/null
done
mark kernel
uname -r 2>/dev/null
mark kernel_build
uname -v 2>/dev/null
mark memory
grep '^MemTotal:' /proc/meminfo 2>/dev/null
mark allowed
grep '^Cpus_allowed_list:' /proc/self/status 2>/dev/null
mark online
cat /sys/devices/system/cpu/online 2>/dev/null
mark cores
for folder in /sys/devices/system/cpu/cpu[0-9]*; do
  echo "${folder##*/cpu} present 1"
  for file in cpu_capacity cpufreq/cpuinfo_max_freq; do
    if { read -r value < "$folder/$file"; } 2>/dev/null; then
      echo "${folder##*/cpu} $file $value"
    fi
  done
done
mark caches
for folder in /sys/devices/system/cpu/cpu[0-9]*/cache/index[0-9]*; do
  if { read -r level < "$folder/level" && read -r kind < "$folder/type" &&
       read -r size < "$folder/size" && read -r shared < "$folder/shared_cpu_list"; } 2>/dev/null
  then
    echo "$level $kind $size $shared"
  fi
done
mark cpuinfo
grep -E '^(processor|Features|flags|CPU implementer|CPU part)' /proc/cpuinfo 2>/dev/null
mark thermalservice
dumpsys thermalservice 2>&1 | head -n 60
exit 0
"""
"""One process on the phone for everything. mksh (Android 4+), toybox and dash all run it."""


def read_facts(link: Shell) -> dict[str, Any]:
    """Everything about the phone that could explain a latency and does not change in a run.

    One remote call. Of what not every phone tells: ro.soc.model is there from Android 12 on,
    cpu_capacity with kernels from 4.14 or so on, `dumpsys thermalservice` from Android 10 on, and
    few kernels list caches. Raises `DeviceError` where the phone's shell runs nothing.
    """
    sections = read_sections(link, FACTS_SCRIPT, *PROPERTIES)
    properties = {name: label(sections.get(name, "")) for name in PROPERTIES}
    facts: dict[str, Any] = {}
    for name, sources in NAMES.items():
        put(facts, name, _first(properties, sources), f"not in {' or '.join(sources)}")
    sdk = integer(properties["ro.build.version.sdk"], 1, 999)
    put(facts, "sdk", sdk, _malformed("ro.build.version.sdk", properties["ro.build.version.sdk"]))
    put(facts, "soc", _soc(properties), "not in ro.soc.model, ro.board.platform or ro.hardware")
    abis = _first(properties, ("ro.product.cpu.abilist", "ro.product.cpu.abi")) or ""
    put(facts, "abis", [abi for abi in abis.split(",") if abi] or None, "not in ro.product.cpu.abi")
    for name in ("kernel", "kernel_build"):
        put(facts, name, label(sections.get(name, "")) or None, "uname told nothing")
    memory = sections.get("memory", "")
    kilobytes = re.fullmatch(r"MemTotal:\s+([0-9]{1,12}) kB", memory, re.ASCII)
    memory_bytes = int(kilobytes[1]) << 10 if kilobytes else None
    put(facts, "memory_bytes", memory_bytes, _malformed("MemTotal of /proc/meminfo", memory))
    _put_cores(facts, sections)
    put(
        facts,
        "instruction_sets",
        _instruction_sets(sections.get("cpuinfo", "")),
        "/proc/cpuinfo lists no features",
    )
    put(facts, "caches", _caches(sections.get("caches", "")), "/sys lists no caches to the shell")
    facts["emulated_reason"] = _emulated_reason(properties)
    facts["emulated"] = facts["emulated_reason"] is not None
    thermal = sections.get("thermalservice", "")
    facts["thermal_service"] = "Thermal Status:" in thermal
    if not facts["thermal_service"]:
        said = label(thermal) or "nothing"
        facts["thermal_service_reason"] = label(f"`dumpsys thermalservice` said: {said}")
    return facts


def choose_cores(
    facts: Mapping[str, Any], threads: int, cores: Sequence[int] | None
) -> tuple[int, ...] | None:
    """The cores to pin `threads` threads to; `None`: not pinned, for want of knowledge.

    By default the last `threads` cores of that cluster, of those with enough usable cores, whose
    capacity is highest (with 1 prime, 3 middle and 4 little cores: the prime one for 1 thread,
    the little ones for 4). A cluster is the cores of equal `cpu_capacity`, or, where the kernel
    doesn't tell that of each, of equal maximum frequency. Where no cluster has enough, the
    `threads` cores of highest capacity. Usable: allowed to a process of the shell, and online.

    Raises `UsageError` where `cores` are not usable or don't suffice, or `threads` is too large.
    """
    if threads < 1:
        raise UsageError(f"threads is {threads}, and must be at least 1")
    usable = _usable_cores(facts)
    if cores is not None:
        chosen = tuple(sorted(set(cores)))
        known = chosen if usable is None else sorted(usable)
        foreign = [core for core in chosen if core not in known or core < 0]
        if foreign:
            raise UsageError(
                f"cores {foreign} are not among those that the phone allows and has online, "
                f"{list(known)}"
            )
        if len(chosen) < threads:
            raise UsageError(f"{threads} threads need as many cores; given are {list(chosen)}")
        return chosen
    if usable is None:
        return None
    if threads > len(usable):
        raise UsageError(
            f"{threads} threads are asked for, and the phone allows {len(usable)} cores: "
            f"{sorted(usable)}"
        )
    for measure in ("capacity", "max_khz"):
        speeds = {core: described.get(measure) for core, described in usable.items()}
        if None not in speeds.values():
            return _fastest(speeds, threads)
    return None


def _fastest(speeds: Mapping[int, Any], threads: int) -> tuple[int, ...]:
    for speed in sorted(set(speeds.values()), reverse=True):
        cluster = sorted(core for core in speeds if speeds[core] == speed)
        if len(cluster) >= threads:
            return tuple(cluster[-threads:])
    return tuple(sorted(sorted(speeds, key=lambda core: (speeds[core], core))[-threads:]))


def _usable_cores(facts: Mapping[str, Any]) -> dict[int, Mapping[str, Any]] | None:
    """The cores that are allowed and not known to be offline; `None` where the phone told none."""
    described = {core["core"]: core for core in facts.get("cores") or ()}
    allowed = facts.get("allowed_cores")
    if allowed is None:
        return None
    usable = {core: described.get(core, {}) for core in allowed}
    return {core: facts for core, facts in usable.items() if facts.get("online") is not False}


def _first(properties: Mapping[str, str], names: Iterable[str]) -> str | None:
    return next((properties[name] for name in names if properties[name]), None)


def _malformed(source: str, text: str) -> str:
    return f"{source} is {label(text)[:80]!r}" if text else f"{source} can't be read"


def _soc(properties: Mapping[str, str]) -> str | None:
    model = properties["ro.soc.model"]
    if model and model.lower() != "unknown":
        maker = properties["ro.soc.manufacturer"]
        return label(model if maker.lower() == "unknown" else f"{maker} {model}")
    return _first(properties, ("ro.board.platform", "ro.hardware"))


def _emulated_reason(properties: Mapping[str, str]) -> str | None:
    for name in ("ro.kernel.qemu", "ro.boot.qemu"):
        if properties[name] == "1":
            return f"{name} is 1"
    if properties["ro.hardware"] in EMULATOR_HARDWARE:
        return f"ro.hardware is {properties['ro.hardware']}"
    return None


def _core_list(text: str) -> tuple[int, ...] | None:
    """`0-3,6` as numbers: the kernel's way to write sets of processors."""
    if re.fullmatch(r"[0-9]{1,4}(-[0-9]{1,4})?(,[0-9]{1,4}(-[0-9]{1,4})?)*", text) is None:
        return None
    cores: set[int] = set()
    for piece in text.split(","):
        first, dash, last = piece.partition("-")
        cores.update(range(int(first), int(last if dash else first) + 1))
    return tuple(sorted(cores)) if cores and max(cores) < MAX_CORES else None


def _put_cores(facts: dict[str, Any], sections: Mapping[str, str]) -> None:
    read: dict[int, dict[str, str]] = {}
    for line in sections.get("cores", "").splitlines():
        match = re.fullmatch(r"([0-9]{1,4}) (\S+) (.*)", line.strip(), re.ASCII)
        if match and int(match[1]) < MAX_CORES:
            read.setdefault(int(match[1]), {})[match[2]] = match[3]
    online = _core_list(sections.get("online", ""))
    parts = _parts(sections.get("cpuinfo", ""))
    cores = []
    for core in sorted(read):
        described: dict[str, Any] = {"core": core}
        for name, file, high in (
            ("max_khz", "cpufreq/cpuinfo_max_freq", 20_000_000),
            ("capacity", "cpu_capacity", 1 << 16),
        ):
            text = read[core].get(file, "")
            put(described, name, integer(text, 1, high), _malformed(file, text))
        is_online = None if online is None else core in online
        put(described, "online", is_online, "/sys/devices/system/cpu/online can't be read")
        if core in parts:
            described["part"] = parts[core]
        cores.append(described)
    put(facts, "cores", cores or None, "/sys/devices/system/cpu lists no cores to the shell")
    allowed = sections.get("allowed", "").removeprefix("Cpus_allowed_list:").strip()
    reason = _malformed("Cpus_allowed_list of /proc/self/status", allowed)
    listed = _core_list(allowed)
    put(facts, "allowed_cores", None if listed is None else list(listed), reason)


def _cpuinfo(text: str) -> list[dict[str, str]]:
    """Names and values of each processor of /proc/cpuinfo."""
    processors: list[dict[str, str]] = []
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "processor" or not processors:
            processors.append({})
        processors[-1][name.strip()] = value.strip()
    return processors


def _parts(text: str) -> dict[int, str]:
    """Arm's implementer and part number of each core: what tells a Cortex-X1 from a Cortex-A55."""
    parts = {}
    for processor in _cpuinfo(text):
        core = integer(processor.get("processor", ""), 0, MAX_CORES - 1)
        numbers = [processor.get(name, "") for name in ("CPU implementer", "CPU part")]
        if core is not None and all(re.fullmatch(r"0x[0-9a-f]{1,4}", text) for text in numbers):
            parts[core] = "-".join(numbers)
    return parts


def _instruction_sets(text: str) -> list[str] | None:
    """Those that every core has."""
    for field, known in (("Features", INSTRUCTION_SETS), ("flags", INSTRUCTION_SETS_X86)):
        listed = [set(cpu[field].split()) for cpu in _cpuinfo(text) if cpu.get(field)]
        if listed:
            names = set.intersection(*listed)
            return sorted(label(name) for name in names if name.startswith(known))
    return None


def _caches(text: str) -> list[dict[str, Any]] | None:
    units = {"": 1, "K": 1 << 10, "M": 1 << 20}
    caches = []
    for line in dict.fromkeys(text.splitlines()):
        match = re.fullmatch(
            r"([1-9]) (Data|Instruction|Unified) ([0-9]{1,7})([KM]?) ([0-9,-]{1,64})", line
        )
        if match:
            caches.append(
                {
                    "level": int(match[1]),
                    "kind": match[2].lower(),
                    "size_bytes": int(match[3]) * units[match[4]],
                    "shared_by": match[5],
                }
            )
    return caches or None
