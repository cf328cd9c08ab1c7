from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
import threading
import time
import zipfile
from pathlib import Path

import onnx
import pytest
from latkit.devices import DeviceError, Model, TimingProtocol, UsageError
from latkit.devices import rounds as rounds_module
from latkit.devices.adb import Adb
from latkit.devices.adb import link as adb_link_module
from latkit.devices.device import Placement
from latkit.devices.job import read_progress
from latkit.devices.measurement import measurement
from latkit.devices.options import DeviceOptions
from latkit.devices.phone import device as phone_module
from latkit.devices.phone import settings as phone_settings_module
from latkit.devices.phone import state as phone_state_module
from latkit.devices.phone import worker as phone_worker_module
from latkit.devices.phone.device import PhoneDevice
from latkit.devices.registry import device_name, open_device
from latkit.search.cli import app
from phone import libraries
from phone.faults import CutAt, Garbage, StallAt
from phone.models import write_conv, write_endless
from typer.testing import CliRunner

ONE_ROUND = TimingProtocol(rounds=1, processes=1, runs=3, warmups=1, max_repeats=0, max_wait_s=0)
TWO_ROUNDS = dataclasses.replace(ONE_ROUND, rounds=2)
RUNNER = 'exec "$@"'
"""In the command line that starts the runner, and in no other."""


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(autouse=True)
def any_canary(monkeypatch):
    """However busy this host is: no round is repeated, or its canary asked again, for noise."""
    monkeypatch.setattr(rounds_module, "CANARY_DRIFT_LIMIT", 1e9)
    monkeypatch.setattr(rounds_module, "SEVERE_DRIFT", 1e9)
    monkeypatch.setattr(phone_module, "SEVERE_DRIFT", 1e9)


@pytest.fixture
def open_phone(phone):
    """Opens the phone with a runtime's library and options."""

    def opened(library="onnxruntime", **options):
        path = getattr(libraries, f"{library}_library")()
        return open_device(f"adb:{phone.serial}", DeviceOptions(runtime_library=path, **options))

    return opened


@pytest.fixture
def models(tmp_path):
    return [
        Model(f"conv{channels}", write_conv(tmp_path / f"conv{channels}.onnx", channels))
        for channels in (4, 8)
    ]


# -- heat ------------------------------------------------------------------------------------


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(phone_module, "COOLING_S", 0.3)
    monkeypatch.setattr(phone_state_module, "POLL_S", 0.05)


def test_a_round_in_which_the_phone_grew_hot_is_repeated_once_it_is_cool(
    phone, open_phone, models, impatient
):
    device = open_phone()
    # Before and after the first round, twice while it cools, once more, then after the next ones.
    phone.set_thermal_script([0, (2, {"skin": 46.5}), 2, (0, {"skin": 35}), 0, 0, 0])
    protocol = dataclasses.replace(TWO_ROUNDS, max_repeats=3)
    rounds = list(device.measure(models, protocol))
    assert [(item.index, item.attempt) for item in rounds if item.context["throttled"]] == [(0, 0)]
    assert [item.index for item in rounds if item.accepted] == [0, 1]
    hot = rounds[0]
    assert not hot.accepted
    assert hot.context["throttled"] == "the thermal status rose from 0 (none) to 2 (moderate)"
    assert hot.context["state"][1]["temperatures_c"]["skin"] == 46.5
    assert phone.state("thermal_script") == ""


def test_a_phone_that_stays_hot_is_waited_for_within_bounds_and_called_throttled(
    phone, open_phone, models, impatient
):
    device = open_phone()
    phone.set_thermal_script([0, 3])
    protocol = dataclasses.replace(TWO_ROUNDS, max_repeats=2)
    rounds = list(device.measure(models, protocol))
    assert [item.accepted for item in rounds] == [False, False, True, True]
    found = measurement(models[0].key, device.setup, rounds)
    assert found.verdict.kind == "throttled"
    assert "throttled in 2 of 2 rounds: the thermal status is 3 (severe)" in found.verdict.reasons


def test_a_phone_that_is_hot_to_begin_with_must_cool_first(phone, open_phone, models, impatient):
    device = open_phone()
    phone.set_thermal_script([2, 2, 2, 1, 1, 1, 1, 1])
    protocol = dataclasses.replace(TWO_ROUNDS, max_repeats=3)
    rounds = list(device.measure(models, protocol))
    assert [item.context["throttled"] for item in rounds if item.context["throttled"]] == [
        "the thermal status is 2 (moderate)"
    ]
    assert [item.index for item in rounds if item.accepted] == [0, 1]


