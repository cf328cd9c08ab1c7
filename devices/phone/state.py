"""The state a phone is in: heat, battery, screen; whether heat slowed it, and the wait to cool.

What can't be read is `None`, with the reason under the same name and `_reason`.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from typing import Any

from .shell import Shell, integer, label, put, read_sections

MODERATE = 2
"""The thermal status from which on Android slows a phone down noticeably."""

THERMAL_STATUSES = ("none", "light", "moderate", "severe", "critical", "emergency", "shutdown")

POLL_S = 5.0
"""Between two looks at a phone that cools down; its own sensors take seconds to follow."""

COLDEST_C, HOTTEST_C = -50.0, 200.0
"""Beyond these a sensor tells that it has no value (-99.9, -273, 1000)."""

NOT_TEMPERATURES = {-1, 6, 7, 8}
"""Values of android.os.Temperature's type that are not in °C: unknown unit, and the battery current
limit's voltage, current and percentage."""

MAX_TEMPERATURES = 64

STATE_SCRIPT = r"""
nonce=$1
mark() { echo; echo "$nonce $1"; }
mark thermal
thermal=$(dumpsys thermalservice 2>&1 | head -n 200)
printf '%s\n' "$thermal"
mark battery
dumpsys battery 2>&1 | head -n 100
mark power
dumpsys power 2>&1 | grep -E 'mWakefulness=|Display Power: state=|Battery Saver is currently:' |
  head -n 20
mark low_power
settings get global low_power 2>&1 | head -n 5
mark zones
case $thermal in
  *'Thermal Status:'*) ;;
  *)
    for zone in /sys/class/thermal/thermal_zone[0-9]*; do
      if { read -r value < "$zone/temp" && read -r kind < "$zone/type"; } 2>/dev/null; then
        echo "$value $kind"
      fi
    done ;;
esac
exit 0
"""
"""One process on the phone for everything. Thermal zones only where there is no thermal service:
there are up to a hundred, and some take milliseconds to read."""


def read_state(link: Shell) -> dict[str, Any]:
    """The phone's state now, from one remote call.

    `thermal_status` (0 to 6, see `THERMAL_STATUSES`) and `temperatures_c` by sensor come from
    `dumpsys thermalservice` (Android 10+), whose values "from HAL" are current while those "cached"
    may be hours old; before Android 10 temperatures come from the kernel's thermal zones, and
    there is no status. `battery_level` (percent), `battery_temperature_c` and `charging` ("ac",
    "usb", "wireless", "dock", "none") are of `dumpsys battery`, `screen_on` of `dumpsys power`
    and `battery_saver` of the setting low_power (Android 5+). `fixed_performance` is always
    `None`: Android switches that mode, and has nothing that tells whether it is on.

    Raises `DeviceError` where the phone's shell runs nothing.
    """
    sections = read_sections(link, STATE_SCRIPT)
    state: dict[str, Any] = {}
    _put_thermal(state, sections.get("thermal", ""), sections.get("zones", ""))
    _put_battery(state, sections.get("battery", ""))
    power = sections.get("power", "")
    put(state, "screen_on", _screen_on(power), "dumpsys power tells no display state")
    setting = label(sections.get("low_power", ""))
    saver = _battery_saver(setting, power)
    put(state, "battery_saver", saver, f"`settings get global low_power` said: {setting[:80]!r}")
    put(state, "fixed_performance", None, "Android has no command that tells it")
    return state


def thermal_rise(before: Mapping[str, Any], after: Mapping[str, Any]) -> str | None:
    """Why what ran between the two states may have been slowed down by heat; else `None`.

    That is so where the thermal status is `MODERATE` or above afterwards, or rose. A status that
    can't be read gives no reason.
    """
    was, now = before.get("thermal_status"), after.get("thermal_status")
    if now is None:
        return None
    if was is not None and now > was:
        return f"the thermal status rose from {_named(was)} to {_named(now)}"
    return f"the thermal status is {_named(now)}" if now >= MODERATE else None


def wait_cool(
    link: Shell, limit_status: int, max_wait_s: float, sleep: Callable[[float], object] = time.sleep
) -> dict[str, Any]:
    """Wait until the thermal status is `limit_status` or lower, for `max_wait_s` at most.

    Gives the last `state`, `waited_s`, and `cool`: whether it came that far, `None` where the
    status can't be read (then nothing is waited for).
    """
    began = time.monotonic()
    slept_s = 0.0
    while True:
        state = read_state(link)
        # Both, so that the bound holds when reading is slow and when `sleep` is not the clock's.
        waited_s = max(slept_s, time.monotonic() - began)
        status = state["thermal_status"]
        if status is None or status <= limit_status or waited_s >= max_wait_s:
            cool = None if status is None else status <= limit_status
            return {"state": state, "waited_s": waited_s, "cool": cool}
        pause_s = min(POLL_S, max_wait_s - waited_s)
        sleep(pause_s)
        slept_s += pause_s


def _named(status: int) -> str:
    return f"{status} ({THERMAL_STATUSES[status]})"


