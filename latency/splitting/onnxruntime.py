"""What ONNX Runtime runs: its optimized graph, joined to the shapes that its profiler tells."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import onnx
from onnx import TensorProto, helper

from ...devices.errors import DeviceError, UsageError
from ...devices.per_op import OperationTime, OperationTimes
from ...devices.profiled import Shaped
from ..counts import Kernel, count, inferred_values
from ..kernels import Value, image, node_kernel

BLOCKED_DOMAIN = "com.microsoft.nchwc"
"""Operations on images whose channels come in blocks of 8 or 16, the last one padded."""

CAST_PREFIX = "InsertedPrecisionFreeCast_"
"""What the runtime puts before the name of a value that it computes in another precision."""

_BLOCKED_NAME = re.compile(r"(?P<value>.*)_nchwc(_token_\d+)?")
"""The runtime calls a blocked convolution after the value that it made before."""

_SUM_INPUT = 3
"""The input of a convolution in ONNX Runtime's own domains that is added to its result."""


def fused_kernels(model: onnx.ModelProto) -> tuple[Kernel, ...]:
    """The kernels of a model by plain ONNX fusions, where the runtime itself can't be asked."""
    return count(model).kernels


def executed_kernels(
    optimized: onnx.ModelProto, original: onnx.ModelProto, times: OperationTimes
) -> tuple[Kernel, ...]:
    """The kernel of each operation in `times`, in that order.

    `optimized` is the graph that the runtime wrote, `original` the model that it was given.
    Raises `DeviceError` where the profile is not of that graph, `UsageError` where the model holds
    other graphs (loops, branches): what runs there depends on the values.
    """
    nodes = list(optimized.graph.node)
    for node in nodes:
        if any(item.type in (item.GRAPH, item.GRAPHS) for item in node.attribute):
            raise UsageError(
                f"the {node.op_type} node {node.name!r} holds a graph of its own, and what it "
                "runs depends on the model's values; export the model without control flow"
            )
    named = {(node.name, node.op_type): node for node in nodes}
    ran = [named.get((item.name, item.kind)) for item in times.operations]
    if len(named) < len(nodes) or None in ran:  # nodes without names: both are in the same order
        ran = [*nodes]
    kinds = [node.op_type for node in ran if node is not None]
    if len(ran) != len(nodes) or kinds != [item.kind for item in times.operations]:
        raise DeviceError(
            f"ONNX Runtime's profile names {len(times.operations)} operations, its optimized "
            f"graph has {len(nodes)}; this version's profiles can't be read, use onnxruntime 1.31"
        )
    reader = _Reader(optimized, original, times.inputs)
    pairs = zip(ran, times.operations, strict=True)
    return tuple(reader.kernel(node, told) for node, told in pairs if node is not None)


