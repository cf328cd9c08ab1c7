"""Primitive operations and the small graphs they form: what every realisation is made from.

A block writes itself into an `OpGraph` once. ONNX and torch both read that graph, so the two
realisations can't disagree about structure, names or shapes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from ..devices.errors import UsageError

Activation = Literal["none", "relu", "relu6", "swish", "hard_swish", "sigmoid", "hard_sigmoid"]
PoolKind = Literal["max", "average"]
Shape = tuple[int, ...]
"""Shape of a value without its batch: (channels, height, width), or (features,)."""


@dataclass(frozen=True, slots=True)
class Conv:
    """2-D convolution with symmetric padding `kernel // 2`, then batch norm and activation.

    Weight: (out_channels, in_channels / groups, kernel, kernel). With `batch_norm` the exported
    form carries it folded into weight and bias; without, the convolution has a bias of its own.
    """

    name: str
    in_channels: int
    out_channels: int
    kernel: int = 1
    stride: int = 1
    groups: int = 1
    batch_norm: bool = True
    activation: Activation = "none"


@dataclass(frozen=True, slots=True)
class Linear:
    """Fully connected layer with bias. Weight: (out_features, in_features)."""

    name: str
    in_features: int
    out_features: int


@dataclass(frozen=True, slots=True)
class Activate:
    """An element-wise activation on its own."""

    activation: Activation


@dataclass(frozen=True, slots=True)
class Pool:
    """Window pooling with symmetric padding `kernel // 2`; averages do not count the padding."""

    kind: PoolKind
    kernel: int
    stride: int


@dataclass(frozen=True, slots=True)
class GlobalAveragePool:
    """Mean over height and width; the result keeps them, at size 1."""


@dataclass(frozen=True, slots=True)
class Flatten:
    """(channels, height, width) -> (channels * height * width,)."""


@dataclass(frozen=True, slots=True)
class Add:
    """Element-wise sum of two values of one shape."""


@dataclass(frozen=True, slots=True)
class Multiply:
    """Element-wise product; the second value may be (channels, 1, 1) and is broadcast."""


Op = Conv | Linear | Activate | Pool | GlobalAveragePool | Flatten | Add | Multiply


@dataclass(frozen=True, slots=True)
class OpNode:
    """An operation in its graph: the values it reads and the shape it gives.

    `prefix` belongs before the names of its parameters.
    """

    op: Op
    inputs: tuple[int, ...]
    shape: Shape
    prefix: str = ""


@dataclass(slots=True)
class OpGraph:
    """Operations in the order they run. Value 0 is the input, value i + 1 the output of node i.

    The last value is the graph's output. `add` checks shapes and raises `UsageError`.
    """

    input_shape: Shape
    nodes: list[OpNode] = field(default_factory=list)

    def shape(self, value: int) -> Shape:
        """Shape of a value, without the batch."""
        return self.input_shape if value == 0 else self.nodes[value - 1].shape

    @property
    def output(self) -> int:
        """The value that the graph returns."""
        return len(self.nodes)

    def add(self, op: Op, *inputs: int, prefix: str = "") -> int:
        """Append `op` reading `inputs`; return the value that it gives."""
        shape = output_shape(op, tuple(self.shape(value) for value in inputs))
        self.nodes.append(OpNode(op, inputs, shape, prefix))
        return self.output


def output_shape(op: Op, inputs: tuple[Shape, ...]) -> Shape:
    """Shape that `op` gives for inputs of these shapes; `UsageError` where they don't fit."""
    first = inputs[0]
    match op:
        case Conv():
            if first[0] != op.in_channels or len(first) != 3:
                raise UsageError(f"{op} can't read a value of shape {first}")
            if op.in_channels % op.groups or op.out_channels % op.groups:
                raise UsageError(f"{op}: groups must divide both channel counts")
            return (op.out_channels, *_window(first, op.kernel, op.stride))
        case Pool():
            return (first[0], *_window(first, op.kernel, op.stride))
        case Linear():
            if first != (op.in_features,):
                raise UsageError(f"{op} can't read a value of shape {first}")
            return (op.out_features,)
        case GlobalAveragePool():
            return (first[0], 1, 1)
        case Flatten():
            size = 1
            for length in first:
                size *= length
            return (size,)
        case Activate():
            return first
        case Add():
            if inputs[0] != inputs[1]:
                raise UsageError(f"can't add values of shapes {inputs[0]} and {inputs[1]}")
            return first
        case Multiply():
            if inputs[1] not in (first, (first[0], 1, 1)):
                raise UsageError(f"can't multiply values of shapes {inputs[0]} and {inputs[1]}")
            return first


def _window(shape: Shape, kernel: int, stride: int) -> tuple[int, int]:
    """Height and width after a window with padding `kernel // 2` moved by `stride`."""
    padding = 2 * (kernel // 2)
    height, width = ((size + padding - kernel) // stride + 1 for size in shape[1:])
    return height, width
