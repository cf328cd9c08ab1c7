"""Blocks of every kind, and what a file of any precision says that they compute."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime
from block_cases import EXAMPLES, INT8_UNSETTLED, VARIATIONS
from latkit.devices.convert import prepare
from latkit.devices.runtimes import ONNX_DTYPES, find_runtime, numbered_input
from latkit.latency.onnx_model import build_onnx
from onnx import numpy_helper

BLOCKS = [
    *VARIATIONS,
    *(block for block in EXAMPLES if type(block) not in {*map(type, VARIATIONS), *INT8_UNSETTLED}),
]
"""A block or more of every kind whose int8 form is settled."""
RUNTIMES = ("onnxruntime", "litert")


@dataclass
class Quantization:
    """How an input or output is quantized; a scale of 0 where it is float."""

    scale: float
    zero_point: int

    def real(self, values):
        wide = np.asarray(values, np.float64)
        return (wide - self.zero_point) * self.scale if self.scale else wide


def timed_outputs(path, runtime):
    session = find_runtime(runtime).load(path, 1)
    session.run()
    return session.outputs()


def onnx_inputs(session):
    return {
        item.name: numbered_input(number, item.name, item.shape, ONNX_DTYPES[item.type])
        for number, item in enumerate(session.get_inputs())
    }


def plain_session(path):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def plain_interpreter(path):
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    interpreter = Interpreter(
        str(path), experimental_op_resolver_type=OpResolverType.BUILTIN_REF, num_threads=1
    )
    interpreter.allocate_tensors()
    return interpreter


def tflite_inputs(interpreter):
    return [
        numbered_input(number, item["name"], item["shape"].tolist(), item["dtype"])
        for number, item in enumerate(interpreter.get_input_details())
    ]


def reference_outputs(path):
    """What the file says: by the runtime's reference kernels, nothing optimised or delegated."""
    if path.suffix == ".onnx":
        session = plain_session(path)
        return session.run(None, onnx_inputs(session))
    interpreter = plain_interpreter(path)
    for item, values in zip(
        interpreter.get_input_details(), tflite_inputs(interpreter), strict=True
    ):
        interpreter.set_tensor(item["index"], values)
    interpreter.invoke()
    return [interpreter.get_tensor(item["index"]) for item in interpreter.get_output_details()]


def quantizations(path):
    """Of all inputs, in order, and of the output."""
    if path.suffix == ".tflite":
        interpreter = plain_interpreter(path)
        items = [*interpreter.get_input_details(), *interpreter.get_output_details()]
        *inputs, output = (Quantization(*map(float, item["quantization"])) for item in items)
        return inputs, output
    graph = onnx.load(path).graph
    values = {item.name: numpy_helper.to_array(item) for item in graph.initializer}

    def of(name):
        for node in graph.node:
            if node.op_type == "DequantizeLinear" and node.input[0] == name:
                return Quantization(*(float(values[item]) for item in node.input[1:3]))
            if node.op_type == "QuantizeLinear" and node.output[0] == name:
                return Quantization(*(float(values[item]) for item in node.input[1:3]))
        return Quantization(0, 0)

    return [of(item.name) for item in graph.input], of(graph.output[0].name)


def quantized_values(path):
    """How many values the file quantizes: each rounds once."""
    if path.suffix == ".onnx":
        return sum(node.op_type == "QuantizeLinear" for node in onnx.load(path).graph.node) + 1
    interpreter = plain_interpreter(path)
    return sum(len(item["outputs"]) for item in interpreter._get_ops_details())


def float32_output(path, inputs):
    """What the float32 ONNX model gives for these values."""
    session = plain_session(path)
    names = [item.name for item in session.get_inputs()]
    (output,) = session.run(None, dict(zip(names, inputs, strict=True)))
    return output


def real_inputs(path):
    """The values that a file is timed with, as real numbers, NCHW."""
    inputs, _ = quantizations(path)
    if path.suffix == ".onnx":
        values = list(onnx_inputs(plain_session(path)).values())
    else:
        values = tflite_inputs(plain_interpreter(path))
        values = [item.transpose(0, 3, 1, 2) if item.ndim == 4 else item for item in values]
    return [item.real(value).astype(np.float32) for item, value in zip(inputs, values, strict=True)]


def as_nchw(output, path):
    return output.transpose(0, 3, 1, 2) if path.suffix == ".tflite" and output.ndim == 4 else output


def write_block(block, runtime, precision, folder):
    """The file of a block in a precision, and its float32 ONNX model."""
    path = folder / f"{BLOCKS.index(block)}.onnx"
    if not path.exists():
        onnx.save(build_onnx(block), path)
    return prepare(path, runtime, folder, precision=precision), path