def test_other_cores_than_asked_for_are_no_measurement(phone, open_phone, models):
    phone.arm(Garbage(RUNNER, pinned_elsewhere, lines=10**6))
    (item,) = open_phone(cores=(0,)).measure(models, ONE_ROUND)
    assert item.context["throttled"] == "it ran on cores [7] instead of [0]"


def pinned_elsewhere(line):
    return line.replace(b'"pinned_to":[0]', b'"pinned_to":[7]')


# -- a runner that dies ----------------------------------------------------------------------


def runners_of(phone):
    """Process ids, on this host, of the runners of this phone and no other."""
    own = (phone.data / "local/tmp").stat().st_ino
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
            if not words[0].startswith(b"/data/local/tmp/latkit/"):
                continue
            if (process / "root/data/local/tmp").stat().st_ino == own:
                found.append(int(process.name))
        except OSError:
            continue  # It ended meanwhile.
    return found


def signal_runner_at(number, signal_number, phone):
    """Signal the runner, from a thread, once it is at this model."""

    def watch():
        end = time.monotonic() + 60
        while time.monotonic() < end:
            at = read_progress(phone.data / "local/tmp/latkit/progress")
            if at is not None and at[1] == number and (running := runners_of(phone)):
                os.kill(running[0], signal_number)
                return
            time.sleep(0.02)

    thread = threading.Thread(target=watch)
    thread.start()
    return thread


def test_a_model_that_crashes_the_runner_is_named_and_the_rest_goes_on(
    phone, open_phone, models, tmp_path
):
    endless = Model("endless", write_endless(tmp_path / "endless.onnx"))
    device = open_phone()
    thread = signal_runner_at(1, signal.SIGSEGV, phone)
    rounds = list(device.measure([models[0], endless, models[1]], TWO_ROUNDS))
    thread.join()
    for item in rounds:
        assert set(item.visits) == {model.key for model in models}
        assert item.failures == {("endless", 0): "load: ended the runner by SIGSEGV"}
        assert item.context["lost_workers"] == 1
    assert not runners_of(phone)


def test_a_runner_that_is_killed_is_a_device_error_that_speaks_of_memory(
    phone, open_phone, models, tmp_path
):
    endless = Model("endless", write_endless(tmp_path / "endless.onnx"))
    device = open_phone()
    thread = signal_runner_at(1, signal.SIGKILL, phone)
    with pytest.raises(DeviceError, match=r"SIGKILL while the model endless .* memory"):
        list(device.measure([models[0], endless], ONE_ROUND))
    thread.join()


def test_a_phone_that_answers_no_more_ends_the_call_within_bounds(phone, models, monkeypatch):
    monkeypatch.setattr(phone_worker_module, "PATIENCE_S", 0.5)
    monkeypatch.setattr(phone_settings_module, "RESTORE_TIMEOUT_S", 1)
    monkeypatch.setattr(adb_link_module, "END_REMOTE_TIMEOUT_S", 1)
    options = DeviceOptions(runtime_library=libraries.onnxruntime_library())
    rounds = PhoneDevice(Adb(timeout_s=3), phone.serial, options).measure(models, TWO_ROUNDS)
    next(rounds)
    phone.arm(StallAt("shell_output", 0, RUNNER))
    with pytest.raises(DeviceError, match=re.escape(phone.serial)) as caught:
        list(rounds)
    assert "could not be put back" in "".join(caught.value.__notes__)
    phone.reconnect()
    note = phone.data / phone_settings_module.NOTE.removeprefix("/data/")
    assert note.exists()
    device = open_device(f"adb:{phone.serial}", options)
    assert not note.exists(), "what the cut-off call left changed is put back when it is opened"
    (again,) = device.measure(models, ONE_ROUND)
    assert again.context["prepared"]["found_changed"] is False
    assert phone.state("settings/global/stay_on_while_plugged_in") == "0"


