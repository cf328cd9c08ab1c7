"""Work of a model, read off its ONNX graph in one pass: FLOPs, parameters, bytes, kernels.

What counts as work:

- convolution and linear layer: 2 FLOPs a multiply-accumulate, padding included, bias not;
- element-wise operation, fused or not: 1 FLOP an output element, whatever the function;
- pooling: 1 FLOP an element of each window; a reduction: 1 FLOP an input element;
- what only moves data (concatenation, transposition, ...): none, only its bytes;
- what a runtime does ahead of time (views, shapes, anything made of constants alone): nothing.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import numpy as np
import onnx
from onnx import TensorProto, helper, shape_inference

from ..devices.errors import UsageError
from .blocks import Block
from .network import Network
from .onnx_model import build_onnx, parameter_shapes, subject_graph

KernelKind = Literal[
    "conv", "pointwise", "depthwise", "linear", "pool", "global_pool", "elementwise", "copy"
]
"""`conv` is a dense or grouped convolution of any window, `linear` a matrix product."""

FUSED = frozenset({"BatchNormalization", "Clip", "Relu"})
"""Operations that become part of the convolution before them, if nothing else reads it."""

_CONVOLUTIONS = frozenset({"Conv", "ConvInteger", "ConvTranspose", "QLinearConv"})
_LINEAR = frozenset({"Gemm", "MatMul", "MatMulInteger", "QLinearMatMul"})
_POOLS = frozenset({"AveragePool", "LpPool", "MaxPool"})
_REDUCTIONS = frozenset({"GlobalAveragePool", "GlobalLpPool", "GlobalMaxPool"})
_VIEWS = frozenset({"Dropout", "Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze"})
_COPIES = frozenset(
    {"Cast", "Concat", "DepthToSpace", "Expand", "Gather", "Pad", "Slice", "SpaceToDepth", "Split"}
    | {"Tile", "Transpose"}
)
_SMALL = 64
"""Constants of up to this many elements may be shapes, which shape inference has to read."""


@dataclass(frozen=True, slots=True)
class Kernel:
    """One operation as runtimes launch it: an ONNX node, with what is fused into it.

    `operation` names the ONNX nodes, as in `Conv+Clip`. `kernel`, `stride` and `groups` are a
    convolution's or a pool's, else ones. `in_channels`, `height` and `width` are the input's,
    `out_channels`, `out_height` and `out_width` the output's.
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

    @property
    def moved_bytes(self) -> int:
        """Bytes read and written: inputs, weights, outputs."""
        return self.input_bytes + self.weight_bytes + self.output_bytes


@dataclass(frozen=True, slots=True)
class Counts:
    """Totals of a model. `parameters` and `weight_bytes` count what is shared once.

    `parameters` are all constants that kernels read, but for scalars and integer shapes.
    `moved_bytes` is the kernels' sum: what would pass through memory were nothing cached.
    """

    flops: int
    parameters: int
    weight_bytes: int
    moved_bytes: int
    kernels: tuple[Kernel, ...]


@lru_cache(maxsize=200_000)
def block_counts(block: Block) -> Counts:
    """Counts of one block; about 1 ms the first time, then remembered."""
    return _subject_counts(block)


@lru_cache(maxsize=1_000)
def network_counts(network: Network) -> Counts:
    """Counts of a network of blocks."""
    return _subject_counts(network)


def _subject_counts(subject: Block | Network) -> Counts:
    graph = subject_graph(subject)
    zero = np.float32(0)
    weights = {
        name: np.broadcast_to(zero, shape) for name, shape in parameter_shapes(graph).items()
    }
    return count(build_onnx(graph, weights))


def count(model: onnx.ModelProto) -> Counts:
    """Counts of an ONNX model; every shape in it must be static.

    An operation that is not known here counts as element-wise, under its own name. Raises
    `UsageError` where a value has no static shape.
    """
    return _Counter(model).counts()


@dataclass(frozen=True, slots=True)
class _Value:
    """Shape and element type of a value that a node reads or writes."""

    shape: tuple[int, ...]
    element_type: int

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    @property
    def size_bytes(self) -> int:
        return math.ceil(self.elements * _element_bytes(self.element_type))


@dataclass(frozen=True, slots=True)
class _Constant:
    """A value known ahead of time, and the initializers that it was made from."""

    sources: frozenset[str]


