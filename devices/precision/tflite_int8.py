"""TFLite models in int8: weights, values between layers, inputs and outputs."""

from __future__ import annotations

from typing import Any

from ..tflite.flatbuffer import SIGNATURE
from .calibration import calibration_inputs
from .silence import silent


def to_int8(tflite: bytes) -> bytes:
    """The float32 model, which has our signature, quantized by ai-edge-quantizer.

    By its recipe for static ranges: int8 weights with a scale for each channel, int8 values; what
    it can't quantize stays float32.
    """
    from ai_edge_litert.interpreter import Interpreter
    from ai_edge_quantizer import quantizer, recipe

    details = Interpreter(model_content=tflite).get_signature_runner(SIGNATURE).get_input_details()
    inputs = [(name, item["shape"].tolist(), item["dtype"]) for name, item in details.items()]
    with silent():
        written = quantizer.Quantizer(bytearray(tflite), recipe.static_wi8_ai8())
        ranges = written.calibrate({SIGNATURE: list(calibration_inputs(inputs))}, num_threads=1)
        quantized: Any = written.quantize(ranges).quantized_model
    return bytes(quantized)
