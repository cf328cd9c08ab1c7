"""Per-operation times on a phone: what its runtime tells, beside what this host's tells."""

from __future__ import annotations

import json
import re

import numpy as np
import onnx
import pytest
from latkit.devices import DeviceError, UsageError
from latkit.devices.cpu import CpuDevice
from latkit.devices.options import DeviceOptions
from latkit.devices.per_op import operation_times
from latkit.devices.phone import profile as phone_profile_module
from latkit.devices.registry import open_device
from latkit.latency.blocks import MBConv
from latkit.latency.onnx_model import build_onnx
from onnx import TensorProto, helper, numpy_helper
from phone import libraries
from phone.faults import CutAt, Garbage
from phone.models import write_conv, write_endless
from phone.shared import shared_phone

pytestmark = pytest.mark.quiet

RUNNER = 'exec "$@"'
"""In the command line that starts the runner, and in no other."""


@pytest.fixture(scope="module")
def phone(request, tmp_path_factory):
    """A phone that all tests of this file share."""
    with shared_phone(request, tmp_path_factory.mktemp("phone")) as phone:
        yield phone


@pytest.fixture
def device(phone):
    phone.clear_faults()
    return open_device(
        f"adb:{phone.serial}", DeviceOptions(runtime_library=libraries.onnxruntime_library())
    )


@pytest.fixture
def block(tmp_path):
    """A block of some operations; the batch is open."""
    path = tmp_path / "block.onnx"
    model = build_onnx(
        MBConv(16, 14, 14, out_channels=16, expanded_channels=40, squeeze_excite=True)
    )
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "batch"
    onnx.save(model, path)
    return path


def left_behind(phone):
    """Files of profiles on the phone."""
    return sorted(file.name for file in (phone.data / "local/tmp/latkit").glob("profile.*"))


def nodes(path):
    """What a graph's nodes are called, are, read and write.

    Sorted: the runtime orders those that do not wait for each other anew at each call.
    """
    return sorted(
        (
            plain(node.name),
            node.op_type,
            node.domain,
            [plain(name) for name in node.input],
            [plain(name) for name in node.output],
        )
        for node in onnx.load(path).graph.node
    )


def plain(name):
    """A name without the number that the runtime gives those that it makes, in any order."""
    return re.sub(r"_token_\d+", "", name)


def test_the_phone_tells_the_operations_that_the_same_library_runs_here(
    phone, device, block, tmp_path
):
    there = device.operations(block, optimized=tmp_path / "there.onnx")
    here = operation_times(block, CpuDevice().setup, runs=5, optimized=tmp_path / "here.onnx")
    described = [
        sorted((plain(item.name), item.kind, item.outputs) for item in times.operations)
        for times in (there, here)
    ]
    assert len(described[0]) > 5
    assert described[0] == described[1]
    assert there.inputs == here.inputs == (("input", ("float32", (1, 16, 14, 14))),)
    assert nodes(tmp_path / "there.onnx") == nodes(tmp_path / "here.onnx")
    graph = onnx.load(tmp_path / "there.onnx").graph
    assert [item.kind for item in there.operations] == [node.op_type for node in graph.node]
    assert all(item.median_ms > 0 for item in there.operations if item.kind == "Conv")
    assert there.whole_ms > 0 and there.profiled_ms > 0
    assert len(there.canary_ns) == len(here.canary_ns) == 6
    assert 0 <= there.clean_share <= 1
    assert left_behind(phone) == []


def test_a_graph_is_the_phones_own_and_no_other_that_lies_there(phone, device, tmp_path):
    folder = phone.data / "local/tmp/latkit"
    for name in ("profile.0123456789abcdef.onnx", "profile.onnx", "profile_2026.json"):
        (folder / name).write_bytes(b"of a call that was killed")
    device.operations(write_conv(tmp_path / "conv.onnx"), runs=1, optimized=tmp_path / "graph.onnx")
    assert onnx.load(tmp_path / "graph.onnx").graph.node
    assert left_behind(phone) == []


def test_without_runs_the_operations_are_known_and_no_times(device, block, tmp_path):
    times = device.operations(block, runs=0, optimized=tmp_path / "graph.onnx")
    assert len(times.operations) == len(nodes(tmp_path / "graph.onnx"))
    assert (times.whole_ms, times.profiled_ms, times.canary_ns) == (0.0, 0.0, ())


def test_few_runs_are_cut_into_fewer_turns(device, tmp_path):
    times = device.operations(write_conv(tmp_path / "conv.onnx"), runs=2, warmups=0)
    assert len(times.canary_ns) == 3


def test_inputs_of_other_types_are_told_and_weights_are_none(device, tmp_path):
    weight = numpy_helper.from_array(np.ones((4, 2), np.float32), "table")
    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", "index"], ["row"])],
        "lookup",
        [
            helper.make_tensor_value_info("index", TensorProto.INT64, [3]),
            helper.make_tensor_value_info("table", TensorProto.FLOAT, [4, 2]),
        ],
        [helper.make_tensor_value_info("row", TensorProto.FLOAT, [3, 2])],
        [weight],
    )
    path = tmp_path / "lookup.onnx"
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    times = device.operations(path, runs=1)
    assert times.inputs == (("index", ("int64", (3,))),)
    assert [item.kind for item in times.operations] == ["Gather"]