class _Reader:
    """Walks the optimized graph in the order it runs; knows each value's true shape."""

    def __init__(
        self,
        optimized: onnx.ModelProto,
        original: onnx.ModelProto,
        inputs: Sequence[tuple[str, Shaped]],
    ) -> None:
        constants = optimized.graph.initializer
        self._constants = {item.name: Value(tuple(item.dims), item.data_type) for item in constants}
        self._values: dict[str, Value] = dict(self._constants)
        self._values |= {
            name: Value(shape, helper.np_dtype_to_tensor_dtype(np.dtype(kind)))
            for name, (kind, shape) in inputs
        }
        self._original = inferred_values(original)
        self._blocked: set[str] = set()
        """Values that lie in blocks of channels."""

    def kernel(self, node: onnx.NodeProto, told: OperationTime) -> Kernel:
        """The kernel of the next node, by what the profiler told of it."""
        names = [name for name in node.output if name]
        if len(names) != len(told.outputs):
            raise DeviceError(
                f"ONNX Runtime's profile has {len(told.outputs)} outputs for {node.name!r}, the "
                f"graph has {len(names)}; this version's profiles can't be read"
            )
        for name, (kind, shape) in zip(names, told.outputs, strict=True):
            self._values[name] = Value(shape, TensorProto.DataType.Value(kind.upper()))
        self._note_blocks(node)
        kernel = node_kernel(*self._plain(node))
        if _is_channels_last(node):
            return self._reordered(node, kernel)
        return _with_fused(node, kernel, self._values[names[0]].elements)

    def _reordered(self, node: onnx.NodeProto, kernel: Kernel) -> Kernel:
        """A reordering between blocks and channels that come last: it is a transposition too."""
        blocked = node.input[0] if node.op_type == "ReorderOutput" else node.output[0]
        channels, height, width = image(self._values[blocked].shape)
        return replace(
            kernel,
            in_channels=channels,
            out_channels=channels,
            height=height,
            out_height=height,
            width=width,
            out_width=width,
            layout="nhwc",
        )

    def _note_blocks(self, node: onnx.NodeProto) -> None:
        """Mark the node's outputs as blocked where they are, and take their padding away."""
        if node.op_type == "ReorderOutput":
            return
        read = [name for name in node.input if name in self._blocked]
        if node.domain != BLOCKED_DOMAIN and not read:
            return
        for name in filter(None, node.output):
            value = self._values[name]
            channels = self._true_channels(node, read, value)
            shape = (value.shape[0], channels, *value.shape[2:])
            self._values[name] = Value(shape, value.element_type)
            self._blocked.add(name)

    def _true_channels(self, node: onnx.NodeProto, read: Sequence[str], value: Value) -> int:
        """Channels of a blocked output that the model has; all of them where that is not known."""
        if node.op_type == "Conv":
            named = _BLOCKED_NAME.fullmatch(node.name)
            made = named["value"].removeprefix(CAST_PREFIX) if named else ""
            return self._original.get(made, value).shape[1]
        if node.op_type == "Concat":
            return sum(self._values[name].shape[1] for name in read)
        source = self._values[read[0] if read else node.input[0]]
        return source.shape[-1 if _is_channels_last(node) else 1]

    def _plain(
        self, node: onnx.NodeProto
    ) -> tuple[onnx.NodeProto, Mapping[str, Value], Mapping[str, Value], int]:
        """The node with its values, its constants and their bytes, without padding."""
        values, constants = self._values, self._constants
        if node.domain == BLOCKED_DOMAIN and node.op_type == "Conv":
            node, weights = self._unpadded(node)
            values, constants = values | weights, constants | weights
        weight_bytes = sum(
            constants[name].size_bytes for name in dict.fromkeys(node.input) if name in constants
        )
        return node, values, constants, weight_bytes

    def _unpadded(self, node: onnx.NodeProto) -> tuple[onnx.NodeProto, dict[str, Value]]:
        """A blocked convolution as if its channels were not padded, and its weights' shapes."""
        weight = self._values[node.input[1]]
        read, written = (self._values[name].shape[1] for name in (node.input[0], node.output[0]))
        groups = next((int(item.i) for item in node.attribute if item.name == "group"), 1)
        if groups > 1 and weight.shape[1] == 1:
            groups = written
        plain = onnx.NodeProto()
        plain.CopyFrom(node)
        for item in plain.attribute:
            if item.name == "group":
                item.i = groups
        per_group = max(read // groups, 1)
        shape = (written, per_group, *weight.shape[2:])
        weights = {node.input[1]: Value(shape, weight.element_type)}
        if len(node.input) > 2 and node.input[2]:
            weights[node.input[2]] = Value((written,), weight.element_type)
        return plain, weights


def _is_channels_last(node: onnx.NodeProto) -> bool:
    """Whether a reordering reads or writes values whose channels come last."""
    return any(item.name == "channels_last" and item.i for item in node.attribute)


def _with_fused(node: onnx.NodeProto, kernel: Kernel, elements: int) -> Kernel:
    """The kernel with what the runtime fused into the node, and its layout."""
    operation, flops = kernel.operation.removeprefix("Fused"), kernel.flops
    fused = []
    if kernel.operation in ("Conv", "FusedConv") and len(node.input) > _SUM_INPUT:
        fused.append("Add")
    fused += [item.s.decode() for item in node.attribute if item.name == "activation" and item.s]
    layout = "nchwc" if node.domain == BLOCKED_DOMAIN else kernel.layout
    return replace(
        kernel,
        operation="+".join([operation, *fused]),
        flops=flops + len(fused) * elements,
        layout=layout,
    )
