from __future__ import annotations

import json
import math
import shutil
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from latkit.devices import DeviceError
from latkit.devices.adb import Adb, ShellResult
from latkit.devices.phone.state import POLL_S, read_state, thermal_rise, wait_cool

SAMSUNG_ANDROID_12 = {
    "thermal": """IsStatusOverride: false
ThermalEventListeners:
\tcallbacks: 1
\tkilled: false
\tbroadcasts count: -1
ThermalStatusListeners:
\tcallbacks: 4
\tkilled: false
\tbroadcasts count: -1
Thermal Status: 1
Cached temperatures:
\tTemperature{mValue=48.2, mType=0, mName=AP, mStatus=0}
\tTemperature{mValue=36.1, mType=2, mName=BAT, mStatus=0}
HAL Ready: true
HAL connection:
\tThermalHAL 2.0 connected: yes
Current temperatures from HAL:
\tTemperature{mValue=39.4, mType=0, mName=AP, mStatus=1}
\tTemperature{mValue=31.0, mType=2, mName=BAT, mStatus=0}
\tTemperature{mValue=33.3, mType=3, mName=SKIN, mStatus=0}
\tTemperature{mValue=-99.9, mType=5, mName=PA, mStatus=0}
Current cooling devices from HAL:
\tCoolingDevice{mValue=0, mType=2, mName=CPU}
Temperature static thresholds from HAL:
\tTemperatureThreshold{mType=3, mName=SKIN, mHotThrottlingThresholds=[NaN, 41.0, 43.0]}""",
    "battery": """Current Battery Service state:
  AC powered: false
  USB powered: true
  Wireless powered: false
  Max charging current: 500000
  status: 2
  health: 2
  present: true
  level: 84
  scale: 100
  voltage: 4156
  temperature: 326
  technology: Li-ion
  mSecPlugTypeSummary: 2
  LED Charging: true
  LLB CAL:
[EventLogBuffer]
08-11 18:34:14.721  Sending ACTION_BATTERY_CHANGED: level:12, temperature:145
  level: 11""",
    "power": "  mWakefulness=Awake\n  Battery Saver is currently: OFF",
    "low_power": "0",
    "zones": "",
}

PIXEL_ANDROID_14 = {
    "thermal": """IsStatusOverride: false
ThermalEventListeners:
\tcallbacks: 2
\tkilled: false
\tbroadcasts count: -1
Thermal Status: 0
Cached temperatures:
\tTemperature{mValue=100.0, mType=8, mName=soc, mStatus=0}
HAL Ready: true
HAL connection:
\tThermalHAL AIDL 1  connected: yes
Current temperatures from HAL:
\tTemperature{mValue=4321.0, mType=6, mName=vbat, mStatus=0}
\tTemperature{mValue=81.0, mType=8, mName=battery, mStatus=0}
\tTemperature{mValue=28.6, mType=2, mName=battery, mStatus=0}
\tTemperature{mValue=30.251, mType=3, mName=VIRTUAL-SKIN, mStatus=0}
\tTemperature{mValue=45.0, mType=0, mName=BIG, mStatus=0}
\tTemperature{mValue=44.0, mType=0, mName=BIG, mStatus=0}
\tTemperature{mValue=NaN, mType=1, mName=G3D, mStatus=0}
Current cooling devices from HAL:
Temperature headroom thresholds:
[NaN, NaN, NaN, 1.0, NaN, NaN, NaN]""",
    "battery": """Current Battery Service state:
  AC powered: false
  USB powered: false
  Wireless powered: false
  Dock powered: true
  Max charging current: 0
  present: true
  level: 1
  scale: 3
  temperature: 291""",
    "power": "  mWakefulness=Dozing\nmWakefulness=1",
    "low_power": "null",
}

ANDROID_9 = {
    "thermal": "Can't find service: thermalservice",
    "battery": "Current Battery Service state:\n  AC powered: true\n  USB powered: false\n"
    "  Wireless powered: false\n  level: 100\n  scale: 100\n  temperature: 274",
    "power": "  mWakefulness=Asleep\nDisplay Power: state=OFF",
    "low_power": "1",
    "zones": "41000 tsens_tz_sensor1\n36 battery\n0 unused\n-273000 bcm\n41000 tsens_tz_sensor1\n"
    "garbage here",
}

EMULATOR = {
    "thermal": "IsStatusOverride: false\nThermal Status: 0\nCached temperatures:\nHAL Ready: false",
    "battery": "Current Battery Service state:\n  AC powered: false\n  USB powered: false\n"
    "  Wireless powered: false\n  present: false\n  level: 0\n  scale: 100\n  temperature: 0",
    "power": "Display Power: state=ON\n  mWakefulness=Awake",
    "low_power": "",
}