def test_a_link_that_breaks_ends_the_call_and_keeps_the_rounds_before(phone, open_phone, models):
    rounds = open_phone().measure(models, TWO_ROUNDS)
    first = next(rounds)
    phone.arm(CutAt("shell_output", 0, RUNNER))
    with pytest.raises(DeviceError, match=re.escape(phone.serial)):
        list(rounds)
    assert first.accepted and set(first.visits) == {model.key for model in models}
    phone.reconnect()
    (again,) = open_phone().measure(models, ONE_ROUND)
    assert again.accepted


# -- phones that can't be used ---------------------------------------------------------------


def test_a_phone_that_is_not_ready_is_told_with_what_to_do(phone):
    options = DeviceOptions(runtime_library=libraries.onnxruntime_library())
    phone.become_unauthorized()
    with pytest.raises(DeviceError, match="unauthorized: unlock the phone and accept"):
        open_device(f"adb:{phone.serial}", options)
    phone.reconnect()
    phone.cut()
    with pytest.raises(DeviceError, match=r"offline|there is no phone"):
        open_device(f"adb:{phone.serial}", options)
    phone.remove()
    with pytest.raises(DeviceError, match="there is no phone"):
        open_device(f"adb:{phone.serial}", options)
    with pytest.raises(DeviceError, match="adb sees no phone"):
        open_device("adb", options)


def test_of_several_phones_one_must_be_named(two_phones):
    first, second = two_phones
    options = DeviceOptions(runtime_library=libraries.onnxruntime_library())
    with pytest.raises(DeviceError, match="several phones") as caught:
        open_device("adb", options)
    assert first.serial in str(caught.value) and second.serial in str(caught.value)
    keys = {open_device(f"adb:{item.serial}", options).setup.key for item in two_phones}
    assert len(keys) == 2


def test_the_only_phone_needs_no_serial(phone, open_phone):
    options = DeviceOptions(runtime_library=libraries.onnxruntime_library())
    assert open_device("adb", options).setup == open_phone().setup
    assert device_name("adb", DeviceOptions()) == open_phone().setup.device
    assert open_phone().setup.device == (
        "adb:SANDBOX0001 Latkit Pixel Test (Sandbox SB1000, Android 14)"
    )


def test_a_phone_of_another_architecture_is_refused(make_phone):
    told = {
        "ro.product.cpu.abi": "armeabi-v7a",
        "ro.product.cpu.abilist": "armeabi-v7a,armeabi",
        "ro.product.cpu.abilist64": "",
    }
    phone = make_phone(properties=told)
    options = DeviceOptions(runtime_library=libraries.onnxruntime_library())
    with pytest.raises(DeviceError, match="armeabi-v7a, armeabi; there are runners for arm64-v8a"):
        open_device(f"adb:{phone.serial}", options)


def test_libraries_that_do_not_fit_are_refused(phone, open_phone, tmp_path):
    address = f"adb:{phone.serial}"
    with pytest.raises(UsageError, match="--runtime-library FILE"):
        open_device(address)
    content = bytearray(libraries.onnxruntime_library().read_bytes())
    content[18:20] = (183).to_bytes(2, "little")
    (tmp_path / "arm64.so").write_bytes(content)
    with pytest.raises(UsageError, match="built for arm64-v8a, and the phone needs x86_64"):
        open_device(address, DeviceOptions(runtime_library=tmp_path / "arm64.so"))
    with pytest.raises(UsageError, match="is a library of onnxruntime, and --runtime litert"):
        open_phone(runtime="litert")
    with pytest.raises(UsageError, match="leave out --runtime-library"):
        open_phone(benchmark_model=tmp_path / "benchmark_model")
    (tmp_path / "script").write_text("#!/bin/sh\n")
    with pytest.raises(UsageError, match="not a shared library"):
        open_device(address, DeviceOptions(benchmark_model=tmp_path / "script"))
    with pytest.raises(UsageError, match="has gpu compute in float32"):
        open_phone(precision="float16", accelerator="gpu:libdelegate.so")
    with pytest.raises(UsageError, match="there is no precision 'int4'"):
        open_phone(precision="int4")
    with pytest.raises(UsageError, match="cores"):
        open_phone(cores=(99,))


