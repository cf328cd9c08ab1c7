"""A kernel: one operation as a runtime launches it, read off an ONNX node and its shapes."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import onnx
from onnx import TensorProto, helper

from ..devices.errors import UsageError

KernelKind = Literal[
    "conv",
    "pointwise",
    "depthwise",
    "linear",
    "matmul",
    "pool",
    "global_pool",
    "reduce",
    "normalization",
    "softmax",
    "resize",
    "elementwise",
    "copy",
]
"""`conv` is a dense, grouped or transposed convolution of any window; `linear` a product with
weights, `matmul` one of two activations; `reduce` a reduction over any axes."""

CONVOLUTIONS = frozenset({"Conv", "ConvInteger", "ConvTranspose", "FusedConv", "QLinearConv"})
_LINEAR = frozenset(
    {"DynamicQuantizeMatMul", "FusedGemm", "FusedMatMul", "Gemm", "MatMul", "MatMulInteger"}
    | {"MatMulIntegerToFloat", "QGemm", "QLinearMatMul"}
)
_QUANTIZED_WEIGHT = 3
"""The place of the weights where each value has its scale and zero point behind it."""

_POOLS = frozenset({"AveragePool", "LpPool", "MaxPool", "NhwcMaxPool", "QLinearAveragePool"})
_GLOBAL_POOLS = frozenset(
    {"GlobalAveragePool", "GlobalLpPool", "GlobalMaxPool", "QLinearGlobalAveragePool"}
)
_REDUCTIONS = frozenset({"ArgMax", "ArgMin"})
_NORMALIZATIONS = {
    "BatchNormalization": 2,
    "GroupNorm": 7,
    "GroupNormalization": 7,
    "InstanceNormalization": 7,
    "LayerNormalization": 7,
    "LpNormalization": 4,
    "LRN": 8,
    "MeanVarianceNormalization": 7,
    "RMSNormalization": 5,
    "SimplifiedLayerNormalization": 5,
    "SkipLayerNormalization": 8,
}
"""With the operations that each does to an element: statistics, scale and shift."""

_LAST_AXES = frozenset(
    {"LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization"}
    | {"SkipLayerNormalization"}
)
_SOFTMAXES = {"BiasSoftmax": 6, "Hardmax": 2, "LogSoftmax": 5, "QLinearSoftmax": 5, "Softmax": 5}
"""With the operations that each does to an element: maximum, exponential, sum, division."""

_RESIZES = frozenset({"Resize", "Upsample"})
VIEWS = frozenset({"Dropout", "Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze"})
"""Operations that move nothing: their output is their input in another shape."""

_COPIES = frozenset(
    {"Cast", "Concat", "DepthToSpace", "Expand", "Gather", "Pad", "ReorderInput", "ReorderOutput"}
    | {"QLinearConcat", "Slice", "SpaceToDepth", "Split", "Tile", "Transpose"}
)


@dataclass(frozen=True, slots=True)
class Kernel:
    """One operation as runtimes launch it: an ONNX node, with what is fused into it.

    `operation` names the ONNX nodes, as in `Conv+Clip`. `kernel`, `stride`, `dilation` and
    `groups` are a convolution's or a pool's, else ones. `in_channels`, `height` and `width` are
    the input's, `out_channels`, `out_height` and `out_width` the output's, without padding.

    A matrix product has its rows as `height`, what is summed over as `in_channels`, its columns
    as `out_channels`, and a group for each product of a batch. What works along one axis (softmax,
    layer normalization) has that axis as its channels, and all others as its height.

    `layout` is the data layout or the variant that a runtime chose, where it matters: `nchwc`,
    `nhwc`; `view` where nothing is moved; a resize's mode; `rows` or `strided` for a
    transposition that leaves its innermost axis in place or not. Empty: the usual one.
    """

    kind: KernelKind
    operation: str
    flops: int
    weight_bytes: int
    input_bytes: int
    output_bytes: int
    in_channels: int = 1
    out_channels: int = 1
    height: int = 1
    width: int = 1
    out_height: int = 1
    out_width: int = 1
    kernel: tuple[int, ...] = (1, 1)
    stride: tuple[int, ...] = (1, 1)
    groups: int = 1
    dilation: tuple[int, ...] = (1, 1)
    layout: str = ""

    @property
    def moved_bytes(self) -> int:
        """Bytes read and written: inputs, weights, outputs."""
        return self.input_bytes + self.weight_bytes + self.output_bytes


@dataclass(frozen=True, slots=True)
class Value:
    """Shape and element type (ONNX's number) of a value that a node reads or writes."""

    shape: tuple[int, ...]
    element_type: int

    @property
    def elements(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)

    @property
    def size_bytes(self) -> int:
        """How much memory it takes."""
        return math.ceil(self.elements * _element_bytes(self.element_type))


def node_kernel(
    node: onnx.NodeProto,
    values: Mapping[str, Value],
    constants: Collection[str],
    weight_bytes: int,
) -> Kernel:
    """The kernel of one ONNX node, nothing fused into it.

    `values` holds what the node reads and writes, `constants` the names known ahead of time; of
    these, `weight_bytes` are read. Operations of ONNX Runtime's own domains that are an ONNX
    operation with something fused in are known too; any other counts as element-wise, under its
    own name. Raises `UsageError` where a value has no static shape.
    """
    inputs = [
        value_of(node, name, values)
        for name in dict.fromkeys(node.input)
        if name and name not in constants
    ]
    outputs = [value_of(node, name, values) for name in node.output if name]
    last = _int(node, "channels_last", 0) == 1 or node.op_type == "NhwcMaxPool"
    read = image((inputs or outputs)[0].shape, channels_last=last)
    written = image(outputs[0].shape, channels_last=last)
    kernel = Kernel(
        kind="elementwise",
        operation=node.op_type,
        flops=outputs[0].elements,
        weight_bytes=weight_bytes,
        input_bytes=sum(value.size_bytes for value in inputs),
        output_bytes=sum(value.size_bytes for value in outputs),
        in_channels=read[0],
        height=read[1],
        width=read[2],
        out_channels=written[0],
        out_height=written[1],
        out_width=written[2],
        layout="nhwc" if last else "",
    )
    if node.domain not in ("", "ai.onnx", "com.microsoft", "com.microsoft.nchwc"):
        return kernel
    if node.op_type in CONVOLUTIONS:
        return _convolution(node, kernel, values)
    if node.op_type in _LINEAR:
        return _linear(node, kernel, values, constants)
    return _other(node, kernel, (inputs or outputs)[0], outputs[0])


def value_of(node: onnx.NodeProto, name: str, values: Mapping[str, Value]) -> Value:
    """The value of this name; `UsageError` where its shape is not known."""
    if name not in values:
        raise UsageError(
            f"value {name!r} of the {node.op_type} node {node.name!r} has no static shape. "
            "Export the model with fixed input shapes (batch included), or run ONNX shape "
            "inference on it where it holds operations of other domains."
        )
    return values[name]


def _other(node: onnx.NodeProto, kernel: Kernel, source: Value, output: Value) -> Kernel:
    """A kernel that multiplies no matrices."""
    operation = node.op_type
    if operation in _POOLS:
        window = _ints(node, "kernel_shape")
        return replace(
            kernel,
            kind="pool",
            flops=output.elements * math.prod(window),
            kernel=window,
            stride=_ints(node, "strides") or (1,) * len(window),
            dilation=_ints(node, "dilations") or (1,) * len(window),
        )
    if operation in _GLOBAL_POOLS:
        return replace(kernel, kind="global_pool", flops=source.elements)
    if operation in _REDUCTIONS or operation.startswith("Reduce"):
        return replace(kernel, kind="reduce", flops=source.elements)
    if operation in _SOFTMAXES:
        flops = _SOFTMAXES[operation] * source.elements
        kernel = replace(kernel, kind="softmax", flops=flops)
        return along(kernel, source.shape, _int(node, "axis", -1))
    if operation in _NORMALIZATIONS:
        flops = _NORMALIZATIONS[operation] * source.elements
        kernel = replace(kernel, kind="normalization", flops=flops)
        if operation in _LAST_AXES:
            return along(kernel, source.shape, _int(node, "axis", -1))
        return kernel
    if operation in _RESIZES:
        return replace(kernel, kind="resize", layout=_text(node, "mode", "nearest"))
    if operation in VIEWS:
        kernel = replace(kernel, kind="copy", flops=0, layout="view")
        return replace(kernel, weight_bytes=0, input_bytes=0, output_bytes=0)
    if operation in _COPIES:
        moved = transposition(_ints(node, "perm")) if operation == "Transpose" else ""
        return replace(kernel, kind="copy", flops=0, layout=moved)
    return kernel


def _convolution(node: onnx.NodeProto, kernel: Kernel, values: Mapping[str, Value]) -> Kernel:
    place = _QUANTIZED_WEIGHT if node.op_type == "QLinearConv" else 1
    weight = value_of(node, node.input[place], values)
    window, groups = weight.shape[2:], _int(node, "group", 1)
    transposed = node.op_type == "ConvTranspose"
    source = value_of(node, node.input[0], values)
    per_element = math.prod(weight.shape[1:])
    products = (source.elements if transposed else kernel.flops) * per_element
    return replace(
        kernel,
        kind="conv" if transposed else convolution_kind(kernel.in_channels, window, groups),
        flops=2 * products,
        kernel=window,
        stride=_ints(node, "strides") or (1,) * len(window),
        groups=groups,
        dilation=_ints(node, "dilations") or (1,) * len(window),
    )


def _linear(
    node: onnx.NodeProto,
    kernel: Kernel,
    values: Mapping[str, Value],
    constants: Collection[str],
) -> Kernel:
    source, output = (
        value_of(node, node.input[0], values),
        value_of(node, node.output[0], values),
    )
    depth = source.shape[(0 if len(source.shape) == 1 else -2) if _int(node, "transA", 0) else -1]
    quantized = node.op_type in ("QGemm", "QLinearMatMul")
    second = node.input[_QUANTIZED_WEIGHT if quantized else 1]
    rows, groups = math.prod(output.shape[:-1]), 1
    activations = second not in constants
    if activations:
        groups = math.prod(output.shape[:-2])
        rows //= max(groups, 1)
    return replace(
        kernel,
        kind="matmul" if activations else "linear",
        flops=2 * output.elements * depth,
        in_channels=depth,
        out_channels=output.shape[-1] if output.shape else 1,
        height=rows,
        out_height=rows,
        width=1,
        out_width=1,
        groups=groups,
    )


def convolution_kind(in_channels: int, window: Sequence[int], groups: int) -> KernelKind:
    """Which kind a convolution that is not transposed is."""
    if groups > 1 and groups == in_channels:
        return "depthwise"
    return "pointwise" if groups == 1 and math.prod(window) == 1 else "conv"


def along(kernel: Kernel, shape: Sequence[int], axis: int) -> Kernel:
    """The kernel, its channels the elements along `axis`, its height all else."""
    length = shape[axis] if shape else 1
    rows = math.prod(shape) // max(length, 1)
    return replace(
        kernel,
        in_channels=length,
        out_channels=length,
        height=rows,
        out_height=rows,
        width=1,
        out_width=1,
    )


def transposition(order: Sequence[int]) -> str:
    """Whether a transposition moves whole rows, or single elements (see `Kernel.layout`)."""
    return "rows" if order and order[-1] == len(order) - 1 else "strided"


def image(shape: Sequence[int], *, channels_last: bool = False) -> tuple[int, int, int]:
    """Channels, height and width of a value, read as (N, C, H, W) or (N, H, W, C)."""
    padded = (*shape, 1, 1, 1, 1)
    if channels_last:
        return padded[3], padded[1], padded[2]
    return padded[1], padded[2], math.prod(shape[3:])


def _ints(node: onnx.NodeProto, name: str) -> tuple[int, ...]:
    return next((tuple(item.ints) for item in node.attribute if item.name == name), ())


def _int(node: onnx.NodeProto, name: str, default: int) -> int:
    return next((int(item.i) for item in node.attribute if item.name == name), default)


def _text(node: onnx.NodeProto, name: str, default: str) -> str:
    return next((item.s.decode() for item in node.attribute if item.name == name), default)


@lru_cache(maxsize=64)
def _element_bytes(element_type: int) -> float:
    if element_type in (TensorProto.INT4, TensorProto.UINT4):
        return 0.5
    return float(helper.tensor_dtype_to_np_dtype(element_type).itemsize)
