"""What XNNPACK makes of single TFLite operators: which it takes, and what it calls them."""

from __future__ import annotations

import math

from .tflite import Operator

CLAMPS = frozenset({"RELU", "RELU6", "RELU_0_TO_1", "RELU_N1_TO_1"})
"""Activations that XNNPACK has as a clamp."""

RESHAPE = "Static Reshape"
SQUARE = "Square"
TRANSPOSE = "Transpose Transpose"
LARGEST_DEPTHWISE = 25
"""Taps of the largest window that has a depthwise kernel; a larger one runs as IGEMM."""

MOST_CONCATENATED, MOST_SPLIT = 5, 4
"""The most inputs of a concatenation, and outputs of a split, that are taken."""

FOLDS_CLAMP = frozenset(
    {
        "Average Pooling Average Pooling",
        "Average Pooling Pixelwise Average Pooling",
        "Clamp",
        "Convolution DWConv",
        "Convolution IGEMM",
        "Deconvolution IGEMM",
        "Deconvolution Subconv2D",
        "Fully Connected GEMM",
        "Max Pooling",
    }
)
"""Kernels that a clamp after them becomes a part of."""

"""Kernels that a clamp after them becomes a part of."""

_NAMES = {
    "ABS": "Abs",
    "ADD": "Add",
    "BATCH_MATMUL": "Batch Matrix Multiply GEMM",
    "CEIL": "Ceiling",
    "CONCATENATION": "Copy",
    "DEQUANTIZE": "Convert",
    "COS": "Cosine",
    "DEPTH_TO_SPACE": "Depth To Space Transpose",
    "DIV": "Divide",
    "ELU": "ELU",
    "EXP": "Exp",
    "FLOOR": "Floor",
    "FULLY_CONNECTED": "Fully Connected GEMM",
    "GELU": "GELU",
    "HARD_SWISH": "HardSwish",
    "LEAKY_RELU": "LeakyReLU",
    "LOG": "Log",
    "LOGISTIC": "Sigmoid",
    "MAXIMUM": "Maximum",
    "MEAN": "Mean Reduce2",
    "MINIMUM": "Minimum",
    "MUL": "Multiply",
    "NEG": "Negate",
    "PAD": "Constant Pad",
    "PRELU": "PReLU",
    "REDUCE_MAX": "Reduce Max Reduce",
    "REDUCE_MIN": "Reduce Min Reduce",
    "RELU": "Clamp",
    "RELU6": "Clamp",
    "RELU_0_TO_1": "Clamp",
    "RELU_N1_TO_1": "Clamp",
    "QUANTIZE": "Convert",
    "RESHAPE": "Static Reshape",
    "RESIZE_BILINEAR": "Resize Bilinear",
    "ROUND": "Bankders Rounding",
    "RSQRT": "Reciprocal Square Root",
    "SIN": "Sine",
    "SLICE": "Slice",
    "SOFTMAX": "Softmax",
    "SPACE_TO_DEPTH": "Space To Depth Transpose",
    "SPLIT": "Copy",
    "SQRT": "Square Root",
    "SQUARE": "Square",
    "SQUARED_DIFFERENCE": "Squared Difference",
    "STRIDED_SLICE": "Slice",
    "SUB": "Subtract",
    "SUM": "Sum Reduce2",
    "TANH": "TanH",
    "TRANSPOSE": "Transpose Transpose",
}
"""What most operators are called, whatever their shapes."""

EIGHT_BITS = ("int8", "uint8")
_BINARY = frozenset({"ADD", "DIV", "MAXIMUM", "MINIMUM", "MUL", "SQUARED_DIFFERENCE", "SUB"})
_FUNCTIONS = frozenset(
    {"ABS", "CEIL", "ELU", "EXP", "FLOOR", "GELU", "LEAKY_RELU", "LOG", "LOGISTIC", "NEG"}
    | {"QUANTIZE", "ROUND", "RSQRT", "SQRT", "SQUARE", "TANH", *CLAMPS}
)
"""Operators of one value; of 8-bit ones a chain of them becomes a table."""

_FLOAT_ONLY = frozenset({"AVERAGE_POOL_2D", "BATCH_MATMUL", "HARD_SWISH", "RSQRT", "SOFTMAX"})
"""Operators that are taken for floating-point values alone, of those tried."""