def test_a_library_out_of_an_aar_is_the_library_itself(phone, open_phone, models, tmp_path):
    archive = tmp_path / "onnxruntime-android.aar"
    with zipfile.ZipFile(archive, "w") as written:
        library = libraries.onnxruntime_library()
        written.write(library, "jni/x86_64/libonnxruntime.so")
        written.writestr("jni/arm64-v8a/libonnxruntime.so", b"another processor's")
    device = open_device(f"adb:{phone.serial}", DeviceOptions(runtime_library=archive))
    assert device.setup == open_phone().setup
    (item,) = device.measure(models, ONE_ROUND)
    assert set(item.visits) == {model.key for model in models}


# -- accelerators ----------------------------------------------------------------------------


def test_xnnpack_is_told_with_its_partitions(open_phone, models):
    device = open_phone("tflite", accelerator="xnnpack")
    (item,) = device.measure(models, ONE_ROUND)
    assert {visit.placement for visit in item.visits.values()} == {
        Placement("xnnpack", 1, visit.placement.nodes, visit.placement.nodes)
        for visit in item.visits.values()
    }
    assert item.visits["conv4", 0].placement.nodes > 0
    assert device.setup.accelerator == "xnnpack"


def test_an_accelerator_may_be_in_a_library_of_its_own(open_phone, models):
    apart = libraries.tflite_library()
    device = open_phone("tflite", accelerator=f"xnnpack:{apart}")
    (item,) = device.measure(models, ONE_ROUND)
    assert item.visits["conv4", 0].placement.accelerator == "xnnpack"
    info = device.info()
    assert device.setup.accelerator == f"xnnpack:{info['accelerator_sha256'][:12]}"
    assert info["accelerator_library"] == str(apart)


def test_an_accelerator_that_takes_nothing_fails_every_model(open_phone, models):
    device = open_phone("tflite", accelerator="nnapi")
    (item,) = device.measure(models, ONE_ROUND)
    assert not item.visits
    assert set(item.failures) == {model.key for model in models}
    for cause in item.failures.values():
        assert cause.startswith("asked for nnapi, used cpu: nnapi took no node")


def test_a_fallback_that_is_allowed_is_timed_and_noted(open_phone, models):
    device = open_phone("tflite", accelerator="nnapi", allow_fallback=True)
    rounds = list(device.measure(models, ONE_ROUND))
    assert rounds[0].visits["conv4", 0].placement.accelerator == "cpu"
    assert device.setup.accelerator == "nnapi+fallback"
    found = measurement(("conv4", 0), device.setup, rounds)
    assert re.search(r"nnapi\S* was asked for, and cpu ran it", " ".join(found.verdict.reasons))


def test_measurements_with_a_fallback_allowed_are_not_taken_for_others(phone, tmp_path):
    path = write_conv(tmp_path / "conv.onnx")
    command = ["profile", str(path), "--device", f"adb:{phone.serial}", "--accelerator", "nnapi"]
    command += ["--runtime-library", str(libraries.tflite_library()), "--rounds", "1"]
    command += ["--processes", "1", "--runs", "1", "--store", str(tmp_path / "s.sqlite")]
    for allowed, code in ((False, 3), (True, 0), (False, 3)):
        result = CliRunner().invoke(app, [*command, *(["--allow-fallback"] if allowed else [])])
        assert result.exit_code == code
        assert ("asked for nnapi, used cpu" in result.stderr) == (not allowed)


@pytest.mark.parametrize("allow_fallback", [False, True])
def test_an_accelerator_that_the_library_lacks_is_refused(open_phone, models, allow_fallback):
    with pytest.raises(UsageError, match="exports no TfLiteGpuDelegateV2Create"):
        open_phone("tflite", accelerator="gpu", allow_fallback=allow_fallback)
    with pytest.raises(UsageError, match="no delegate for plugin"):
        open_phone("tflite", accelerator=f"plugin:{libraries.tflite_library()}")
    with pytest.raises(UsageError, match="a phone has cpu, xnnpack, nnapi, gpu"):
        open_phone("tflite", accelerator="tpu")
    device = open_phone("onnxruntime", accelerator="xnnpack", allow_fallback=allow_fallback)
    with pytest.raises(DeviceError, match="XNNPACK execution provider is not supported"):
        list(device.measure(models, ONE_ROUND))


# -- what is changed on the phone, and what is recorded --------------------------------------


