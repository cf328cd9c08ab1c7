"""Work of a model, read off its ONNX graph in one pass: FLOPs, parameters, bytes, kernels.

What counts as work:

- convolution and linear layer: 2 FLOPs a multiply-accumulate, padding included, bias not;
- element-wise operation, fused or not: 1 FLOP an output element, whatever the function;
- pooling: 1 FLOP an element of each window; a reduction: 1 FLOP an input element;
- softmax and normalization: the few FLOPs an element that their definitions have;
- what only moves data (concatenation, transposition, ...): none, only its bytes;
- what a runtime does ahead of time (views, shapes, anything made of constants alone): nothing.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import onnx
from onnx import TensorProto, helper, shape_inference

from ..devices.errors import UsageError
from .blocks import Block
from .kernels import CONVOLUTIONS, VIEWS, Kernel, KernelKind, Value, node_kernel, value_of
from .network import Network
from .onnx_model import build_onnx, parameter_shapes, subject_graph

__all__ = [
    "FUSED",
    "Counts",
    "Kernel",
    "KernelKind",
    "block_counts",
    "count",
    "inferred_values",
    "network_counts",
]

FUSED = frozenset({"BatchNormalization", "Clip", "Relu"})
"""Operations that become part of the convolution before them, if nothing else reads it."""

_SMALL = 64
"""Constants of up to this many elements may be shapes, which shape inference has to read."""


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
    one = np.float32(1)
    weights = {name: np.broadcast_to(one, shape) for name, shape in parameter_shapes(graph).items()}
    return count(build_onnx(graph, weights))


def count(model: onnx.ModelProto) -> Counts:
    """Counts of an ONNX model; every shape in it must be static.

    An operation that is not known here counts as element-wise, under its own name. Raises
    `UsageError` where a value has no static shape.
    """
    return _Counter(model).counts()


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
            tensor.name: Value(tuple(tensor.dims), tensor.data_type) for tensor in graph.initializer
        }
        self._constants = {name: _Constant(frozenset({name})) for name in self._initializers}
        self._values: dict[str, Value] = inferred_values(model) | self._initializers
        self._outputs = {value.name for value in graph.output}
        self._uses = Counter(name for node in self._nodes for name in node.input)
        self._used: set[str] = set()

    def counts(self) -> Counts:
        kernels: list[Kernel] = []
        made_by: dict[str, int] = {}
        for node in self._nodes:
            if self._is_constant(node):
                continue
            if node.op_type in VIEWS:
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
            and producer.operation.split("+")[0] in CONVOLUTIONS
            and producer.operation.split("+")[-1] not in ("Clip", "Relu")
            and self._uses[node.input[0]] == 1
            and node.input[0] not in self._outputs
        )

    def _fused(self, kernel: Kernel, node: onnx.NodeProto) -> Kernel:
        folded = node.op_type == "BatchNormalization"
        return replace(
            kernel,
            operation=f"{kernel.operation}+{node.op_type}",
            flops=kernel.flops
            + (0 if folded else value_of(node, node.output[0], self._values).elements),
            weight_bytes=kernel.weight_bytes + self._read_constants(node.input),
        )

    def _kernel(self, node: onnx.NodeProto) -> Kernel:
        return node_kernel(node, self._values, self._constants, self._read_constants(node.input))

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


def inferred_values(model: onnx.ModelProto) -> dict[str, Value]:
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
            values[value.name] = Value(shape, tensor_type.elem_type)
    return values
