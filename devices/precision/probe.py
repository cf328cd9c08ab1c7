"""What ONNX Runtime makes of a convolution in another precision on this host's processor."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..device import Precision
from ..runtimes import onnx_session_options
from .conversion import onnx_in

if TYPE_CHECKING:
    import onnx

CHANNELS = 16
PIXELS = 8
PROVIDERS = ["CPUExecutionProvider"]


def convolution_runs_as(precision: Precision, machine: str) -> str:
    """The operators, in order, that ONNX Runtime runs for a 3x3 convolution: `Cast, Conv, Cast`.

    Casts around it say that the processor provider computes it in float32, as it does with
    float16 where it has no such kernel; `QLinearConv` says integers.
    """
    import onnx
    import onnxruntime

    with tempfile.TemporaryDirectory(prefix="latkit-") as folder:
        optimized = Path(folder) / "optimized.onnx"
        options = onnx_session_options(onnxruntime, 1)
        options.optimized_model_filepath = str(optimized)
        content = onnx_in(_convolution(), precision, machine).SerializeToString()
        onnxruntime.InferenceSession(content, options, providers=PROVIDERS)
        return ", ".join(node.op_type for node in onnx.load(optimized).graph.node)


def _convolution() -> onnx.ModelProto:
    from onnx import TensorProto, helper, numpy_helper

    shape = [1, CHANNELS, PIXELS, PIXELS]
    given, made = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in "xy")
    values = np.linspace(-1, 1, CHANNELS * CHANNELS * 9, dtype=np.float32)
    weight = numpy_helper.from_array(values.reshape(CHANNELS, CHANNELS, 3, 3), "weight")
    node = helper.make_node("Conv", ["x", "weight"], ["y"], pads=[1, 1, 1, 1])
    graph = helper.make_graph([node], "convolution", [given], [made], [weight])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
