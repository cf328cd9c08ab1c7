"""Runs an ONNX graph with torch."""

from .program import TorchProgram, translate

__all__ = ["TorchProgram", "translate"]
