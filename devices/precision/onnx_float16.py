"""ONNX models in float16: weights, values between layers, inputs and outputs."""

from __future__ import annotations

import onnx

from .silence import silent


def to_float16(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of `model` in float16, by ONNX Runtime's own converter; `model` stays as it is.

    Operators that have no float16 form in ONNX Runtime stay in float32, between casts. Weights
    beyond float16's range are cut to it: latency does not depend on their values.
    """
    from onnxruntime.transformers.float16 import convert_float_to_float16

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    with silent():  # It warns of every weight that it rounds to zero or cuts.
        converted: onnx.ModelProto = convert_float_to_float16(copy, keep_io_types=False)
    return converted
