"""Files are written in each precision once, for the processor that they are for."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from latkit.devices import DeviceError, UsageError
from latkit.devices.convert import prepare
from latkit.devices.cpu import CpuDevice, CpuKind
from latkit.devices.options import DeviceOptions
from latkit.devices.precision import conversion, described, made_by, onnx_in
from latkit.devices.precision.onnx_int8 import with_quantized_edges
from latkit.devices.runtimes import ONNX_DTYPES, find_runtime, numbered_input
from latkit.latency.blocks import LinearBlock, MBConv, Pointwise, Skip
from latkit.latency.network import Network
from latkit.latency.onnx_model import build_onnx
from onnx import TensorProto, helper, numpy_helper

BLOCK = MBConv(8, 9, 9, out_channels=8, expanded_channels=24, squeeze_excite=True)
PRECISIONS = ("float32", "float16", "int8")
RUNTIMES = ("onnxruntime", "litert")


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "block.onnx"
    onnx.save(build_onnx(BLOCK), path)
    return path


def input_types(path):
    return [item.type.tensor_type.elem_type for item in onnx.load(path).graph.input]


# -- which file ------------------------------------------------------------------------------


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_each_precision_has_a_file_of_its_own_that_is_written_once(model, tmp_path, runtime):
    cache = tmp_path / "cache"
    files = [prepare(model, runtime, cache, precision=precision) for precision in PRECISIONS]
    assert len(set(files)) == 3
    written = [path.stat().st_mtime_ns for path in files]
    again = [prepare(model, runtime, cache, precision=precision) for precision in PRECISIONS]
    assert again == files
    assert [path.stat().st_mtime_ns for path in again] == written


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("precision", PRECISIONS[1:])
def test_equal_models_give_equal_bytes(model, tmp_path, runtime, precision):
    one, other = (
        prepare(model, runtime, tmp_path / name, precision=precision).read_bytes()
        for name in ("one", "other")
    )
    assert one == other


def test_another_version_of_the_tool_writes_another_file(model, tmp_path, monkeypatch):
    before = prepare(model, "litert", tmp_path, precision="int8")
    monkeypatch.setattr(conversion, "version", lambda package: "9.9")
    assert "9.9" in made_by(".tflite", "int8")
    assert prepare(model, "litert", tmp_path, precision="int8") != before


@pytest.mark.parametrize("precision", PRECISIONS[1:])
def test_a_file_is_no_newer_than_the_model_that_it_is_made_of(model, tmp_path, precision):
    """A phone's runtime may be older than this host's."""
    given, made = onnx.load(model), onnx.load(prepare(model, "torch", tmp_path, 1, precision))
    assert made.ir_version == given.ir_version
    versions = {item.domain: item.version for item in made.opset_import}
    assert versions[""] == given.opset_import[0].version
    used = {node.domain for node in made.graph.node}
    assert used == {""}
    assert set(versions) == used


def test_torch_gets_the_float16_file_that_onnxruntime_gets(model, tmp_path):
    path = prepare(model, "torch", tmp_path, precision="float16")
    assert path == prepare(model, "onnxruntime", tmp_path, precision="float16")
    assert input_types(path) == [TensorProto.FLOAT16]


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_batch_is_converted_too(model, tmp_path, runtime):
    for precision in PRECISIONS[1:]:
        path = prepare(model, runtime, tmp_path, 3, precision)
        assert path != prepare(model, runtime, tmp_path, 1, precision)
        session = find_runtime(runtime).load(path, 1)
        session.run()
        (output,) = session.outputs()
        assert output.shape[0] == 3
        assert len(np.unique(output)) > 10


def test_values_are_unsigned_on_x86_and_signed_on_arm(model, tmp_path):
    x86 = prepare(model, "onnxruntime", tmp_path, precision="int8", machine="x86_64")
    arm = prepare(model, "onnxruntime", tmp_path, precision="int8", machine="arm64-v8a")
    assert input_types(x86) == [TensorProto.UINT8]
    assert input_types(arm) == [TensorProto.INT8]
    assert arm == prepare(model, "onnxruntime", tmp_path, precision="int8", machine="aarch64")
    assert "uint8" in described(".onnx", "int8", "x86_64")["values"]
    assert "uint8" not in described(".onnx", "int8", "arm64-v8a")["values"]
    assert "uint8" not in described(".tflite", "int8", "x86_64")["values"]


def test_signed_values_too_are_all_integers_where_the_runtime_allows_them(model, tmp_path):
    """As its builds for ARM do; the entry is the one by which they differ."""
    path = prepare(model, "onnxruntime", tmp_path, precision="int8", machine="aarch64")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.add_session_config_entry("session.qdqisint8allowed", "1")
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    kinds = [node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node]
    assert kinds.count("QLinearConv") == 5
    assert {"QLinearMul", "QLinearAdd"} <= set(kinds)
    assert "Conv" not in kinds


def test_writing_other_precisions_prints_nothing(tmp_path, capfd, caplog):
    """The quantizer shows progress of larger models; both tools tell of weights, and of sizes."""
    path = tmp_path / "network.onnx"
    layers = [Pointwise(8, 6, 6, out_channels=8, activation="relu") for _ in range(60)]
    onnx.save(build_onnx(Network.chain([*layers, Skip(8, 6, 6)])), path)
    capfd.readouterr()
    for runtime in RUNTIMES:
        for precision in PRECISIONS[1:]:
            prepare(path, runtime, tmp_path, precision=precision)
    norm = quantized([("LayerNormalization", "x w", "y")])
    norm.graph.initializer.append(numpy_helper.from_array(np.full(3, 1e-9, np.float32), "w"))
    for precision in PRECISIONS[1:]:
        onnx_in(norm, precision, "x86_64")
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []


# -- what is refused -------------------------------------------------------------------------


def test_a_file_in_the_runtimes_own_form_is_timed_as_it_is_or_not_at_all(model, tmp_path):
    tflite = prepare(model, "litert", tmp_path, precision="int8")
    assert prepare(tflite, "litert", tmp_path) == tflite
    for precision in PRECISIONS[1:]:
        with pytest.raises(UsageError, match="leave the precision out to time this one as it is"):
            prepare(tflite, "litert", tmp_path, precision=precision)


@pytest.mark.parametrize(("given", "said"), [("int8", "quantized"), ("float16", "in 16 bits")])
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_model_that_is_not_float32_is_timed_as_it_is_or_not_at_all(
    model, tmp_path, given, said, runtime
):
    narrow = prepare(model, "onnxruntime", tmp_path, precision=given)
    assert prepare(narrow, "onnxruntime", tmp_path) == narrow
    for precision in PRECISIONS[1:]:
        with pytest.raises(UsageError, match=f"is {said} already"):
            prepare(narrow, runtime, tmp_path, precision=precision)


def test_an_unknown_precision_is_refused(model, tmp_path):
    with pytest.raises(UsageError, match="float32, float16, int8"):
        prepare(model, "litert", tmp_path, precision="int4")


def test_a_model_that_can_not_be_converted_says_to_what(tmp_path):
    path = tmp_path / "open.onnx"
    node = helper.make_node("Relu", ["x"], ["y"])
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, "n"]) for name in "xy"]
    graph = helper.make_graph([node], "open", infos[:1], infos[1:])
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    with pytest.raises(UsageError, match="open shape"):
        prepare(path, "onnxruntime", tmp_path, precision="int8")


def test_without_the_quantizer_litert_has_no_int8_and_says_what_to_install(
    model, tmp_path, monkeypatch
):
    monkeypatch.setattr(conversion.importlib.util, "find_spec", lambda name: None)
    for ask in (
        lambda: prepare(model, "litert", tmp_path, precision="int8"),
        lambda: CpuDevice(runtime="litert", precision="int8"),
    ):
        with pytest.raises(DeviceError, match=r"pip install 'latkit\[int8\]'"):
            ask()
    assert CpuDevice(runtime="onnxruntime", precision="int8").setup.precision == "int8"
    (listing,) = CpuKind().found(DeviceOptions())
    assert "latkit[int8]" in listing.missing["litert int8"]
    assert listing.precisions == PRECISIONS


# -- quantized inputs and outputs ------------------------------------------------------------


def run(model, inputs=None):
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    feeds = {
        item.name: numbered_input(number, item.name, item.shape, ONNX_DTYPES[item.type])
        for number, item in enumerate(session.get_inputs())
    }
    return session.run(None, feeds if inputs is None else inputs)


def quantized(nodes, inputs=("x",), outputs=("y",)):
    """A model of these nodes, which may use the scale `s` and the zero point `z`."""
    shape = [1, 4, 3, 3]
    infos = [
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in names]
        for names in (inputs, outputs)
    ]
    values = [
        numpy_helper.from_array(np.float32(1 / 128), "s"),
        numpy_helper.from_array(np.int8(3), "z"),
    ]
    graph = helper.make_graph(
        [helper.make_node(kind, given.split(), made.split()) for kind, given, made in nodes],
        "graph",
        *infos,
        values,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def types(model):
    graph = model.graph
    return [item.type.tensor_type.elem_type for item in (*graph.input, *graph.output)]


WRAPPED = [
    ("QuantizeLinear", "x s z", "q"),
    ("DequantizeLinear", "q s z", "d"),
    ("Relu", "d", "r"),
    ("QuantizeLinear", "r s z", "p"),
    ("DequantizeLinear", "p s z", "y"),
]


def test_edges_that_are_quantized_at_once_are_taken_and_given_quantized():
    model = with_quantized_edges(quantized(WRAPPED))
    onnx.checker.check_model(model, full_check=True)
    assert types(model) == [TensorProto.INT8, TensorProto.INT8]
    assert [node.op_type for node in model.graph.node] == [
        *("DequantizeLinear", "Relu", "QuantizeLinear")
    ]
    given = np.arange(-18, 18, dtype=np.int8).reshape(1, 4, 3, 3)
    np.testing.assert_array_equal(run(model, {"x": given})[0], np.maximum(given, 3))


@pytest.mark.parametrize(
    ("nodes", "inputs", "outputs", "expected"),
    [
        # An operator reads the float values of the input, or of the output, as well.
        (
            [*WRAPPED[:4], ("DequantizeLinear", "p s z", "e"), ("Add", "e x", "y")],
            *(["x"], ["y"], [TensorProto.FLOAT, TensorProto.FLOAT]),
        ),
        (
            [*WRAPPED, ("Abs", "y", "w")],
            *(["x"], ["y", "w"], [TensorProto.INT8, TensorProto.FLOAT, TensorProto.FLOAT]),
        ),
        # A quantized value that is an output twice, or goes straight through.
        (
            [*WRAPPED, ("DequantizeLinear", "p s z", "w")],
            *(["x"], ["y", "w"], [TensorProto.INT8, TensorProto.INT8, TensorProto.FLOAT]),
        ),
        (
            [("QuantizeLinear", "x s z", "q"), ("DequantizeLinear", "q s z", "y")],
            *(["x"], ["y"], [TensorProto.INT8, TensorProto.FLOAT]),
        ),
        ([("Relu", "x", "y")], ["x"], ["y"], [TensorProto.FLOAT, TensorProto.FLOAT]),
    ],
)
def test_edges_that_are_read_as_floats_stay_floats(nodes, inputs, outputs, expected):
    before = quantized(nodes, inputs, outputs)
    original = run(before)
    model = with_quantized_edges(before)
    onnx.checker.check_model(model, full_check=True)
    assert types(model) == expected
    feeds = {}
    for item in model.graph.input:
        values = numbered_input(0, item.name, [1, 4, 3, 3], np.float32)
        if item.type.tensor_type.elem_type == TensorProto.INT8:
            values = np.clip(np.rint(values * 128) + 3, -128, 127).astype(np.int8)
        feeds[item.name] = values
    for one, other in zip(run(model, feeds), original, strict=True):
        wide = (one.astype(np.float32) - 3) / 128 if one.dtype == np.int8 else one
        np.testing.assert_allclose(wide, other)


def test_what_loops_and_branches_read_is_left_alone():
    model = quantized(WRAPPED)
    inner = helper.make_graph([], "inner", [], [])
    model.graph.node.append(helper.make_node("If", ["c"], [], then_branch=inner, else_branch=inner))
    before = model.SerializeToString()
    assert with_quantized_edges(model).SerializeToString() == before


def test_the_given_model_stays_as_it_is():
    model = build_onnx(LinearBlock(in_features=4, out_features=4))
    before = model.SerializeToString()
    for precision in PRECISIONS:
        onnx_in(model, precision, "x86_64")
    assert model.SerializeToString() == before