class _Counter:
    """Walks the nodes of one model in the order they run."""

    def __init__(self, model: onnx.ModelProto) -> None:
        graph = model.graph
        self._nodes = list(graph.node)
        self._initializers = {
            tensor.name: _Value(tuple(tensor.dims), tensor.data_type)
            for tensor in graph.initializer
        }
        self._constants = {name: _Constant(frozenset({name})) for name in self._initializers}
        self._values: dict[str, _Value] = _infer(model) | self._initializers
        self._outputs = {value.name for value in graph.output}
        self._uses = Counter(name for node in self._nodes for name in node.input)
        self._used: set[str] = set()

    def counts(self) -> Counts:
        kernels: list[Kernel] = []
        made_by: dict[str, int] = {}
        for node in self._nodes:
            if self._is_constant(node):
                continue
            if node.op_type in _VIEWS:
                self._read_constants(node.input[:1])
                continue
            producer = made_by.get(node.input[0]) if node.input else None
            if producer is not None and self._fuses(node, kernels[producer]):
                kernels[producer] = self._fused(kernels[producer], node)
                made_by[node.output[0]] = producer
                continue
            made_by[node.output[0]] = len(kernels)
            kernels.append(self._kernel(node))
        return Counts(
            flops=sum(kernel.flops for kernel in kernels),
            parameters=sum(self._parameters(name) for name in self._used),
            weight_bytes=self._constant_bytes(self._used),
            moved_bytes=sum(kernel.moved_bytes for kernel in kernels),
            kernels=tuple(kernels),
        )

    def _is_constant(self, node: onnx.NodeProto) -> bool:
        """Whether the node's outputs are known before the model runs; notes it if so."""
        inputs = [name for name in node.input if name]
        known = all(name in self._constants for name in inputs) and node.op_type in (
            {"Constant", "ConstantOfShape", "Range"} if not inputs else {node.op_type}
        )
        if not known and node.op_type not in ("Shape", "Size"):
            return False
        sources: frozenset[str] = frozenset()
        if known:
            sources = sources.union(*(self._constants[name].sources for name in inputs))
        if node.op_type == "Constant" and node.output[0] in self._values:
            self._initializers[node.output[0]] = self._values[node.output[0]]
            sources = frozenset({node.output[0]})
        self._constants |= {name: _Constant(sources) for name in node.output}
        return True

    def _fuses(self, node: onnx.NodeProto, producer: Kernel) -> bool:
        return (
            node.op_type in FUSED
            and producer.operation.split("+")[0] in _CONVOLUTIONS
            and producer.operation.split("+")[-1] not in ("Clip", "Relu")
            and self._uses[node.input[0]] == 1
            and node.input[0] not in self._outputs
        )

    def _fused(self, kernel: Kernel, node: onnx.NodeProto) -> Kernel:
        folded = node.op_type == "BatchNormalization"
        return replace(
            kernel,
            operation=f"{kernel.operation}+{node.op_type}",
            flops=kernel.flops + (0 if folded else self._value(node, node.output[0]).elements),
            weight_bytes=kernel.weight_bytes + self._read_constants(node.input),
        )

    def _kernel(self, node: onnx.NodeProto) -> Kernel:
        weight_bytes = self._read_constants(node.input)
        inputs = [
            self._value(node, name)
            for name in dict.fromkeys(node.input)
            if name and name not in self._constants
        ]
        outputs = [self._value(node, name) for name in node.output if name]
        read, written = _image((inputs or outputs)[0].shape), _image(outputs[0].shape)
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
        )
        if node.domain not in ("", "ai.onnx"):
            return kernel
        if node.op_type in _CONVOLUTIONS:
            return self._convolution(node, kernel)
        if node.op_type in _LINEAR:
            return self._linear(node, kernel, outputs[0])
        if node.op_type in _POOLS:
            window, stride = _window(node)
            flops = outputs[0].elements * math.prod(window)
            return replace(kernel, kind="pool", flops=flops, kernel=window, stride=stride)
        if node.op_type in _REDUCTIONS or node.op_type.startswith("Reduce"):
            return replace(kernel, kind="global_pool", flops=inputs[0].elements)
        if node.op_type in _COPIES:
            return replace(kernel, kind="copy", flops=0)
        return kernel

    def _convolution(self, node: onnx.NodeProto, kernel: Kernel) -> Kernel:
        weight = self._value(node, node.input[3 if node.op_type == "QLinearConv" else 1])
        window, stride = weight.shape[2:], _ints(node, "strides")
        groups = _attribute(node, "group", 1)
        transposed = node.op_type == "ConvTranspose"
        source = self._value(node, node.input[0])
        per_element = math.prod(weight.shape[1:])
        products = (source.elements if transposed else kernel.flops) * per_element
        kind: KernelKind = "conv"
        if groups > 1 and groups == kernel.in_channels:
            kind = "depthwise"
        elif groups == 1 and math.prod(window) == 1:
            kind = "pointwise"
        return replace(
            kernel,
            kind=kind,
            flops=2 * products,
            kernel=window,
            stride=stride or (1,) * len(window),
            groups=groups,
        )

    def _linear(self, node: onnx.NodeProto, kernel: Kernel, output: _Value) -> Kernel:
        source = self._value(node, node.input[0])
        depth = source.shape[0 if _attribute(node, "transA", 0) else -1]
        return replace(
            kernel,
            kind="linear",
            flops=2 * output.elements * depth,
            in_channels=depth,
            out_channels=output.shape[-1] if output.shape else 1,
            height=math.prod(output.shape[:-1]),
            out_height=math.prod(output.shape[:-1]),
            width=1,
            out_width=1,
        )

    def _value(self, node: onnx.NodeProto, name: str) -> _Value:
        if name not in self._values:
            raise UsageError(
                f"value {name!r} of the {node.op_type} node {node.name!r} has no static shape. "
                "Export the model with fixed input shapes (batch included), or run ONNX shape "
                "inference on it where it holds operations of other domains."
            )
        return self._values[name]

    def _read_constants(self, names: Iterable[str]) -> int:
        """Bytes of the constants among `names`, which are then known to be used."""
        sources = {
            source
            for name in names
            if name in self._constants
            for source in self._constants[name].sources
        }
        self._used |= sources
        return self._constant_bytes(sources)

    def _constant_bytes(self, names: Iterable[str]) -> int:
        return sum(self._initializers[name].size_bytes for name in names)

    def _parameters(self, name: str) -> int:
        constant = self._initializers[name]
        shape_like = constant.element_type in (TensorProto.INT64, TensorProto.BOOL)
        return 0 if shape_like or not constant.shape else constant.elements


