"""Kernels of a model on a phone: told by the phone's own runtime."""

import json
from collections import Counter

import onnx
import pytest
from latkit.devices import UsageError
from latkit.devices.cpu import CpuDevice
from latkit.devices.options import DeviceOptions
from latkit.devices.registry import open_device
from latkit.latency.blocks import ConvBlock, Head, MBConv
from latkit.latency.network import Network
from latkit.latency.onnx_model import build_onnx
from latkit.latency.splitting.model_split import device_split, split
from latkit.search.cli import app
from phone import libraries
from phone.shared import shared_phone
from typer.testing import CliRunner

pytestmark = pytest.mark.quiet

NETWORK = Network.chain(
    (
        ConvBlock(
            in_channels=3, out_channels=20, height=32, width=32, stride=2, activation="relu6"
        ),
        MBConv(20, 16, 16, out_channels=20, expanded_channels=52, kernel=7, squeeze_excite=True),
        Head(in_channels=20, hidden_channels=40, height=16, width=16, classes=10),
    )
)
QUICK = ("--rounds", "1", "--processes", "1", "--runs", "2")


@pytest.fixture(scope="module")
def phone(request, tmp_path_factory):
    with shared_phone(request, tmp_path_factory.mktemp("phone")) as phone:
        yield phone


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("split") / "network.onnx"
    onnx.save(build_onnx(NETWORK), path)
    return path


def opened(phone, library="onnxruntime"):
    options = DeviceOptions(runtime_library=getattr(libraries, f"{library}_library")())
    return open_device(f"adb:{phone.serial}", options)


def counted(found):
    return Counter(item.kernel for item in found.kernels)


@pytest.mark.parametrize("runs", [0, 4])
def test_kernels_of_the_same_library_on_a_phone_are_those_of_this_host(phone, path, runs):
    found = device_split(path, opened(phone), runs=runs)
    assert found.source == "runtime"
    assert counted(found) == counted(split(path, CpuDevice().setup))
    assert (found.whole_ms is None) == (runs == 0)
    for item in found.kernels:
        assert (item.median_ms is None) == (runs == 0)


def test_a_closed_phones_kernels_are_rules_and_not_this_hosts(phone, path):
    device = opened(phone)
    found = split(path, device.setup)
    assert found.source == "rules"
    assert counted(found) != counted(device_split(path, device, runs=0))


def test_tensorflow_lites_kernels_on_a_phone_follow_from_rules_and_have_no_times(phone, path):
    device = opened(phone, "tflite")
    assert device_split(path, device, runs=0) == split(path, device.setup)
    with pytest.raises(UsageError, match="does not tell single kernels"):
        device_split(path, device, runs=1)


def test_this_host_is_split_as_ever(path):
    device = CpuDevice()
    assert counted(device_split(path, device, runs=0)) == counted(split(path, device.setup))
    assert device_split(path, device, runs=1).whole_ms > 0


def test_the_command_tells_the_operations_of_each_device(phone, path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    library = ["--runtime-library", str(libraries.onnxruntime_library())]
    words = ["profile", str(path), *QUICK, "--per-op", "--json", *library]
    done = CliRunner().invoke(app, [*words, "--device", f"adb:{phone.serial}"])
    assert done.exit_code == 0, done.output
    times = json.loads(done.stdout)["per_op"][str(path)]
    kinds = Counter(item["kind"] for item in times["operations"])
    here = CliRunner().invoke(app, ["profile", str(path), *QUICK, "--per-op", "--json"])
    times_here = json.loads(here.stdout)["per_op"][str(path)]
    assert kinds == Counter(item["kind"] for item in times_here["operations"])
    assert times["whole_ms"] > 0 and times["remainder_ms"] < times["whole_ms"]


def test_several_phones_each_tell_their_operations(two_phones, path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    addresses = [f"adb:{item.serial}" for item in two_phones]
    words = ["profile", str(path), *QUICK, "--per-op", "--json"]
    words += ["--runtime-library", str(libraries.onnxruntime_library())]
    for address in addresses:
        words += ["--device", address]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)["devices"]
    kinds = [
        Counter(item["kind"] for item in told[address]["per_op"][str(path)]["operations"])
        for address in addresses
    ]
    assert kinds[0] == kinds[1]
