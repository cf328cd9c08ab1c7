"""Primitive operations and the small graphs they form: what every realisation is made from.

A block writes itself into an `OpGraph` once. ONNX and torch both read that graph, so the two
realisations can't disagree about structure, names or shapes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from ..devices.errors import UsageError

Activation = Literal["none", "relu", "relu6", "swish", "hard_swish", "sigmoid", "hard_sigmoid"]
PoolKind = Literal["max", "average"]
FULL_PRECISION = 32
"""Bits of a value that is not quantised: those of float32."""

INITIAL_CLIP = 6.0
"""Where a learned clip value begins, as ReLU6's; PACT's own begin at 10 (recalled)."""

Shape = tuple[int, ...]
"""Shape of a value without its batch: (channels, height, width), or (features,)."""


@dataclass(frozen=True, slots=True)
class Conv:
    """2-D convolution, symmetrically padded by half its reach, then batch norm and activation.

    `kernel` is its height and width, or both of them. Weight: (out_channels, in_channels / groups,
    height, width). With `batch_norm` the exported form carries it folded into weight and bias;
    without, the convolution has a bias of its own where `bias` says so. `weight_bits` are those
    that the weight is rounded to before it is used; the exported form holds it rounded.
    """

    name: str
    in_channels: int
    out_channels: int
    kernel: int | tuple[int, int] = 1
    stride: int = 1
    groups: int = 1
    batch_norm: bool = True
    activation: Activation = "none"
    dilation: int = 1
    bias: bool = True
    weight_bits: int = FULL_PRECISION

    @property
    def exported_bias(self) -> bool:
        """Whether the exported form has a bias."""
        return self.batch_norm or self.bias

    @property
    def kernel_size(self) -> tuple[int, int]:
        """Height and width of the kernel."""
        return self.kernel if isinstance(self.kernel, tuple) else (self.kernel, self.kernel)

    @property
    def padding(self) -> tuple[int, int]:
        """Rows and columns of zeros at each side."""
        height, width = self.kernel_size
        return (self.dilation * (height - 1) // 2, self.dilation * (width - 1) // 2)

    @property
    def weight_shape(self) -> tuple[int, int, int, int]:
        """Shape of the weight."""
        return (self.out_channels, self.in_channels // self.groups, *self.kernel_size)


@dataclass(frozen=True, slots=True)
class Linear:
    """Fully connected layer with bias. Weight: (out_features, in_features)."""

    name: str
    in_features: int
    out_features: int


@dataclass(frozen=True, slots=True)
class Normalise:
    """Batch norm on its own, as before a convolution; exported as a scale and a shift."""

    name: str
    channels: int


@dataclass(frozen=True, slots=True)
class Quantise:
    """Clips to [0, clip] and rounds to 2 ** `bits` levels, half to even (PACT, Choi et al. 2018).

    The clip value is learned, one for the whole value.
    """

    name: str
    bits: int


@dataclass(frozen=True, slots=True)
class Activate:
    """An element-wise activation on its own."""

    activation: Activation


@dataclass(frozen=True, slots=True)
class Pool:
    """Window pooling, symmetrically padded; averages do not count the padding."""

    kind: PoolKind
    kernel: int
    stride: int

    @property
    def padding(self) -> int:
        """Rows and columns at each side: half of the window, without its middle."""
        return (self.kernel - 1) // 2


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


@dataclass(frozen=True, slots=True)
class Zero:
    """Zeros of the input's shape."""


@dataclass(frozen=True, slots=True)
class Concat:
    """The channels of its inputs, one after the other."""


@dataclass(frozen=True, slots=True)
class Channels:
    """The channels from `start` on, before `stop`."""

    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class ChannelShuffle:
    """Channels of `groups` equal groups, interleaved (ShuffleNet, Zhang et al. 2018, section 3.1).

    (groups * n, height, width): channel i of group g becomes channel i * groups + g.
    """

    groups: int


@dataclass(frozen=True, slots=True)
class Crop:
    """All but the first `top` rows and `left` columns."""

    top: int
    left: int


@dataclass(frozen=True, slots=True)
class Pad:
    """Zeros around a value, up to this height and width; the odd one of them comes last."""

    height: int
    width: int

    def before(self, shape: Shape) -> tuple[int, int]:
        """Rows above, and columns to the left of a value of this shape."""
        return (self.height - shape[1]) // 2, (self.width - shape[2]) // 2

    def after(self, shape: Shape) -> tuple[int, int]:
        """Rows below it, and columns to its right."""
        above, left = self.before(shape)
        return self.height - shape[1] - above, self.width - shape[2] - left


