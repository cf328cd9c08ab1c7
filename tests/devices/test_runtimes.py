from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from latkit.devices import DeviceError, UsageError
from latkit.devices.canary import build_canary
from latkit.devices.convert import default_cache, prepare
from latkit.devices.device import Placement
from latkit.devices.runtimes import (
    RUNTIMES,
    OnnxRuntime,
    binary_sha256,
    find_runtime,
    numbered_input,
    runtime_facts,
)
from onnx import TensorProto, helper


@pytest.fixture
def canary(tmp_path):
    onnx.save(build_canary(), tmp_path / "canary.onnx")
    return tmp_path / "canary.onnx"


def write_identity(path, dtype, shape=(1, 4)):
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "identity",
        [helper.make_tensor_value_info("x", dtype, shape)],
        [helper.make_tensor_value_info("y", dtype, shape)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("name", RUNTIMES)
def test_a_run_computes_the_model_and_touching_changes_nothing(name, canary, tmp_path):
    session = find_runtime(name).load(prepare(canary, name, tmp_path / "cache"), 1)
    session.run()
    first = session.outputs()
    session.touch_input()
    session.run()
    for one, other in zip(first, session.outputs(), strict=True):
        assert np.abs(one).max() > 0
        np.testing.assert_array_equal(one, other)


def test_onnxruntime_gives_what_a_plain_session_gives(canary):
    session = find_runtime("onnxruntime").load(canary, 1)
    session.run()
    values = numbered_input(0, "input", [1, 3, 32, 32], "float32")
    plain = onnxruntime.InferenceSession(canary).run(None, {"input": values})
    np.testing.assert_allclose(session.outputs()[0], plain[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", RUNTIMES)
def test_runtimes_say_what_they_are(name):
    facts = runtime_facts(find_runtime(name), 1)
    assert facts["runtime"] == name
    assert facts["runtime_version"][0].isdigit()
    assert len(facts["runtime_binary_sha256"]) == 64
    assert facts["runtime_binary_sha256"] == binary_sha256(find_runtime(name))


def test_litert_says_that_a_delegate_took_the_model(canary, tmp_path):
    path = prepare(canary, "litert", tmp_path)
    assert find_runtime("litert").load(path, 1).placement == Placement("xnnpack", 1)


def test_an_unknown_runtime_lists_the_known():
    with pytest.raises(DeviceError, match="onnxruntime, litert"):
        find_runtime("abacus")


def test_a_runtime_that_is_not_installed_names_the_package(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(DeviceError, match="pip install onnxruntime"):
        OnnxRuntime().version()


@pytest.mark.parametrize(
    "dtype",
    [
        TensorProto.FLOAT,
        TensorProto.FLOAT16,
        TensorProto.DOUBLE,
        TensorProto.INT8,
        TensorProto.UINT8,
        TensorProto.INT64,
        TensorProto.BOOL,
    ],
)
def test_inputs_of_many_types_are_filled(tmp_path, dtype):
    session = find_runtime("onnxruntime").load(write_identity(tmp_path / "m.onnx", dtype), 1)
    session.touch_input()
    session.run()
    assert session.outputs()[0].shape == (1, 4)


def test_an_input_that_can_not_be_filled_is_refused(tmp_path):
    path = write_identity(tmp_path / "m.onnx", TensorProto.STRING)
    with pytest.raises(UsageError, match=r"input x .* tensor\(string\)"):
        find_runtime("onnxruntime").load(path, 1)


def test_an_open_batch_becomes_one(tmp_path):
    path = write_identity(tmp_path / "m.onnx", TensorProto.FLOAT, ("batch", 4))
    session = find_runtime("onnxruntime").load(path, 1)
    assert session.outputs()[0].shape == (1, 4)


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.integers(1, 5), max_size=4),
    st.sampled_from(["float32", "float16", "int8", "uint8", "int32", "int64", "bool"]),
)
def test_inputs_have_their_shape_and_type_and_are_the_same_each_time(shape, dtype):
    first, second = (numbered_input(0, "x", shape, dtype) for _ in range(2))
    assert first.shape == tuple(shape)
    assert first.dtype == dtype
    np.testing.assert_array_equal(first, second)
    if dtype in ("int32", "int64"):
        assert set(np.unique(first)) <= {0, 1}


def test_prepare_leaves_alone_what_the_runtime_eats(canary, tmp_path):
    assert prepare(canary, "onnxruntime", tmp_path / "cache") == canary
    assert not (tmp_path / "cache").exists()


def test_prepare_converts_once_for_each_content(canary, tmp_path):
    cache = tmp_path / "cache"
    converted = prepare(canary, "litert", cache)
    written = converted.stat().st_mtime_ns
    copy = tmp_path / "copy.onnx"
    copy.write_bytes(canary.read_bytes())
    assert prepare(copy, "litert", cache) == converted
    assert converted.stat().st_mtime_ns == written
    assert prepare(converted, "litert", cache) == converted
    model = onnx.load(canary)
    model.graph.name = "another"
    onnx.save(model, copy)
    assert prepare(copy, "litert", cache) != converted


def test_prepare_refuses_what_can_not_run(canary, tmp_path):
    tflite = tmp_path / "net.tflite"
    tflite.write_bytes(b"")
    with pytest.raises(UsageError, match=r"onnxruntime, which eats \.onnx"):
        prepare(tflite, "onnxruntime", tmp_path)
    with pytest.raises(UsageError, match="there is no model file"):
        prepare(tmp_path / "none.onnx", "litert", tmp_path)
    junk = tmp_path / "junk.onnx"
    junk.write_bytes(b"junk")
    with pytest.raises(UsageError, match="no ONNX model"):
        prepare(junk, "litert", tmp_path)
    with pytest.raises(DeviceError, match="no runtime"):
        prepare(canary, "abacus", tmp_path)


def test_default_cache_is_a_folder_of_the_user(monkeypatch, tmp_path):
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache() == tmp_path / "latkit"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert default_cache().parts[-2:] == (".cache", "latkit")
    monkeypatch.setattr("sys.platform", "darwin")
    assert default_cache().parts[-3:] == ("Library", "Caches", "latkit")


def test_inputs_are_numbers_that_other_programs_can_make_too():
    def mixed(value):
        value = (value + 0x9E3779B97F4A7C15) % 2**64
        value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        value = (value ^ (value >> 27)) * 0x94D049BB133111EB % 2**64
        return value ^ (value >> 31)

    expected = [mixed((3 << 40) + index) for index in range(6)]
    floats = numbered_input(2, "x", [2, 3], "float32")
    assert floats.ravel().tolist() == [(value >> 40) * 2.0**-23 - 1 for value in expected]
    assert numbered_input(2, "x", [6], "uint8").tolist() == [value % 256 for value in expected]
    assert numbered_input(2, "x", [6], "int64").tolist() == [value % 2 for value in expected]
    assert abs(numbered_input(0, "x", [100_000], "float32").mean()) < 0.01
