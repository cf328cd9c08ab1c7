"""Every kind of block in float16 computes what it does in float32, but for float16's spacing."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from block_cases import SQUEEZE_EXCITE, STRIDED_CONV
from precision.reference import (
    BLOCKS,
    RUNTIMES,
    as_nchw,
    float32_output,
    plain_interpreter,
    real_inputs,
    reference_outputs,
    timed_outputs,
    write_block,
)

FLOAT16 = 2.0**-10
"""Spacing of float16 just above 1."""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Writes a block in a precision; gives the file, and its float32 ONNX model."""
    folder = tmp_path_factory.mktemp("models")

    def make(block, runtime, precision="float16"):
        return write_block(block, runtime, precision, folder)

    return make


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_float16_is_float32_but_for_its_spacing(made, block, runtime):
    path, float_path = made(block, runtime)
    (given,) = timed_outputs(path, runtime)
    (reference,) = reference_outputs(path)
    assert given.dtype == reference.dtype == (np.float16 if path.suffix == ".onnx" else np.float32)
    expected = float32_output(float_path, real_inputs(path))
    largest = max(1.0, float(np.abs(expected).max()))
    wide = as_nchw(given, path).astype(np.float32).reshape(expected.shape)
    assert np.abs(wide - expected).max() <= 2 * FLOAT16 * largest
    assert np.abs(given.astype(np.float32) - reference.astype(np.float32)).max() <= (
        2 * FLOAT16 * largest
    )


def test_float16_onnx_holds_nothing_of_float32(made):
    path, _ = made(SQUEEZE_EXCITE, "onnxruntime")
    graph = onnx.load(path).graph
    values = [*graph.input, *graph.output, *graph.value_info]
    types = {item.type.tensor_type.elem_type for item in values}
    types |= {item.data_type for item in graph.initializer}
    assert types == {onnx.TensorProto.FLOAT16}
    assert "Cast" not in {node.op_type for node in graph.node}


def test_float16_tflite_has_weights_of_half_the_size_that_xnnpack_takes(made):
    from ai_edge_litert.interpreter import Interpreter

    path, _ = made(STRIDED_CONV, "litert")
    wide, _ = made(STRIDED_CONV, "litert", "float32")
    weights = 24 * 16 * 5 * 5
    saved = wide.stat().st_size - path.stat().st_size
    assert 2 * weights - 1000 < saved < 2 * weights + 1000
    interpreter = plain_interpreter(path)
    names = [item["op_name"] for item in interpreter._get_ops_details()]
    assert names.count("DEQUANTIZE") == 2
    types = [item["dtype"] for item in interpreter.get_tensor_details()]
    assert types.count(np.float16) == 2
    interpreter = Interpreter(str(path))
    interpreter.allocate_tensors()
    assert [item["op_name"] for item in interpreter._get_ops_details()].count("DELEGATE") == 1


def test_float16_tflite_says_that_values_may_be_float16_too(made):
    from ai_edge_litert import schema_py_generated as schema

    path, _ = made(STRIDED_CONV, "litert")
    model = schema.ModelT.InitFromPackedBuf(bytearray(path.read_bytes()), 0)
    (note,) = [item for item in model.metadata if item.name == b"reduced_precision_support"]
    assert bytes(model.buffers[note.buffer].data) == b"fp16accfp16"
    for number, buffer in enumerate(model.buffers):
        place = path.read_bytes().find(b"" if buffer.data is None else bytes(buffer.data))
        assert buffer.data is None or len(buffer.data) < 64 or place % 16 == 0, number


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_torch_computes_the_float16_file_as_onnxruntime_does(made, block):
    torch = pytest.importorskip("torch")
    from latkit.devices.cuda.torch_session import TorchSession

    path, _ = made(block, "onnxruntime")
    session = TorchSession(torch, path, "cpu")
    session.run()
    (given,), (expected,) = session.outputs(), reference_outputs(path)
    assert given.dtype == expected.dtype == np.float16
    largest = max(1.0, float(np.abs(expected).max()))
    assert np.abs(given.astype(np.float32) - expected.astype(np.float32)).max() <= (
        4 * FLOAT16 * largest
    )
