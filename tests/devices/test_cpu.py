from __future__ import annotations

import dataclasses
import os
import platform
import signal
import subprocess
import sys
import threading
import time

import onnx
import pytest
from latkit.devices import (
    DeviceError,
    LatkitError,
    Model,
    Placement,
    TimingProtocol,
    UsageError,
)
from latkit.devices import rounds as rounds_module
from latkit.devices.cpu import CpuDevice
from latkit.devices.device import PRECISIONS
from latkit.devices.host import allowed_cores, can_pin
from latkit.devices.job import read_progress
from latkit.devices.measurement import measurement
from phone.models import write_conv, write_endless, write_loop

pytestmark = pytest.mark.quiet

SHORT = TimingProtocol(rounds=2, processes=1, runs=3, warmups=1, max_repeats=0)


def workers_of(parent):
    """Process ids of the workers whose parent is `parent`."""
    listing = subprocess.run(
        ["ps", "-A", "-o", "pid=,ppid=,command="], capture_output=True, text=True, check=True
    )
    found = [line.split(None, 2) for line in listing.stdout.splitlines()]
    return [
        int(pid)
        for pid, ppid, command in found
        if int(ppid) == parent and "latkit.devices.worker" in command
    ]


def is_running(pid):
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True)
    return state.stdout.strip() not in ("", "Z", "Zs")


def wait_until(condition, seconds=30):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return False


@pytest.fixture
def device(tmp_path):
    return CpuDevice(cache=tmp_path / "cache")


@pytest.fixture
def conv(tmp_path):
    return write_conv(tmp_path / "conv.onnx")


def test_rounds_have_every_model_once_and_spread_over_fresh_processes(device, conv):
    models = [Model("one", conv), Model("one", conv, 1 << 20), Model("two", conv)]
    protocol = TimingProtocol(rounds=3, processes=2, runs=4, warmups=1, max_repeats=0)
    rounds = list(device.measure(models, protocol))
    assert [item.index for item in rounds] == [0, 1, 2]
    assert [item.process for item in rounds] == [0, 0, 1]
    assert len({item.run_id for item in rounds}) == 1
    for item in rounds:
        assert item.accepted and not item.failures
        assert set(item.visits) == {model.key for model in models}
        assert all(len(visit.samples_ns) == 4 for visit in item.visits.values())
        assert all(time > 0 for visit in item.visits.values() for time in visit.samples_ns)
        assert item.canary_ns and item.canary_drift > -1
        assert item.duration_s > 0
    assert rounds[0].canary_drift == 0
    result = measurement(("two", 0), device.setup, rounds)
    assert result.verdict.kind == "noisy"  # for two processes are too few
    assert result.median_ms > 0


def test_a_model_that_does_more_takes_longer(device, tmp_path, conv):
    slow = write_loop(tmp_path / "slow.onnx", 20_000)
    rounds = list(device.measure([Model("conv", conv), Model("slow", slow)], SHORT))
    conv_ms, slow_ms = (
        measurement((name, 0), device.setup, rounds).median_ms for name in ("conv", "slow")
    )
    assert slow_ms > 3 * conv_ms


def test_litert_times_onnx_models_and_says_where_they_ran(conv, tmp_path):
    device = CpuDevice(runtime="litert", cache=tmp_path / "cache")
    for item in device.measure([Model("conv", conv), Model("conv", conv, 1 << 20)], SHORT):
        assert set(item.visits) == {("conv", 0), ("conv", 1 << 20)}
        assert {visit.placement for visit in item.visits.values()} == {Placement("xnnpack", 1)}
        assert all(walk > 0 for walk in item.context["memory_walk_ns"])


@pytest.mark.skipif(not can_pin(), reason="this host can't pin")
def test_workers_are_pinned_to_the_cores_of_the_setup(device, conv):
    assert device.setup.cores == allowed_cores()[-1:]
    (item, *_) = device.measure([Model("conv", conv)], SHORT)
    assert tuple(item.context["pinned_to"]) == device.setup.cores


@pytest.mark.skipif(len(allowed_cores()) < 2, reason="needs two processors")
def test_two_threads_are_timed_on_two_cores(conv, tmp_path):
    device = CpuDevice(cache=tmp_path / "cache", threads=2)
    (item, *_) = device.measure([Model("conv", conv)], SHORT)
    visit = item.visits["conv", 0]
    assert len(visit.samples_ns) == 3
    if sys.platform == "linux":
        assert device.setup.cores == allowed_cores()[-2:]
        assert visit.preempted is not None and len(visit.preempted) == 3


