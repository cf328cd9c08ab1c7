"""Every kind of block in int8 computes what the quantized reference computes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from block_cases import EXAMPLES, INT8_UNSETTLED, SQUEEZE_EXCITE, STRIDED_CONV
from latkit.devices.convert import prepare
from latkit.latency.blocks import (
    BLOCK_KINDS,
    ConvBlock,
    LinearBlock,
    Pooling,
    QuantisedResidual,
    Skip,
    Sum,
)
from latkit.latency.onnx_model import build_onnx
from onnx.reference import ReferenceEvaluator
from precision.reference import (
    BLOCKS,
    RUNTIMES,
    as_nchw,
    float32_output,
    onnx_inputs,
    plain_interpreter,
    plain_session,
    quantizations,
    quantized_values,
    real_inputs,
    reference_outputs,
    timed_outputs,
    write_block,
)

STEPS = 2
"""An optimised kernel may round another way than the reference, and later layers hand that on."""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Writes a block in a precision; gives the file, and its float32 ONNX model."""
    folder = tmp_path_factory.mktemp("models")

    def make(block, runtime, precision="int8"):
        return write_block(block, runtime, precision, folder)

    return make


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_block_of_few_bits_runs_its_convolutions_in_int8(runtime, tmp_path):
    """Its own rounding stays, in float where the runtime has no such int8 operation."""
    block = next(block for block in EXAMPLES if isinstance(block, QuantisedResidual))
    onnx.save(build_onnx(block), tmp_path / "block.onnx")
    path = prepare(tmp_path / "block.onnx", runtime, tmp_path, precision="int8")
    (output,) = timed_outputs(path, runtime)
    assert output.dtype in (np.int8, np.uint8)
    assert np.ptp(output.astype(np.int64)) > 100


def test_every_kind_of_block_is_among_them():
    assert {type(block) for block in BLOCKS} | INT8_UNSETTLED == set(BLOCK_KINDS.values())


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_timed_int8_outputs_are_those_of_the_quantized_reference(made, block, runtime):
    path, _ = made(block, runtime)
    (given,), (expected,) = timed_outputs(path, runtime), reference_outputs(path)
    assert given.dtype == expected.dtype and given.shape == expected.shape
    _, output = quantizations(path)
    step = 1 if given.dtype.kind in "iu" else 1 / 255
    assert np.abs(given.astype(np.float64) - expected.astype(np.float64)).max() <= STEPS * step
    assert np.ptp(expected.astype(np.float64)) > 20 * step
    assert given.dtype.kind == "f" or output.scale > 0


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_int8_is_float32_but_for_a_rounding_at_each_quantized_value(made, block, runtime):
    """The random weights keep variances, so that an error is handed on and does not grow.

    Every quantized value then adds less than one step of the output's, as a root mean square.
    Timed inputs reach further than those that ranges come from: what lies outside is cut.
    """
    path, float_path = made(block, runtime)
    _, output = quantizations(path)
    (quantized,) = timed_outputs(path, runtime)
    given = output.real(as_nchw(quantized, path))
    expected = float32_output(float_path, real_inputs(path)).reshape(given.shape)
    step = output.scale or np.ptp(expected) / 255
    if output.scale:
        kind = np.iinfo(quantized.dtype)
        expected = np.clip(expected, output.real(kind.min), output.real(kind.max))
    error = np.sqrt(np.mean((given - expected) ** 2))
    assert error <= step * quantized_values(path)


@pytest.mark.parametrize("kind", [ConvBlock, Pooling, Sum, LinearBlock])
def test_int8_onnx_is_what_the_onnx_standard_says(made, kind):
    """Its own evaluator in Python knows nothing of ONNX Runtime."""
    block = next(block for block in BLOCKS if type(block) is kind)
    path, _ = made(block, "onnxruntime")
    inputs = onnx_inputs(plain_session(path))
    model = onnx.load(path)
    # It knows the quantizing operators from 19 on; none of these models' changed their meaning.
    del model.opset_import[1:]
    model.opset_import[0].version = 19
    (expected,) = ReferenceEvaluator(model).run(None, inputs)
    (given,) = timed_outputs(path, "onnxruntime")
    assert given.dtype == expected.dtype
    assert np.abs(given.astype(int) - expected.astype(int)).max() <= 1


def operators_run(path, folder):
    """The operators that ONNX Runtime's profiler saw running, all optimisations on."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.enable_profiling = True
    options.profile_file_prefix = str(folder / "profile")
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    session.run(None, onnx_inputs(session))
    events = json.loads(Path(session.end_profiling()).read_text())
    return [item["args"]["op_name"] for item in events if item.get("cat") == "Node"]


def test_onnxruntime_runs_the_convolutions_of_int8_models_in_integers(made, tmp_path):
    path, float_path = made(SQUEEZE_EXCITE, "onnxruntime")
    convolutions = sum(node.op_type == "Conv" for node in onnx.load(float_path).graph.node)
    ran = operators_run(path, tmp_path)
    assert convolutions == 5
    assert ran.count("QLinearConv") == convolutions
    assert "Conv" not in ran and "FusedConv" not in ran
    assert {"QLinearAdd", "QLinearMul", "QLinearGlobalAveragePool"} <= set(ran)
    assert "QuantizeLinear" not in (ran[0], ran[-1])


def test_litert_runs_the_convolutions_of_int8_models_in_integers(made):
    from ai_edge_litert.interpreter import Interpreter

    path, _ = made(SQUEEZE_EXCITE, "litert")
    interpreter = plain_interpreter(path)
    types = {item["index"]: item["dtype"] for item in interpreter.get_tensor_details()}
    convolutions = [
        item
        for item in interpreter._get_ops_details()
        if item["op_name"] in ("CONV_2D", "DEPTHWISE_CONV_2D")
    ]
    assert len(convolutions) == 5
    for item in convolutions:
        assert [types[index] for index in item["inputs"]] == [np.int8, np.int8, np.int32]
        assert [types[index] for index in item["outputs"]] == [np.int8]
    interpreter = Interpreter(str(path))
    interpreter.allocate_tensors()
    assert [item["op_name"] for item in interpreter._get_ops_details()].count("DELEGATE") == 1


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_int8_blocks_take_and_give_quantized_values(made, block, runtime):
    path, _ = made(block, runtime)
    inputs, output = quantizations(path)
    # Only what ONNX Runtime has no quantized form of stays float.
    if runtime == "onnxruntime" and isinstance(block, Skip):
        assert not output.scale
    else:
        assert all(item.scale for item in inputs)
        is_float = runtime == "onnxruntime" and block.key.endswith("activation=hard_sigmoid)")
        assert bool(output.scale) != is_float


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_int8_convolutions_have_a_scale_for_each_channel(made, runtime):
    path, _ = made(STRIDED_CONV, runtime)
    if path.suffix == ".onnx":
        graph = onnx.load(path).graph
        shapes = {item.name: tuple(item.dims) for item in graph.initializer}
        types = {item.name: item.data_type for item in graph.initializer}
        (conv,) = [node for node in graph.node if node.op_type == "Conv"]
        (weight,) = [node for node in graph.node if conv.input[1] in node.output]
        assert types[weight.input[0]] == onnx.TensorProto.INT8
        assert shapes[weight.input[1]] == (24,)
    else:
        details = plain_interpreter(path).get_tensor_details()
        (weight,) = [item for item in details if item["shape"].tolist() == [24, 5, 5, 16]]
        assert weight["dtype"] == np.int8
        assert weight["quantization_parameters"]["scales"].shape == (24,)