def _infer(model: onnx.ModelProto) -> dict[str, _Value]:
    """Static values of a graph by name. Large constants are left out of what is inferred on."""
    lean = onnx.ModelProto()
    lean.ir_version = model.ir_version
    lean.opset_import.extend(model.opset_import)
    lean.functions.extend(model.functions)
    graph, source = lean.graph, model.graph
    graph.name = source.name
    graph.node.extend(source.node)
    graph.input.extend(source.input)
    graph.output.extend(source.output)
    graph.value_info.extend(source.value_info)
    inputs = {value.name for value in source.input}
    for tensor in source.initializer:
        if math.prod(tensor.dims) <= _SMALL:
            graph.initializer.append(tensor)
        elif tensor.name not in inputs:
            graph.input.append(
                helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            )
    try:
        inferred = shape_inference.infer_shapes(lean, data_prop=True).graph
    except shape_inference.InferenceError as error:
        raise UsageError(f"the shapes of the ONNX model don't fit together: {error}") from error
    values = {}
    for value in (*inferred.input, *inferred.value_info, *inferred.output):
        tensor_type = value.type.tensor_type
        dimensions = tensor_type.shape.dim
        if tensor_type.HasField("shape") and all(d.HasField("dim_value") for d in dimensions):
            shape = tuple(d.dim_value for d in dimensions)
            values[value.name] = _Value(shape, tensor_type.elem_type)
    return values


def _image(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Channels, height and width of a value, read as (N, C, H, W)."""
    padded = (*shape, 1, 1, 1, 1)
    return padded[1], padded[2], math.prod(shape[3:])


def _window(node: onnx.NodeProto) -> tuple[tuple[int, ...], tuple[int, ...]]:
    window = _ints(node, "kernel_shape")
    return window, _ints(node, "strides") or (1,) * len(window)


def _ints(node: onnx.NodeProto, name: str) -> tuple[int, ...]:
    return next((tuple(item.ints) for item in node.attribute if item.name == name), ())


def _attribute(node: onnx.NodeProto, name: str, default: int) -> int:
    return next((int(item.i) for item in node.attribute if item.name == name), default)


@lru_cache(maxsize=64)
def _element_bytes(element_type: int) -> float:
    if element_type in (TensorProto.INT4, TensorProto.UINT4):
        return 0.5
    return float(helper.tensor_dtype_to_np_dtype(element_type).itemsize)