def test_models_that_fail_do_so_alone(device, conv, tmp_path):
    junk = tmp_path / "junk.onnx"
    junk.write_bytes(b"junk")
    other = tmp_path / "net.tflite"
    other.write_bytes(b"")
    models = [
        Model("missing", tmp_path / "missing.onnx"),
        Model("junk", junk),
        Model("other", other),
        Model("good", conv),
    ]
    rounds = list(device.measure(models, SHORT))
    assert len(rounds) == 2
    for item in rounds:
        assert set(item.visits) == {("good", 0)}
        assert set(item.failures) == {("missing", 0), ("junk", 0), ("other", 0)}
        assert "there is no model file" in item.failures["missing", 0]
        assert "can't be loaded" in item.failures["junk", 0]
        assert "onnxruntime" in item.failures["other", 0]
    with pytest.raises(DeviceError, match="can't be loaded"):
        measurement(("junk", 0), device.setup, rounds)


def test_a_batch_in_which_everything_fails_still_ends(device, tmp_path):
    rounds = list(device.measure([Model("missing", tmp_path / "missing.onnx")], SHORT))
    assert [len(item.failures) for item in rounds] == [1, 1]


def test_open_shapes_are_refused_by_name(device, tmp_path, conv):
    model = onnx.load(conv)
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "height"
    onnx.save(model, tmp_path / "open.onnx")
    (item, *_) = device.measure([Model("open", tmp_path / "open.onnx")], SHORT)
    assert "export the model with fixed shapes" in item.failures["open", 0]


def signal_worker_at(number, signal_number, folder):
    """Signal the worker, from a thread, once it is at this model. Temporaries are in `folder`."""

    def watch():
        def is_there():
            found = [read_progress(path) for path in folder.glob("latkit-*/progress")]
            return any(item is not None and item[1] == number for item in found)

        assert wait_until(is_there)
        for pid in workers_of(os.getpid()):
            os.kill(pid, signal_number)

    thread = threading.Thread(target=watch)
    thread.start()
    return thread


def test_a_model_that_crashes_its_worker_is_named_and_the_rest_goes_on(
    device, conv, tmp_path, monkeypatch
):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    endless = write_endless(tmp_path / "endless.onnx")
    thread = signal_worker_at(1, signal.SIGSEGV, tmp_path)
    rounds = list(device.measure([Model("good", conv), Model("endless", endless)], SHORT))
    thread.join()
    assert [item.index for item in rounds] == [0, 1]
    for item in rounds:
        assert set(item.visits) == {("good", 0)}
        assert "SIGSEGV" in item.failures["endless", 0]
        assert item.context["lost_workers"] == 1


def test_a_model_that_hangs_is_given_up_and_the_rest_goes_on(conv, tmp_path):
    device = CpuDevice(cache=tmp_path / "cache", timeout_s=4)
    hung = write_endless(tmp_path / "hung.onnx")
    rounds = list(device.measure([Model("good", conv), Model("hung", hung)], SHORT))
    for item in rounds:
        assert set(item.visits) == {("good", 0)}
        assert "did not end within 4 s" in item.failures["hung", 0]


def test_a_killed_worker_is_a_device_error_that_speaks_of_memory(device, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    endless = write_endless(tmp_path / "endless.onnx")
    thread = signal_worker_at(0, signal.SIGKILL, tmp_path)
    with pytest.raises(DeviceError, match="memory"):
        next(device.measure([Model("endless", endless)], SHORT))
    thread.join()


def test_a_closed_generator_leaves_no_worker(device, conv):
    rounds = device.measure([Model("conv", conv)], TimingProtocol(rounds=50, processes=1))
    next(rounds)
    (pid,) = workers_of(os.getpid())
    rounds.close()
    assert not is_running(pid)


def test_a_worker_ends_when_its_parent_is_killed(conv, tmp_path):
    program = (
        "import sys; from pathlib import Path\n"
        "from latkit.devices import Model, TimingProtocol\n"
        "from latkit.devices.cpu import CpuDevice\n"
        "device = CpuDevice(cache=Path(sys.argv[2]))\n"
        "for item in device.measure([Model('conv', Path(sys.argv[1]))],"
        " TimingProtocol(rounds=100000, processes=1)): pass\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", program, conv, tmp_path / "cache"])
    try:
        assert wait_until(lambda: workers_of(parent.pid))
        (pid,) = workers_of(parent.pid)
    finally:
        parent.kill()
        parent.wait()
    assert wait_until(lambda: not is_running(pid))