@pytest.mark.parametrize("which", [".json", ".onnx"])
def test_a_link_that_breaks_in_the_pull_is_an_error_and_leaves_nothing(
    phone, device, block, tmp_path, which
):
    target = tmp_path / "pulled"
    target.mkdir()
    fault = CutAt("receive_bytes", 100, match=which)
    phone.arm(fault)
    with pytest.raises(DeviceError, match=re.escape(phone.serial)):
        device.operations(block, runs=3, optimized=target / "graph.onnx")
    assert phone.fired == [fault]
    assert list(target.iterdir()) == []
    assert left_behind(phone), "the link was gone, so they could not be removed"
    phone.reconnect()
    device.operations(block, runs=3, optimized=target / "graph.onnx")
    assert [file.name for file in target.iterdir()] == ["graph.onnx"]
    assert left_behind(phone) == []


def test_a_link_that_breaks_while_it_profiles_is_an_error(phone, device, block, tmp_path):
    phone.arm(Garbage(RUNNER, cut_at_profile(phone), lines=10**6))
    with pytest.raises(DeviceError, match=re.escape(phone.serial)):
        device.operations(block, optimized=tmp_path / "graph.onnx")
    assert not (tmp_path / "graph.onnx").exists()
    phone.clear_faults()
    phone.reconnect()
    device.operations(block, runs=1)
    assert left_behind(phone) == []


def cut_at_profile(phone):
    """The link breaks when the runner says that the profile is written."""

    def changed(line):
        if line.startswith(b'{"end":"profile"'):
            phone.arm(CutAt("shell_output", 0, RUNNER))
        return line

    return changed


def test_a_model_that_can_not_be_loaded_is_an_error_with_the_cause(phone, device, tmp_path):
    junk = tmp_path / "junk.onnx"
    junk.write_bytes(b"junk" * 100)
    with pytest.raises(DeviceError, match=r"junk\.onnx can't be profiled: it can't be loaded"):
        device.operations(junk, optimized=tmp_path / "graph.onnx")
    with pytest.raises(UsageError, match="there is no model file"):
        device.operations(tmp_path / "not there.onnx")
    assert not (tmp_path / "graph.onnx").exists()
    assert left_behind(phone) == []


def test_a_model_that_never_ends_is_ended(phone, device, tmp_path, monkeypatch):
    monkeypatch.setattr(device, "timeout_s", 2.0)
    monkeypatch.setattr("latkit.devices.phone.worker.PATIENCE_S", 0.5)
    monkeypatch.setattr("latkit.devices.phone.runner_process.POLL_S", 0.5)
    with pytest.raises(DeviceError, match=r"endless\.onnx can't be profiled: at load it did not"):
        device.operations(write_endless(tmp_path / "endless.onnx"))
    assert left_behind(phone) == []


def test_tensorflow_lite_says_that_it_can_not_tell(phone, device, block):
    phone.commands.clear()
    library = libraries.tflite_library()
    other = open_device(f"adb:{phone.serial}", DeviceOptions(runtime_library=library))
    asked = len(phone.commands)
    with pytest.raises(UsageError, match="TensorFlow Lite's C interface has no profiler"):
        other.operations(block)
    assert len(phone.commands) == asked, "the phone is not bothered"


def changed_end(**values):
    """A change of the line that ends the profile."""

    def changed(line):
        if not line.startswith(b'{"end":"profile"'):
            return line
        return json.dumps({**json.loads(line), **values}).encode() + b"\n"

    return changed


@pytest.mark.parametrize(
    "change",
    [
        changed_end(optimized="/etc/passwd"),
        changed_end(profile="/data/local/tmp/latkit/progress"),
        changed_end(profile="/data/local/tmp/latkit/profile.json"),
        changed_end(profile=None),
        changed_end(optimized=3),
        lambda line: b"" if line.startswith(b'{"visit":0') else line,
        lambda line: line.replace(b'{"visit":0', b'{"visit":5'),
    ],
    ids=["foreign", "other", "no-nonce", "null", "number", "left-out", "unknown-model"],
)
def test_what_no_runner_says_is_no_profile(phone, device, tmp_path, change):
    path = write_conv(tmp_path / "conv.onnx")
    phone.arm(Garbage(RUNNER, change, lines=10**6))
    with pytest.raises(DeviceError, match="no runner says"):
        device.operations(path, runs=1, optimized=tmp_path / "graph.onnx")
    assert not (tmp_path / "graph.onnx").exists()
    assert left_behind(phone) == []


@pytest.mark.parametrize("content", [b"", b"[", b"3", b"[3]", b'[{"cat":"Node"}]', b"[" * 10**5])
def test_a_profile_that_can_not_be_read_is_an_error(content, tmp_path):
    (tmp_path / "profile.json").write_bytes(content)
    with pytest.raises(DeviceError, match="can't be read"):
        phone_profile_module._read(tmp_path / "profile.json", [True], tmp_path / "m.onnx")


def test_a_profile_with_runs_missing_is_an_error(tmp_path):
    (tmp_path / "profile.json").write_text('[{"name": "model_run", "dur": 5, "cat": "Session"}]')
    with pytest.raises(DeviceError, match="holds 1 runs of 2"):
        phone_profile_module._read(tmp_path / "profile.json", [True, True], tmp_path / "m.onnx")