def _put_thermal(state: dict[str, Any], dump: str, zones: str) -> None:
    match = re.search(r"^\s*Thermal Status: (\S+)\s*$", dump, re.MULTILINE)
    if match is None:
        said = label(dump)[:80] or "nothing"
        put(state, "thermal_status", None, f"`dumpsys thermalservice` said: {said}")
        put(state, "temperatures_c", _zone_temperatures(zones), "no thermal zone can be read")
        return
    status = integer(match[1], 0, len(THERMAL_STATUSES) - 1)
    reason = f"the thermal status is {label(match[1])[:80]!r}"
    if re.search(r"^\s*HAL Ready: false", dump, re.MULTILINE):
        # The service then says 0 of a phone whose heat it knows nothing of.
        status, reason = None, "the phone's thermal HAL is not ready, its status means nothing"
    elif re.search(r"^\s*IsStatusOverride: true", dump, re.MULTILINE):
        status, reason = None, "overridden; `adb shell cmd thermalservice reset` ends that"
    put(state, "thermal_status", status, reason)
    temperatures = _temperatures(dump, "Current temperatures from HAL:")
    temperatures = temperatures or _temperatures(dump, "Cached temperatures:")
    put(state, "temperatures_c", temperatures, "`dumpsys thermalservice` lists none")


def _temperatures(dump: str, heading: str) -> dict[str, float] | None:
    _, found, listed = dump.partition(heading)
    temperatures: dict[str, float] = {}
    for line in listed.splitlines()[1:] if found else ():
        match = re.fullmatch(
            r"\s*Temperature\{mValue=([^,]{1,32}), mType=([^,]{1,8}), mName=(.*), mStatus=.*\}\s*",
            line,
        )
        if match is None:
            break
        kind, value = integer(match[2], -1, 99), _degrees(match[1])
        if value is not None and kind is not None and kind not in NOT_TEMPERATURES:
            _add_temperature(temperatures, match[3], value)
    return temperatures or None


def _zone_temperatures(zones: str) -> dict[str, float] | None:
    """Of the kernel's thermal zones: thousandths of a degree, on some old phones degrees."""
    temperatures: dict[str, float] = {}
    for line in zones.splitlines():
        value, _, name = line.partition(" ")
        number = integer(value, -50_000, 200_000)
        if number and (abs(number) >= 1000 or COLDEST_C <= number <= HOTTEST_C):
            degrees = number / 1000 if abs(number) >= 1000 else float(number)
            _add_temperature(temperatures, name, degrees)
    return temperatures or None


def _add_temperature(temperatures: dict[str, float], name: str, value_c: float) -> None:
    """File it under the sensor's name; with a number where several have one name."""
    name = label(name)[:40] or "unnamed"
    names = [name, *(f"{name} {number}" for number in range(2, MAX_TEMPERATURES))]
    free = next((name for name in names if name not in temperatures), None)
    if free is not None and len(temperatures) < MAX_TEMPERATURES:
        temperatures[free] = value_c


def _degrees(text: str) -> float | None:
    if re.fullmatch(r"-?[0-9]{1,4}(\.[0-9]{1,10})?", text, re.ASCII) is None:
        return None
    value = float(text)
    return value if COLDEST_C < value < HOTTEST_C else None


def _put_battery(state: dict[str, Any], dump: str) -> None:
    values: dict[str, str] = {}
    for line in dump.splitlines():
        # Only the service's own lines: Samsung adds a log with older levels in it further down.
        match = re.fullmatch(r"\s*([A-Za-z ]{1,40}): (\S{1,40})\s*", line)
        if match:
            values.setdefault(match[1].strip(), match[2])
    said = label(dump)[:80] or "nothing"
    reason = f"`dumpsys battery` said: {said}"
    if "UPDATES STOPPED" in dump:
        values, reason = {}, "simulated; `adb shell dumpsys battery reset` ends that"
    elif values.get("present") == "false":
        reason = "the phone has no battery"
        values = {name: value for name, value in values.items() if name.endswith(" powered")}
    scale = integer(values.get("scale", "100"), 1, 100_000)
    level = integer(values.get("level", ""), 0, scale or 0)
    percent = None if level is None or scale is None else round(100 * level / scale)
    put(state, "battery_level", percent, reason)
    tenths = integer(values.get("temperature", ""), -500, 2000)
    put(state, "battery_temperature_c", None if tenths is None else tenths / 10, reason)
    put(state, "charging", _charging(values), reason)


def _charging(values: Mapping[str, str]) -> str | None:
    """What charges the phone. `Dock powered` is there since Android 13."""
    sources = {
        source: values.get(name)
        for source, name in (
            ("ac", "AC powered"),
            ("usb", "USB powered"),
            ("wireless", "Wireless powered"),
            ("dock", "Dock powered"),
        )
    }
    for source, powered in sources.items():
        if powered == "true":
            return source
    told = (sources["ac"], sources["usb"], sources["wireless"])
    return "none" if told == ("false", "false", "false") else None


def _screen_on(power: str) -> bool | None:
    """By the display's state (up to Android 9 or so), else by the phone's wakefulness.

    From Android 13 on there are further lines `mWakefulness=1`, of display groups.
    """
    display = re.search(r"^\s*Display Power: state=([A-Z_]+)", power, re.MULTILINE)
    if display:
        return {"ON": True, "VR": True, "OFF": False, "DOZE": False, "DOZE_SUSPEND": False}.get(
            display[1]
        )
    wakefulness = re.search(
        r"^\s*mWakefulness=(Awake|Dreaming|Dozing|Asleep)\b", power, re.MULTILINE
    )
    return wakefulness[1] in ("Awake", "Dreaming") if wakefulness else None


def _battery_saver(setting: str, power: str) -> bool | None:
    """By the setting, which Android writes when the saver is first switched: `null` is off."""
    if setting in ("0", "1"):
        return setting == "1"
    told = re.search(r"^\s*Battery Saver is currently: (ON|OFF)\b", power, re.MULTILINE)
    if told:
        return told[1] == "ON"
    return False if setting == "null" else None
