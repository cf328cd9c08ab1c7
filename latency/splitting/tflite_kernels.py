"""The kernel of a TFLite operator: its work and shapes, whoever runs it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from ..kernels import Kernel, along, convolution_kind, transposition
from .tflite import IMAGE_RANK, Operator

_OPERATIONS = {
    "ABS": "Abs",
    "ADD": "Add",
    "AVERAGE_POOL_2D": "AveragePool",
    "BATCH_MATMUL": "MatMul",
    "BROADCAST_TO": "Expand",
    "CAST": "Cast",
    "CEIL": "Ceil",
    "CONCATENATION": "Concat",
    "CONV_2D": "Conv",
    "COS": "Cos",
    "DEPTHWISE_CONV_2D": "Conv",
    "DEQUANTIZE": "DequantizeLinear",
    "DEPTH_TO_SPACE": "DepthToSpace",
    "DIV": "Div",
    "ELU": "Elu",
    "EXP": "Exp",
    "EXPAND_DIMS": "Unsqueeze",
    "FLOOR": "Floor",
    "FULLY_CONNECTED": "Gemm",
    "GATHER": "Gather",
    "GELU": "Gelu",
    "HARD_SWISH": "HardSwish",
    "LEAKY_RELU": "LeakyRelu",
    "LOG": "Log",
    "LOGISTIC": "Sigmoid",
    "LOG_SOFTMAX": "LogSoftmax",
    "MAXIMUM": "Max",
    "MAX_POOL_2D": "MaxPool",
    "MEAN": "ReduceMean",
    "MINIMUM": "Min",
    "MIRROR_PAD": "Pad",
    "MUL": "Mul",
    "NEG": "Neg",
    "PACK": "Concat",
    "PAD": "Pad",
    "PADV2": "Pad",
    "PRELU": "PRelu",
    "QUANTIZE": "QuantizeLinear",
    "REDUCE_MAX": "ReduceMax",
    "REDUCE_MIN": "ReduceMin",
    "RELU": "Relu",
    "RELU6": "Clip",
    "RELU_0_TO_1": "Clip",
    "RELU_N1_TO_1": "Clip",
    "RESHAPE": "Reshape",
    "RESIZE_BILINEAR": "Resize",
    "RESIZE_NEAREST_NEIGHBOR": "Resize",
    "ROUND": "Round",
    "RSQRT": "Rsqrt",
    "SIN": "Sin",
    "SLICE": "Slice",
    "SOFTMAX": "Softmax",
    "SPACE_TO_DEPTH": "SpaceToDepth",
    "SPLIT": "Split",
    "SPLIT_V": "Split",
    "SQRT": "Sqrt",
    "SQUARE": "Square",
    "SQUARED_DIFFERENCE": "SquaredDifference",
    "SQUEEZE": "Squeeze",
    "STRIDED_SLICE": "Slice",
    "SUB": "Sub",
    "SUM": "ReduceSum",
    "TANH": "Tanh",
    "TILE": "Tile",
    "TRANSPOSE": "Transpose",
    "TRANSPOSE_CONV": "ConvTranspose",
    "UNPACK": "Split",
}
"""What ONNX calls the operators that it has too."""

_COPIES = frozenset(
    {
        "BROADCAST_TO",
        "CAST",
        "CONCATENATION",
        "DEPTH_TO_SPACE",
        "GATHER",
        "MIRROR_PAD",
        "PACK",
        "PAD",
        "PADV2",
        "RESHAPE",
        "SLICE",
        "SPACE_TO_DEPTH",
        "SPLIT",
        "SPLIT_V",
        "STRIDED_SLICE",
        "TILE",
        "TRANSPOSE",
        "UNPACK",
    }
)
_VIEWS = frozenset({"EXPAND_DIMS", "SQUEEZE"})
"""Operators that move nothing. (`RESHAPE` copies where XNNPACK runs it.)"""


def operator_kernel(operator: Operator) -> Kernel:
    """The kernel of an operator, whoever runs it; one that isn't known counts as element-wise."""
    kind = operator.kind
    special: dict[str, Callable[[Operator, Kernel], Kernel]] = {
        "CONV_2D": _convolution,
        "DEPTHWISE_CONV_2D": _convolution,
        "TRANSPOSE_CONV": _transposed,
        "FULLY_CONNECTED": _linear,
        "BATCH_MATMUL": _linear,
        "AVERAGE_POOL_2D": _pooling,
        "MAX_POOL_2D": _pooling,
        "SOFTMAX": _softmax,
        "LOG_SOFTMAX": _softmax,
        "TRANSPOSE": _transposition,
        **dict.fromkeys(("MEAN", "REDUCE_MAX", "REDUCE_MIN", "SUM"), _reduction),
    }
    plain = _plain(operator)
    return special[kind](operator, plain) if kind in special else plain


def clamp_kernel(operator: Operator) -> Kernel:
    """The kernel of the activation that an element-wise operator has besides."""
    output = operator.outputs[0]
    channels, height, width = _image(output.shape)
    return Kernel(
        kind="elementwise",
        operation=_OPERATIONS[operator.activation],
        flops=output.elements,
        weight_bytes=0,
        input_bytes=output.size_bytes,
        output_bytes=output.size_bytes,
        in_channels=channels,
        out_channels=channels,
        height=height,
        width=width,
        out_height=height,
        out_width=width,
    )