_WINDOWED = frozenset(
    {"AVERAGE_POOL_2D", "CONV_2D", "DEPTHWISE_CONV_2D", "MAX_POOL_2D", "TRANSPOSE_CONV"}
)


def is_delegated(operator: Operator) -> bool:
    """Whether XNNPACK takes an operator; the interpreter runs what it does not."""
    types = {tensor.dtype for tensor in operator.read()}
    if operator.kind not in _NAMES.keys() | _WINDOWED or types & {"int32", "int64"}:
        return False
    if operator.kind in _FLOAT_ONLY and types & {*EIGHT_BITS}:
        return False
    if operator.activation not in {"NONE", *CLAMPS}:
        return False
    match operator.kind:
        case "AVERAGE_POOL_2D" | "MAX_POOL_2D":
            size, step = operator.pool_window, operator.stride
            return math.prod(size) > 1 or math.prod(step) == 1
        case "CONCATENATION":
            return len(operator.inputs) <= MOST_CONCATENATED
        case "SPLIT":
            return len(operator.outputs) <= MOST_SPLIT
        case "SOFTMAX":
            return bool(operator.option("beta", 1.0) == 1)
        case "SLICE":
            return all(tensor.values and min(tensor.values) >= 0 for tensor in operator.constants())
        case "STRIDED_SLICE":
            strides = operator.inputs[3]
            masks = ("ellipsisMask", "newAxisMask", "shrinkAxisMask")
            return (
                strides is not None
                and set(strides.values) == {1}
                and not any(operator.option(mask, 0) for mask in masks)
            )
        case "TRANSPOSE_CONV":
            window, stride = operator.window, operator.stride
            return all(taps >= step for taps, step in zip(window, stride, strict=True))
        case _:
            return True


def is_function(operator: Operator) -> bool:
    """Whether an operator that is taken applies a function to single 8-bit values."""
    values = operator.read()
    if any(item.dtype not in EIGHT_BITS for item in (*values, *operator.outputs)):
        return False
    if operator.kind in _BINARY:
        return operator.squares or (len(values) == 1 and operator.constants()[0].elements == 1)
    return operator.kind in _FUNCTIONS


def operator_name(operator: Operator) -> str:
    """What XNNPACK calls the kernel of an operator that it takes, without element types."""
    match operator.kind:
        case "CONV_2D" | "DEPTHWISE_CONV_2D":
            return _convolution_name(operator)
        case "AVERAGE_POOL_2D" | "MAX_POOL_2D":
            return _pool_name(operator)
        case "TRANSPOSE_CONV":
            return f"Deconvolution {'Subconv2D' if max(operator.stride) > 1 else 'IGEMM'}"
        case "GELU" if operator.option("approximate", False):
            return "ApproxGELU"
        case "MUL" if operator.squares:
            return SQUARE
        case "MEAN" | "SUM" if operator.given(0).dtype in EIGHT_BITS:
            return _NAMES[operator.kind].removesuffix("2")
        case _:
            return _NAMES[operator.kind]


def variant(operator: Operator) -> str:
    """Which of several kernels for the same work XNNPACK takes; empty where it has one."""
    name = operator_name(operator)
    if name.startswith(("Convolution", "Deconvolution")) or operator.kind == "CONV_2D":
        return name.split()[-1].lower()
    return "pixelwise" if "Pixelwise" in name else ""


def _convolution_name(operator: Operator) -> str:
    window, stride, groups = operator.window, operator.stride, operator.groups
    channels = operator.outputs[0].shape[-1]
    if operator.kind == "CONV_2D" and groups == 1 and math.prod((*window, *stride)) == 1:
        return "Fully Connected GEMM"
    if channels == groups and operator.given(0).shape[-1] == groups:
        small = math.prod(window) <= LARGEST_DEPTHWISE
        return "Convolution DWConv" if small else "Convolution IGEMM"
    return "Convolution IGEMM"


def _pool_name(operator: Operator) -> str:
    if math.prod(operator.pool_window) == 1:
        return "Copy"
    if operator.kind == "MAX_POOL_2D":
        return "Max Pooling"
    padded = "Pixelwise " if operator.same_padding else ""
    return f"Average Pooling {padded}Average Pooling"
