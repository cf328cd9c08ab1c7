"""Writing TFLite models from ONNX models."""

from .conversion import COVERED_OPERATORS, convert

__all__ = ["COVERED_OPERATORS", "convert"]
