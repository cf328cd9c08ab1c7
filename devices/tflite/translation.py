"""One conversion in progress: what each ONNX value became, and how its layout changed.

ONNX keeps images as NCHW, TFLite as NHWC. Every value of four dimensions is stored as NHWC here,
all others as they are: "stored" shapes, axes and arrays are those of the TFLite model.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..errors import UsageError
from .flatbuffer import FlatbufferWriter, int32, schema
from .graph import Array, Graph, Node, Shape

IMAGE_RANK = 4
TO_NHWC = (0, 2, 3, 1)
TO_NCHW = (0, 3, 1, 2)

Translator = Callable[["Translation", Node], None]
TRANSLATORS: dict[str, Translator] = {}
"""How each covered ONNX operator is translated."""

FUSED_CLIPS: dict[tuple[float, float] | None, str] = {
    (0, math.inf): "RELU",
    (0, 6): "RELU6",
    (-1, 1): "RELU_N1_TO_1",
}
"""Activations that operators can apply themselves, by the bounds that they clip to."""


def translates(*ops: str) -> Callable[[Translator], Translator]:
    """Register the decorated function as the translator of these ONNX operators."""

    def register(translator: Translator) -> Translator:
        TRANSLATORS.update(dict.fromkeys(ops, translator))
        return translator

    return register


def stored_order(rank: int) -> tuple[int, ...]:
    """The ONNX axis that each stored axis is."""
    return TO_NHWC if rank == IMAGE_RANK else tuple(range(rank))


def stored_axis(axis: int, rank: int) -> int:
    """Where an ONNX axis is stored; negative ones count from the end."""
    return stored_order(rank).index(axis % rank)


def stored_shape(shape: Shape) -> Shape:
    """The shape that a value of an ONNX shape is stored with."""
    return tuple(shape[axis] for axis in stored_order(len(shape)))


def stored_array(array: Array) -> Array:
    """An ONNX constant as it is stored."""
    return np.ascontiguousarray(array.transpose(stored_order(array.ndim)))


def same_order(shape: Shape) -> bool:
    """Whether the elements of a value lie in one order in ONNX and as stored."""
    return len(shape) != IMAGE_RANK or shape[1] == 1 or shape[2] * shape[3] == 1


class Translation:
    """The graph that is read, the model that is written, and what translators share."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.writer = FlatbufferWriter()
        self.schema = schema()
        self.absorbed: set[Node] = set()
        """Nodes that an earlier node's translation has done along with its own."""
        self.stored_flat: dict[str, Shape] = {}
        """Flattened values left in stored order, by the (channels, height, width) they had."""
        self._tensors: dict[str, int] = {}

    def run(self) -> bytes:
        """Translate all nodes and write the model."""
        graph = self.graph
        inputs = [(name, self.output(name)) for name in graph.inputs]
        for node in graph.nodes:
            if node not in self.absorbed:
                TRANSLATORS[node.op](self, node)
        return self.writer.finish(inputs, [(name, self.tensor(name)) for name in graph.outputs])

    def tensor(self, name: str) -> int:
        """The tensor that holds an ONNX value: computed before, or a float32 constant."""
        if name not in self._tensors:
            if name not in self.graph.constants:
                raise UsageError(f"the ONNX model reads {name!r}, which no earlier node gives")
            self._tensors[name] = self.constant(name, stored_array(self.graph.constants[name]))
        return self._tensors[name]

    def output(self, name: str) -> int:
        """A new tensor for an ONNX value, in its stored shape."""
        self._tensors[name] = self.writer.value(name, self.stored_shape(name))
        return self._tensors[name]

    def alias(self, name: str, tensor: int) -> None:
        """Let an ONNX value be a tensor that is there already."""
        self._tensors[name] = tensor

    def stored_shape(self, name: str) -> Shape:
        """The shape that an ONNX value is stored with."""
        return stored_shape(self.graph.shape(name))

    def between(self, name: str, shape: Sequence[int]) -> int:
        """A new tensor of this stored shape, for a value that ONNX does not have."""
        return self.writer.value(name, shape)

    def constant(self, name: str, array: Array | np.floating[Any] | float) -> int:
        """A float32 constant in its stored layout."""
        values = np.asarray(array)
        if values.dtype.kind != "f":
            raise UsageError(f"{name!r} of the ONNX model is {values.dtype}; float32 is needed")
        return self.writer.constant(name, values.astype(np.float32))

    def integers(self, name: str, values: Any) -> int:
        """An int32 constant: axes, shapes, paddings."""
        return self.writer.constant(name, int32(values))

    def host_constant(self, node: Node, index: int, what: str) -> Array:
        """The values of an input that has to be constant."""
        name = node.inputs[index] if index < len(node.inputs) else ""
        if name not in self.graph.constants:
            raise UsageError(f"{what} of {node} is not constant; TFLite needs a constant there")
        return self.graph.constants[name]

    def setting(self, node: Node, attribute: str, index: int) -> Array | None:
        """What older opsets give as an attribute and newer ones as a constant input."""
        if attribute in node.attributes:
            return np.asarray(node.attributes[attribute])
        if index < len(node.inputs) and node.inputs[index]:
            return self.host_constant(node, index, attribute)
        return None

    def reshape(
        self, name: str, value: int, before: Shape, after: Shape, result: int | None = None
    ) -> int:
        """Reshape a stored value from one ONNX shape to another, in ONNX's order of elements."""
        if before != after and not same_order(before):
            value = self.transpose_stored(f"{name}/nchw", value, TO_NCHW, before)
        if before != after and not same_order(after):
            value = self.reshape_stored(f"{name}/nchw", value, after)
            return self.transpose_stored(name, value, TO_NHWC, stored_shape(after), result)
        return self.reshape_stored(name, value, stored_shape(after), result)

    def reshape_stored(self, name: str, value: int, shape: Shape, result: int | None = None) -> int:
        """RESHAPE to a stored shape, into a new tensor if not into `result`."""
        new_shape = int32(shape)
        inputs = [value, self.integers(f"{name}/shape", new_shape)]
        result = self.between(name, shape) if result is None else result
        self.writer.operator("RESHAPE", inputs, [result], "Reshape", newShape=new_shape)
        return result

    def transpose_stored(
        self, name: str, value: int, order: Sequence[int], shape: Shape, result: int | None = None
    ) -> int:
        """TRANSPOSE stored axes, into a new tensor if not into `result`."""
        inputs = [value, self.integers(f"{name}/axes", order)]
        result = self.between(name, shape) if result is None else result
        self.writer.operator("TRANSPOSE", inputs, [result], "Transpose")
        return result

    def fused_activation(self, name: str) -> tuple[int, str]:
        """The activation that the operator giving `name` can apply itself, and the value it gives.

        The activation's own node is absorbed. Without one: no activation, and `name`.
        """
        reader = self.graph.only_reader(name)
        if reader is not None and reader.inputs[0] == name:
            activation = FUSED_CLIPS.get(self.clip_bounds(reader))
            if activation is not None:
                self.absorbed.add(reader)
                return self._activation(activation), reader.outputs[0]
        return self._activation("NONE"), name

    def _activation(self, name: str) -> int:
        kind: int = getattr(self.schema.ActivationFunctionType, name)
        return kind

    def clip_bounds(self, node: Node) -> tuple[float, float] | None:
        """Lowest and highest value that a Relu or Clip lets through; `None` for other nodes."""
        if node.op == "Relu":
            return (0.0, math.inf)
        if node.op != "Clip":
            return None
        low, high = self.setting(node, "min", 1), self.setting(node, "max", 2)
        limits = np.finfo(np.float32)
        lowest = -math.inf if low is None or low <= limits.min else float(low)
        highest = math.inf if high is None or high >= limits.max else float(high)
        return (lowest, highest)