def test_the_phone_is_kept_awake_while_it_measures_and_then_put_back(phone, open_phone, models):
    phone.set_state("settings/global/stay_on_while_plugged_in", 1)
    device = open_phone()
    for item in device.measure(models, TWO_ROUNDS):
        assert phone.state("settings/global/stay_on_while_plugged_in") not in ("0", "1")
        assert phone.state("fixed_performance") == "true"
        assert item.context["prepared"]["kept_awake"] is True
        assert item.context["prepared"]["fixed_performance"] is True
    assert_put_back(phone)
    rounds = device.measure(models, TWO_ROUNDS)
    next(rounds)
    rounds.close()
    assert_put_back(phone)
    phone.arm(Garbage(RUNNER, b"no answer\n", line=8))
    with pytest.raises(DeviceError):
        list(device.measure(models, TWO_ROUNDS))
    assert_put_back(phone)


def assert_put_back(phone):
    assert phone.state("settings/global/stay_on_while_plugged_in") == "1"
    assert phone.state("fixed_performance") == "false"
    assert not (phone.data / "local/tmp/latkit/changed-settings.json").exists()
    assert not list((phone.data / "local/tmp/latkit").glob("*.part"))
    assert not runners_of(phone)


def test_screen_charging_battery_and_heat_are_recorded(phone, open_phone, models):
    phone.set_state("charging", "none")
    phone.set_state("battery_level", 31)
    phone.set_state("settings/global/low_power", 1)
    phone.set_temperature("skin", 33.5)
    (item,) = open_phone().measure(models, ONE_ROUND)
    for state in item.context["state"]:
        assert state["charging"] == "none"
        assert state["battery_level"] == 31
        assert state["battery_saver"] is True
        assert state["screen_on"] is True
        assert state["thermal_status"] == 0
        assert state["temperatures_c"]["skin"] == 33.5
    assert item.context["before"]["frequency_khz"] == [2_800_000]


def test_only_a_phone_that_says_so_is_emulated(make_phone, open_phone):
    device = open_phone()
    assert device.setup.emulated and device.setup.key.endswith("|emulated")
    assert device.info()["emulated_reason"] == "ro.boot.qemu is 1"
    real = make_phone(properties={"ro.boot.qemu": None})
    options = DeviceOptions(runtime_library=libraries.onnxruntime_library())
    setup = open_device(f"adb:{real.serial}", options).setup
    assert not setup.emulated and "emulated" not in setup.key


# -- the list of devices ---------------------------------------------------------------------


def listed_phones():
    result = CliRunner().invoke(app, ["devices", "--json"])
    assert result.exit_code == 0
    return {
        item["address"]: item
        for item in json.loads(result.stdout)
        if item["address"].startswith("adb")
    }


def test_the_list_of_devices_says_what_a_phone_is_and_what_another_one_needs(two_phones):
    good, other = two_phones
    good.set_thermal_status(1)
    other.become_unauthorized()
    found = listed_phones()
    assert set(found) == {f"adb:{good.serial}", f"adb:{other.serial}"}
    ready = found[f"adb:{good.serial}"]
    assert ready["problem"] is None
    assert ready["kind"] == "emulated phone" and ready["name"] == "Latkit First"
    assert ready["soc"] == "Sandbox SB1000" and ready["architecture"] == "x86_64"
    assert ready["accelerators"] == ["cpu", "xnnpack", "nnapi", "gpu"]
    assert ready["temperature"] == "thermal status 1, battery 28.5 °C"
    assert ready["can_pin"] and len(ready["cores"]) == os.cpu_count()
    assert "accept its dialog" in found[f"adb:{other.serial}"]["problem"]


def test_a_phone_that_another_latkit_uses_is_listed_as_such(phone):
    with Adb().connect(phone.serial):
        (item,) = listed_phones().values()
    assert "in use by another latkit" in item["problem"]
    assert item["name"] == "Pixel Test"
    (item,) = listed_phones().values()
    assert item["problem"] is None


def test_a_model_with_weights_in_other_files_fails_alone(open_phone, models, tmp_path):
    apart = tmp_path / "apart.onnx"
    model = onnx.load(models[0].path)
    onnx.save(model, apart, save_as_external_data=True, location="weights", size_threshold=0)
    (item,) = open_phone().measure([*models, Model("apart", apart)], ONE_ROUND)
    assert "keeps weights in other files" in item.failures["apart", 0]
    assert set(item.visits) == {model.key for model in models}