@dataclass(frozen=True, slots=True)
class Input:
    """One more input of the graph, besides value 0: only blocks on their own have any."""

    shape: Shape


Op = (
    Conv
    | Linear
    | Normalise
    | Quantise
    | Activate
    | Pool
    | GlobalAveragePool
    | Flatten
    | Add
    | Multiply
    | Zero
    | Concat
    | Channels
    | ChannelShuffle
    | Crop
    | Pad
    | Input
)
"""All operations."""


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


def graph_reading(shapes: Sequence[Shape]) -> tuple[OpGraph, list[int]]:
    """A graph with an input for each different shape, and the values to read for `shapes`."""
    graph = OpGraph(shapes[0])
    values = {shapes[0]: 0}
    for shape in shapes:
        if shape not in values:
            values[shape] = graph.add(Input(shape))
    return graph, [values[shape] for shape in shapes]


def output_shape(op: Op, inputs: tuple[Shape, ...]) -> Shape:
    """Shape that `op` gives for inputs of these shapes; `UsageError` where they don't fit."""
    if isinstance(op, Input):
        return op.shape
    first = inputs[0]
    match op:
        case Conv():
            if first[0] != op.in_channels or len(first) != 3:
                raise UsageError(f"{op} can't read a value of shape {first}")
            if op.in_channels % op.groups or op.out_channels % op.groups:
                raise UsageError(f"{op}: groups must divide both channel counts")
            reach = tuple(op.dilation * (size - 1) + 1 for size in op.kernel_size)
            return (op.out_channels, *_window(op, first, reach, op.padding, op.stride))
        case Pool():
            window, padding = (op.kernel, op.kernel), (op.padding, op.padding)
            return (first[0], *_window(op, first, window, padding, op.stride))
        case Normalise():
            if len(first) != 3 or first[0] != op.channels:
                raise UsageError(f"{op} can't read a value of shape {first}")
            return first
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
        case Activate() | Quantise() | Zero():
            return first
        case Add():
            if inputs[0] != inputs[1]:
                raise UsageError(f"can't add values of shapes {inputs[0]} and {inputs[1]}")
            return first
        case Multiply():
            if inputs[1] not in (first, (first[0], 1, 1)):
                raise UsageError(f"can't multiply values of shapes {inputs[0]} and {inputs[1]}")
            return first
        case Concat():
            if any(len(shape) != 3 or shape[1:] != first[1:] for shape in inputs):
                raise UsageError(f"can't concatenate values of shapes {inputs}")
            return (sum(shape[0] for shape in inputs), *first[1:])
        case Channels():
            if not 0 <= op.start < op.stop <= first[0]:
                raise UsageError(f"{op} can't read a value of shape {first}")
            return (op.stop - op.start, *first[1:])
        case ChannelShuffle():
            if op.groups < 1 or first[0] % op.groups:
                raise UsageError(f"{op} can't read a value of shape {first}")
            return first
        case Crop():
            if len(first) != 3 or not (0 <= op.top < first[1] and 0 <= op.left < first[2]):
                raise UsageError(f"{op} can't read a value of shape {first}")
            return (first[0], first[1] - op.top, first[2] - op.left)
        case Pad():
            if len(first) != 3 or first[1] > op.height or first[2] > op.width:
                raise UsageError(f"{op} can't read a value of shape {first}")
            return (first[0], op.height, op.width)


def _window(
    op: Op, shape: Shape, reach: tuple[int, ...], padding: tuple[int, ...], stride: int
) -> tuple[int, int]:
    """Height and width after a window of this reach moved by `stride` over the padded value."""
    height, width = (
        (size + 2 * pad - covered) // stride + 1
        for size, pad, covered in zip(shape[1:], padding, reach, strict=True)
    )
    if height < 1 or width < 1:
        raise UsageError(f"{op} is larger than a value of shape {shape}")
    return height, width


def multiply_adds(graph: OpGraph) -> int:
    """Multiply-adds of convolutions, linear layers and products: what papers call FLOPs."""
    total = 0
    for node in graph.nodes:
        match node.op:
            case Conv() as op:
                total += math.prod(op.weight_shape) * math.prod(node.shape[1:])
            case Linear() as op:
                total += op.in_features * op.out_features
            case Multiply():
                total += math.prod(node.shape)
            case _:
                pass
    return total
