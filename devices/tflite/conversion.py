"""ONNX in, TFLite out."""

from __future__ import annotations

import onnx

# these register their operators
from . import (  # noqa: F401
    arithmetic,
    convolutions,
    elementwise,
    linear,
    pieces,
    reductions,
    resizing,
    shapes,
    transposed,
    windows,
)
from .patterns import simplify
from .reading import read_graph
from .translation import TRANSLATORS, Translation

COVERED_OPERATORS = tuple(sorted(TRANSLATORS))
"""The ONNX operators that `convert` translates."""


def convert(model: onnx.ModelProto) -> bytes:
    """Write an ONNX model as a TFLite flatbuffer (schema 3), float32, with one signature.

    Inputs and outputs of four dimensions are NHWC; others are as in ONNX. In between, a value is
    stored as the operators that read it want it, and transposed only where they disagree. A
    dynamic batch becomes 1. The signature `serving_default` names inputs and outputs as ONNX does.
    Equal models give equal bytes.

    Activations, batch norms and constant sums are folded into the operators before them; GELU,
    hard swish and hard sigmoid are recognised where exporters write them as several nodes.
    Symmetric padding becomes SAME where that gives the same windows (odd kernels at stride 1, and
    odd sizes at stride 2), else an explicit PAD before VALID.

    Raises `UsageError` where the model is damaged, has another dynamic dimension, or an operator
    that is not among `COVERED_OPERATORS`; `DeviceError` where ai-edge-litert is not installed.
    """
    return Translation(simplify(read_graph(model, COVERED_OPERATORS))).run()
