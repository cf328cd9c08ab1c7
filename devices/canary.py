"""The canary: a fixed small network, timed beside every batch, that tells whether the device moved.

What it computes does not matter; that it never changes does. It takes some hundred microseconds
and has both arithmetic and memory traffic in it, as the blocks that it stands beside.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .files import write_atomically

if TYPE_CHECKING:
    import onnx

SIZE = 32
CHANNELS = (3, 32, 64, 64)
STRIDES = (1, 2, 1)
CLASSES = 10


def build_canary() -> onnx.ModelProto:
    """The canary as an ONNX model: three 3x3 convolutions, global average pool, classifier."""
    from onnx import TensorProto, helper, numpy_helper

    random = np.random.default_rng(20)
    initializers = []
    nodes = []

    def parameter(name: str, *shape: int) -> str:
        values = random.standard_normal(shape, dtype=np.float32) * np.float32(0.05)
        initializers.append(numpy_helper.from_array(values, name))
        return name

    value = "input"
    for index, stride in enumerate(STRIDES):
        read, written = CHANNELS[index], CHANNELS[index + 1]
        weight = parameter(f"weight{index}", written, read, 3, 3)
        bias = parameter(f"bias{index}", written)
        nodes.append(
            helper.make_node(
                "Conv",
                [value, weight, bias],
                [f"conv{index}"],
                kernel_shape=[3, 3],
                strides=[stride, stride],
                pads=[1, 1, 1, 1],
                group=1,
            )
        )
        nodes.append(helper.make_node("Relu", [f"conv{index}"], [f"relu{index}"]))
        value = f"relu{index}"
    nodes.append(helper.make_node("GlobalAveragePool", [value], ["pooled"]))
    nodes.append(helper.make_node("Flatten", ["pooled"], ["flat"]))
    weight = parameter("classifier_weight", CLASSES, CHANNELS[-1])
    bias = parameter("classifier_bias", CLASSES)
    nodes.append(helper.make_node("Gemm", ["flat", weight, bias], ["output"], transB=1))
    shape = [1, CHANNELS[0], SIZE, SIZE]
    graph = helper.make_graph(
        nodes,
        "canary",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, CLASSES])],
        initializers,
    )
    opsets = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8, producer_name="latkit")


def canary_file(cache: Path) -> Path:
    """The canary's .onnx file in `cache`, written where it isn't there."""
    content = build_canary().SerializeToString(deterministic=True)
    path = cache / "canary.onnx"
    if not path.is_file() or path.read_bytes() != content:
        write_atomically(path, content)
    return path