def test_drift_is_repeated_within_bounds_and_then_accepted(device, conv, monkeypatch):
    monkeypatch.setattr(rounds_module, "CANARY_DRIFT_LIMIT", -1.0)  # nothing is ever good enough
    protocol = TimingProtocol(rounds=3, processes=1, runs=1, warmups=0, max_repeats=4, max_wait_s=0)
    rounds = list(device.measure([Model("conv", conv)], protocol))
    assert [(item.index, item.attempt, item.accepted) for item in rounds] == [
        (0, 0, False),
        (0, 1, False),
        (0, 2, False),
        (0, 3, False),
        (0, 4, True),
        (1, 0, True),
        (2, 0, True),
    ]


def test_a_canary_slower_than_what_was_known_of_the_quiet_device_is_repeated(device, conv):
    protocol = TimingProtocol(
        rounds=1, processes=1, runs=1, max_repeats=1, quiet_canary_ns=1.0, max_wait_s=0.5
    )
    first, second = device.measure([Model("conv", conv)], protocol)
    assert (first.accepted, second.accepted) == (False, True)
    assert first.canary_drift > 1


def test_models_given_twice_are_refused_at_once(device, conv):
    with pytest.raises(UsageError, match="given twice"):
        device.measure([Model("one", conv), Model("one", conv)], SHORT)


@pytest.mark.parametrize(
    "protocol",
    [
        TimingProtocol(rounds=0),
        TimingProtocol(runs=0),
        TimingProtocol(processes=0),
        TimingProtocol(warmups=-1),
        TimingProtocol(max_repeats=-1),
        TimingProtocol(max_wait_s=-1),
    ],
)
def test_a_protocol_that_asks_for_nothing_is_refused(device, conv, protocol):
    with pytest.raises(UsageError):
        device.measure([Model("one", conv)], protocol)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"precision": "float7"}, UsageError),
        ({"runtime": "abacus"}, DeviceError),
        ({"threads": 0}, UsageError),
        ({"threads": 10_000}, UsageError),
        ({"cores": (99_999,)}, UsageError),
        ({"cores": ()}, UsageError),
    ],
)
def test_setups_that_can_not_be_are_refused(options, error):
    with pytest.raises(error):
        CpuDevice(**options)


@pytest.mark.parametrize("runtime", ["onnxruntime", "litert"])
def test_every_precision_is_timed_under_a_key_of_its_own_beside_a_float32_canary(
    conv, tmp_path, runtime
):
    devices = [
        CpuDevice(runtime=runtime, precision=precision, cache=tmp_path) for precision in PRECISIONS
    ]
    assert len({device.setup.key for device in devices}) == len(PRECISIONS)
    assert len({device.canary() for device in devices}) == 1
    assert len({device.deliver([conv])[0] for device in devices}) == len(PRECISIONS)
    for device, precision in zip(devices, PRECISIONS, strict=True):
        assert device.setup.precision == precision == device.info()["precision"]["name"]
        (item,) = device.measure([Model("conv", conv)], dataclasses.replace(SHORT, rounds=1))
        assert set(item.visits) == {("conv", 0)} and item.canary_ns


def test_what_a_precision_became_of_on_this_processor_is_told(tmp_path):
    told = {
        precision: CpuDevice(precision=precision, cache=tmp_path).info()["precision"]
        for precision in PRECISIONS
    }
    assert "convolution_runs_as" not in told["float32"]
    assert "QLinearConv" in told["int8"]["convolution_runs_as"].split(", ")
    float16 = told["float16"]["convolution_runs_as"].split(", ")
    assert "Conv" in float16 or "FusedConv" in float16
    if platform.machine() == "x86_64":
        # ONNX Runtime's processor provider has no float16 convolution there.
        assert float16[0] == float16[-1] == "Cast"


def test_setup_is_the_same_for_the_same_hardware_and_info_explains_it(tmp_path):
    one, other = CpuDevice(cache=tmp_path), CpuDevice(cache=tmp_path)
    assert one.setup == other.setup
    assert one.setup.device.startswith("cpu:")
    assert one.setup.key.count("|") == 5
    info = one.info()
    assert len(info["runtime_binary_sha256"]) == 64
    for name, value in info.items():
        if value is None:
            assert info[f"{name}_reason"]


def test_a_damaged_canary_in_the_cache_is_written_again(device, conv, tmp_path):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "canary.onnx").write_bytes(b"damaged")
    rounds = list(device.measure([Model("conv", conv)], SHORT))
    assert all(item.canary_ns for item in rounds)


def test_a_cache_that_can_not_be_written_is_named(conv, tmp_path):
    (tmp_path / "file").write_text("")
    device = CpuDevice(cache=tmp_path / "file" / "cache")
    with pytest.raises(Exception, match="cache") as caught:
        list(device.measure([Model("conv", conv)], SHORT))
    assert isinstance(caught.value, LatkitError)