class Answering:
    """A link whose phone gives these sections to one script after the other, the last for ever."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.calls = 0

    def script(self, script, *words, timeout_s=None):
        self.calls += 1
        sections = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        marked = "".join(f"\n{words[0]} {name}\n{text}\n" for name, text in sections.items())
        return ShellResult(0, marked, "")


def has_a_reason_for_every_none(found):
    return all(found.get(f"{name}_reason") for name, value in found.items() if value is None)


def heat(status):
    return {"thermal": f"Thermal Status: {status}\nHAL Ready: true"}


def test_state_of_a_samsung_with_android_12():
    link = Answering(SAMSUNG_ANDROID_12)
    state = read_state(link)
    assert link.calls == 1
    assert state["thermal_status"] == 1
    assert state["temperatures_c"] == {"AP": 39.4, "BAT": 31.0, "SKIN": 33.3}
    assert state["battery_level"] == 84
    assert state["battery_temperature_c"] == 32.6
    assert state["charging"] == "usb"
    assert state["screen_on"] is True
    assert state["battery_saver"] is False
    assert state["fixed_performance"] is None and state["fixed_performance_reason"]


def test_state_of_a_pixel_with_android_14():
    state = read_state(Answering(PIXEL_ANDROID_14))
    assert state["thermal_status"] == 0
    assert state["temperatures_c"] == {
        "battery": 28.6,
        "VIRTUAL-SKIN": 30.251,
        "BIG": 45.0,
        "BIG 2": 44.0,
    }
    assert state["battery_level"] == 33
    assert state["charging"] == "dock"
    assert state["screen_on"] is False
    assert state["battery_saver"] is False


def test_state_before_android_10_has_the_kernels_temperatures_and_no_status():
    state = read_state(Answering(ANDROID_9))
    assert state["thermal_status"] is None
    assert "Can't find service" in state["thermal_status_reason"]
    assert state["temperatures_c"] == {
        "tsens_tz_sensor1": 41.0,
        "battery": 36.0,
        "tsens_tz_sensor1 2": 41.0,
    }
    assert state["charging"] == "ac"
    assert state["screen_on"] is False
    assert state["battery_saver"] is True


def test_what_an_emulator_can_not_know_is_none_and_not_zero():
    state = read_state(Answering(EMULATOR))
    assert state["thermal_status"] is None and "not ready" in state["thermal_status_reason"]
    assert state["temperatures_c"] is None
    assert state["battery_level"] is None and "no battery" in state["battery_level_reason"]
    assert state["battery_temperature_c"] is None
    assert state["charging"] == "none"
    assert state["screen_on"] is True
    assert state["battery_saver"] is None
    assert has_a_reason_for_every_none(state)


def test_cached_temperatures_stand_in_where_the_hal_gives_none():
    dump = SAMSUNG_ANDROID_12["thermal"].partition("HAL Ready")[0]
    state = read_state(Answering({"thermal": dump}))
    assert state["temperatures_c"] == {"AP": 48.2, "BAT": 36.1}


@pytest.mark.parametrize(
    ("section", "old", "new", "name", "reason"),
    [
        ("thermal", "IsStatusOverride: false", "IsStatusOverride: true", "thermal_status", "reset"),
        ("thermal", "Thermal Status: 1", "Thermal Status: 7", "thermal_status", "'7'"),
        ("thermal", "Thermal Status: 1", "Thermal Status: hot", "thermal_status", "'hot'"),
        ("battery", "state:\n", "state:\n  (UPDATES STOPPED -- use)\n", "battery_level", "reset"),
        ("battery", "level: 84", "level: 184", "battery_level", "dumpsys battery"),
        ("battery", "  level: 84\n", "  level: -1\n", "battery_level", "dumpsys battery"),
        ("battery", "scale: 100", "scale: 0", "battery_level", "dumpsys battery"),
        ("battery", "temperature: 326", "temperature: 1e9", "battery_temperature_c", "dumpsys"),
        ("battery", "USB powered: true", "USB powered: perhaps", "charging", "dumpsys battery"),
        ("power", "Awake", "Confused", "screen_on", "dumpsys power"),
    ],
)
def test_what_makes_no_sense_is_none_with_its_reason(section, old, new, name, reason):
    text = SAMSUNG_ANDROID_12[section]
    assert old in text
    state = read_state(Answering({**SAMSUNG_ANDROID_12, section: text.replace(old, new)}))
    assert state[name] is None
    assert reason in state[f"{name}_reason"]


@settings(deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(sorted(SAMSUNG_ANDROID_12)),
        st.text(max_size=300)
        | st.lists(
            st.sampled_from(
                "".join(ANDROID_9.values()).splitlines()
                + "\n".join(SAMSUNG_ANDROID_12.values()).splitlines()
            )
        ).map("\n".join),
        min_size=1,
    )
)
def test_state_from_garbage_is_plain_and_explained(sections):
    state = read_state(Answering(sections))
    json.dumps(state, allow_nan=False)
    assert has_a_reason_for_every_none(state)
    assert state["thermal_status"] in (None, *range(7))
    assert state["battery_level"] is None or 0 <= state["battery_level"] <= 100
    assert all(math.isfinite(value) for value in (state["temperatures_c"] or {}).values())


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=300))
def test_a_script_that_did_not_run_is_a_device_error(text):
    class Broken:
        def script(self, script, *words, timeout_s=None):
            return ShellResult(1, text, "")

    with pytest.raises(DeviceError):
        read_state(Broken())


def test_text_of_the_phone_can_not_begin_a_section():
    forged = "Thermal Status: 0\n0123456789abcdef thermal\nThermal Status: 6"
    assert read_state(Answering({"thermal": forged}))["thermal_status"] == 0


@pytest.mark.parametrize(
    ("before", "after", "reason"),
    [
        (0, 0, None),
        (1, 1, None),
        (1, 0, None),
        (0, 1, "rose from 0 (none) to 1 (light)"),
        (0, 3, "rose from 0 (none) to 3 (severe)"),
        (2, 2, "is 2 (moderate)"),
        (4, 3, "is 3 (severe)"),
        (None, 2, "is 2 (moderate)"),
        (None, 1, None),
        (3, None, None),
        (None, None, None),
    ],
)
def test_thermal_rise(before, after, reason):
    said = thermal_rise({"thermal_status": before}, {"thermal_status": after})
    assert said is None if reason is None else reason in said


def test_waiting_ends_when_the_phone_has_cooled_down():
    pauses = []
    link = Answering(heat(3), heat(2), heat(0))
    waited = wait_cool(link, 0, 60, sleep=pauses.append)
    assert waited["cool"] is True
    assert waited["state"]["thermal_status"] == 0
    assert pauses == [POLL_S, POLL_S]
    assert waited["waited_s"] >= 2 * POLL_S


def test_waiting_is_bounded_and_tells_that_it_did_not_help():
    pauses = []
    waited = wait_cool(Answering(heat(3)), 1, 12, sleep=pauses.append)
    assert waited["cool"] is False
    assert waited["state"]["thermal_status"] == 3
    assert len(pauses) == 3
    assert sum(pauses) <= 12


def test_a_status_that_can_not_be_read_is_not_waited_for():
    waited = wait_cool(Answering(ANDROID_9), 1, 60, sleep=pytest.fail)
    assert waited["cool"] is None


@pytest.mark.parametrize("shell", [["dash"], ["mksh"], ["busybox", "sh"]], ids="-".join)
@pytest.mark.parametrize("has_service", [True, False])
def test_the_script_runs_in_a_shell_of_this_host(shell, has_service, tmp_path):
    if shutil.which(shell[0]) is None:
        pytest.skip(f"needs the Debian package {shell[0]}")
    sections = SAMSUNG_ANDROID_12 if has_service else ANDROID_9
    for service in ("thermal", "battery", "power"):
        (tmp_path / service).write_text(sections[service] + "\n")
    (tmp_path / "thermalservice").write_text(sections["thermal"] + "\n")
    dumpsys = tmp_path / "dumpsys"
    dumpsys.write_text(f'#!/bin/sh\ncat {tmp_path}/"$1"\n')
    put = tmp_path / "settings"
    put.write_text(
        f"#!/bin/sh\n[ \"$*\" = 'get global low_power' ] && echo {sections['low_power']}\n"
    )
    for script in (dumpsys, put):
        script.chmod(0o755)

    class Host:
        def script(self, script, *words, timeout_s=None):
            command = [*shell, "-c", script, "latkit", *words]
            environment = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
            done = subprocess.run(command, capture_output=True, text=True, env=environment)
            assert done.stderr == ""
            return ShellResult(done.returncode, done.stdout, done.stderr)

    state = read_state(Host())
    expected = read_state(Answering(sections))
    if not has_service:  # The host's own thermal zones, if it has any.
        for name in ("temperatures_c", "temperatures_c_reason"):
            state.pop(name, None)
            expected.pop(name, None)
    assert state == expected


def test_state_of_a_phone_on_a_link(phone):
    phone.set_temperature("skin", 39.5)
    phone.set_thermal_status(2)
    phone.set_state("charging", "none")
    phone.set_state("wakefulness", "Asleep")
    phone.set_state("settings/global/low_power", 1)
    with Adb().connect(phone.serial) as link:
        phone.commands.clear()
        state = read_state(link)
    assert len(phone.commands) == 1
    assert state["thermal_status"] == 2
    assert state["temperatures_c"]["skin"] == 39.5
    assert (state["battery_level"], state["battery_temperature_c"]) == (87, 28.5)
    assert (state["charging"], state["screen_on"], state["battery_saver"]) == ("none", False, True)


def test_a_phone_that_heats_up_and_cools_down(phone):
    phone.set_thermal_script([0, 3, 2, (1, {"skin": 36.0})])
    with Adb().connect(phone.serial) as link:
        before, after = read_state(link), read_state(link)
        assert "from 0 (none) to 3 (severe)" in thermal_rise(before, after)
        waited = wait_cool(link, 1, 60, sleep=lambda seconds: None)
    assert waited["cool"] is True
    assert waited["state"]["temperatures_c"]["skin"] == 36.0


def test_a_phone_with_android_9_tells_its_kernels_temperatures(make_phone):
    phone = make_phone(sdk=28)
    with Adb().connect(phone.serial) as link:
        state = read_state(link)
    assert state["thermal_status"] is None
    assert state["temperatures_c"]["skin"] == 31.5