def _plain(operator: Operator) -> Kernel:
    """An element-wise operation, a copy or a resize, by the tensors read and written."""
    read, written = operator.read(), operator.outputs
    source, output = (read or list(written))[0], written[0]
    channels, height, width = _image(source.shape)
    out_channels, out_height, out_width = _image(output.shape)
    kernel = Kernel(
        kind="elementwise",
        operation="Square" if operator.squares else _OPERATIONS.get(operator.kind, operator.kind),
        flops=output.elements,
        weight_bytes=sum(tensor.size_bytes for tensor in operator.constants()),
        input_bytes=sum(tensor.size_bytes for tensor in read),
        output_bytes=sum(tensor.size_bytes for tensor in written),
        in_channels=channels,
        out_channels=out_channels,
        height=height,
        width=width,
        out_height=out_height,
        out_width=out_width,
    )
    if operator.kind.startswith("RESIZE"):
        mode = "linear" if operator.kind == "RESIZE_BILINEAR" else "nearest"
        return replace(kernel, kind="resize", weight_bytes=0, layout=mode)
    if operator.kind in _VIEWS:
        kernel = replace(kernel, kind="copy", flops=0, layout="view")
        return replace(kernel, weight_bytes=0, input_bytes=0, output_bytes=0)
    if operator.kind in _COPIES:
        return replace(kernel, kind="copy", flops=0)
    return kernel


def _with_activation(operator: Operator, kernel: Kernel) -> Kernel:
    """The kernel with the activation that the operator applies itself."""
    if operator.activation == "NONE":
        return kernel
    fused = _OPERATIONS.get(operator.activation, operator.activation.capitalize())
    return replace(
        kernel,
        operation=f"{kernel.operation}+{fused}",
        flops=kernel.flops + operator.outputs[0].elements,
    )


def _convolution(operator: Operator, kernel: Kernel) -> Kernel:
    window, groups = operator.window, operator.groups
    per_output = math.prod(window) * kernel.in_channels // groups
    return _with_activation(
        operator,
        replace(
            kernel,
            kind=convolution_kind(kernel.in_channels, window, groups)
            if kernel.in_channels == kernel.out_channels or groups == 1
            else "conv",
            flops=2 * kernel.flops * per_output,
            kernel=window,
            stride=operator.stride,
            groups=groups,
            dilation=operator.dilation,
        ),
    )


def _transposed(operator: Operator, kernel: Kernel) -> Kernel:
    window = operator.window
    pixels = kernel.height * kernel.width
    products = pixels * math.prod(window) * kernel.in_channels * kernel.out_channels
    return _with_activation(
        operator,
        replace(
            kernel,
            kind="conv",
            flops=2 * products,
            kernel=window,
            stride=operator.stride,
        ),
    )


def _linear(operator: Operator, kernel: Kernel) -> Kernel:
    first, second = operator.given(0), operator.given(1)
    output = operator.outputs[0]
    depth = first.shape[-2 if operator.option("adjX", False) else -1]
    if operator.kind == "FULLY_CONNECTED":
        depth = second.shape[-1]
    rows, groups = math.prod(output.shape[:-1]), 1
    if not second.constant:
        groups = math.prod(output.shape[:-2])
        rows //= max(groups, 1)
    return _with_activation(
        operator,
        replace(
            kernel,
            kind="linear" if second.constant else "matmul",
            flops=2 * output.elements * depth,
            in_channels=depth,
            out_channels=output.shape[-1],
            height=rows,
            out_height=rows,
            width=1,
            out_width=1,
            groups=groups,
        ),
    )


def _pooling(operator: Operator, kernel: Kernel) -> Kernel:
    window = operator.pool_window
    return _with_activation(
        operator,
        replace(
            kernel,
            kind="pool",
            flops=kernel.flops * math.prod(window),
            kernel=window,
            stride=operator.stride,
        ),
    )


def _reduction(operator: Operator, kernel: Kernel) -> Kernel:
    source, axes = operator.given(0), operator.given(1)
    rank = len(source.shape)
    kernel = replace(kernel, flops=source.elements, weight_bytes=0)
    if rank == IMAGE_RANK and {axis % rank for axis in axes.values} == {1, 2}:
        operation = {"MEAN": "GlobalAveragePool", "REDUCE_MAX": "GlobalMaxPool"}
        found = operation.get(operator.kind, kernel.operation)
        return replace(kernel, kind="global_pool", operation=found)
    return replace(kernel, kind="reduce")


def _softmax(operator: Operator, kernel: Kernel) -> Kernel:
    source = operator.given(0)
    return along(replace(kernel, kind="softmax", flops=5 * source.elements), source.shape, -1)


def _transposition(operator: Operator, kernel: Kernel) -> Kernel:
    return replace(kernel, weight_bytes=0, layout=transposition(operator.given(1).values))


def _image(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Channels, height and width: an image has its channels last, other values as in ONNX."""
    if len(shape) == IMAGE_RANK:
        return shape[3], shape[1], shape[2]
    padded = (*shape, 1, 1, 1)
    return padded[1], padded[2], math.prod(shape[3:])
