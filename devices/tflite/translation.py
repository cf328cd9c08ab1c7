"""One conversion in progress: what each ONNX value became, and how it lies there.

ONNX keeps images as NCHW, TFLite as NHWC. What translators ask for decides: a convolution asks for
its image as NHWC, a matrix product for features last, an activation takes a value as it lies. A
TRANSPOSE is written where a value is not stored as it is asked for, once for each such order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..errors import UsageError
from .flatbuffer import FlatbufferWriter, int32, schema
from .graph import Array, Graph, Node, Shape
from .layout import (
    Order,
    View,
    lying_order,
    move,
    narrowed,
    nearest_order,
    onnx_order,
    outer_order,
    view_of,
    widened,
)

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


class Translation:
    """The graph that is read, the model that is written, and what translators share."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.writer = FlatbufferWriter()
        self.schema = schema()
        self.absorbed: set[Node] = set()
        """Nodes that an earlier node's translation has done along with its own."""
        self._views: dict[str, list[View]] = {}

    def run(self) -> bytes:
        """Translate all nodes and write the model."""
        graph = self.graph
        inputs = []
        for name in graph.inputs:
            order = outer_order(len(graph.shape(name)))
            inputs.append((name, self.result(name, order)))
        for node in graph.nodes:
            if node not in self.absorbed:
                TRANSLATORS[node.op](self, node)
        return self.writer.finish(inputs, [(name, self._outer(name)) for name in graph.outputs])

    def _outer(self, name: str) -> int:
        """The tensor of one of the model's outputs, of that name and no other's."""
        shape = self.graph.shape(name)
        order = outer_order(len(shape))
        tensor = self.tensor(name, order)
        if self.writer.name(tensor) == name and name not in self.graph.inputs:
            return tensor
        return self.reshape_stored(name, tensor, tuple(shape[axis] for axis in order), name)

    # Values as they are asked for

    def view(self, name: str) -> View:
        """A computed value as it lies, its axes stored apart from each other if they are anywhere.

        Raises `UsageError` where no earlier node gives it, and for constants.
        """
        views = self._views.get(name)
        if views is None:
            if name in self.graph.constants:
                raise UsageError(f"{name!r} of the ONNX model is constant; a value is needed there")
            raise UsageError(f"the ONNX model reads {name!r}, which no earlier node gives")
        return next((view for view in views if lying_order(view) is not None), views[0])

    def view_in(self, name: str, order: Order) -> View:
        """A computed value, its axes stored in this order."""
        tensor = self.tensor(name, order)
        return next(view for view in self._views[name] if view.tensor == tensor)

    def order(self, name: str) -> Order:
        """The order in which a value's axes are stored, or are moved to with the least work."""
        if name in self.graph.constants:
            return onnx_order(self.graph.constants[name].ndim)
        view = self.view(name)
        return lying_order(view) or nearest_order(view)

    def tensor(self, name: str, order: Order) -> int:
        """The tensor that holds an ONNX value, constant or not, its axes stored in this order."""
        if name in self.graph.constants:
            return self.constant(name, self.graph.constants[name].transpose(order))
        self.view(name)  # refuses unknown values
        views = self._views[name]
        for view in views:
            if view.stored_in(order):
                return view.tensor
        target = tuple(views[0].shape[axis] for axis in order)
        outer = name in self.graph.outputs and order == outer_order(len(order))
        label = name if outer else f"{name}/{''.join(map(str, order))}"
        for view in views:
            if view.lies_in(order):
                tensor = self.reshape_stored(label, view.tensor, target)
                break
        else:
            tensor = self._moved(label, views[0], order)
        views.append(view_of(tensor, views[0].shape, order))
        return tensor

    def _moved(self, label: str, view: View, order: Order) -> int:
        """Write the operators that bring a view into an order."""
        steps = move(view, order)
        tensor = view.tensor
        if steps.before is not None:
            tensor = self.reshape_stored(f"{label}/split", tensor, steps.before)
        between = label if steps.after is None else f"{label}/moved"
        tensor = self.transpose_stored(between, tensor, steps.axes, steps.between)
        if steps.after is not None:
            tensor = self.reshape_stored(label, tensor, steps.after)
        return tensor

    def common_order(self, names: Sequence[str], shape: Shape) -> Order:
        """The order for an operator that reads several values at once, with the least to move.

        `shape` is that of the result, to which the values are broadcast.
        """
        rank = len(shape)
        values = [name for name in names if name not in self.graph.constants]
        largest = max((math.prod(self.graph.shape(name)) for name in values), default=0)
        whole = [name for name in values if math.prod(self.graph.shape(name)) == largest]
        orders = [order for name in whole for order in self._orders(name)]
        orders = orders or [self.order(name) for name in whole] or [outer_order(rank)]
        candidates = list(dict.fromkeys(widened(order, rank) for order in orders))

        def moved(order: Order) -> tuple[int, bool]:
            count = sum(
                not any(view.lies_in(narrowed(order, view.shape)) for view in self._views[name])
                for name in whole
            )
            return count, order != outer_order(rank)

        return min(candidates, key=moved)

    def _orders(self, name: str) -> list[Order]:
        orders = [lying_order(view) for view in self._views[name]]
        return [order for order in orders if order is not None]

    def broadcast(self, name: str, order: Order) -> int:
        """A value as an operand of a result that is stored in `order`.

        A value that only lacks outer dimensions stays as it is; a constant is given them.
        """
        shape, rank = self.graph.shape(name), len(order)
        missing = rank - len(shape)
        if name in self.graph.constants:
            array = self.graph.constants[name]
            if array.ndim:
                array = array.reshape((1,) * missing + array.shape).transpose(order)
            return self.constant(name, array)
        tensor = self.tensor(name, narrowed(order, shape))
        stored = tuple(shape[axis - missing] if axis >= missing else 1 for axis in order)
        outer_alone = all(axis < missing for axis in order[:missing])
        if not shape or outer_alone:
            return tensor
        return self.reshape_stored(f"{name}/{rank}d", tensor, stored)

    # Values that are written

    def result(self, name: str, order: Order) -> int:
        """A new tensor for an ONNX value, its axes stored in this order."""
        shape = self.graph.shape(name)
        inner = name in self.graph.outputs and order != outer_order(len(shape))
        stored = tuple(shape[axis] for axis in order)
        tensor = self.writer.value(f"{name}/inner" if inner else name, stored)
        self._views[name] = [view_of(tensor, shape, order)]
        return tensor

    def result_like(self, name: str, view: View) -> int:
        """A new tensor for a value of another value's shape, which lies as that one does."""
        tensor = self.writer.value(name, view.stored)
        self._views[name] = [replace(view, tensor=tensor)]
        return tensor

    def describe(self, name: str, view: View) -> None:
        """Let an ONNX value be a view of what is there already."""
        self._views[name] = [view]

    def between(self, name: str, stored: Sequence[int]) -> int:
        """A new tensor of this stored shape, for a value that ONNX does not have."""
        return self.writer.value(name, stored)

    def constant(self, name: str, array: Array | np.floating[Any] | float) -> int:
        """A float32 constant, stored as it is given."""
        values = np.asarray(array)
        if values.dtype.kind != "f":
            raise UsageError(f"{name!r} of the ONNX model is {values.dtype}; float32 is needed")
        return self.writer.constant(name, values.astype(np.float32))

    def integers(self, name: str, values: Any) -> int:
        """An int32 constant: axes, shapes, paddings."""
        return self.writer.constant(name, int32(values))

    def reshape_stored(
        self, name: str, value: int, shape: Sequence[int], label: str | None = None
    ) -> int:
        """RESHAPE to a stored shape, into a new tensor."""
        new_shape = int32(shape)
        inputs = [value, self.integers(f"{name}/shape", new_shape)]
        result = self.between(label or name, shape)
        self.writer.operator("RESHAPE", inputs, [result], "Reshape", newShape=new_shape)
        return result

    def transpose_stored(
        self, name: str, value: int, order: Sequence[int], shape: Sequence[int]
    ) -> int:
        """TRANSPOSE stored axes, into a new tensor."""
        inputs = [value, self.integers(f"{name}/axes", order)]
        result = self.between(name, shape)
        self.writer.operator("TRANSPOSE", inputs, [result], "Transpose")
        return result

    # What nodes say

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

    def axes(self, node: Node, index: int = 1) -> list[int] | None:
        """The axes that a node names, counted from the front; `None` where it names none."""
        given = self.setting(node, "axes", index)
        rank = len(self.graph.shape(node.inputs[0]))
        return None if given is None else [int(axis) % rank for axis in given.reshape(-1)]

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
