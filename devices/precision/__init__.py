"""Writing models in float16 and int8, in the form that each runtime has for it."""

from .conversion import described, made_by, onnx_in, tflite_in
from .probe import convolution_runs_as

__all__ = ["convolution_runs_as", "described", "made_by", "onnx_in", "tflite_in"]
