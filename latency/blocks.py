"""The blocks that spaces are made of: frozen values that hold all that a latency depends on.

A new block is a frozen dataclass that derives from `Block` and writes itself into an `OpGraph`;
ONNX, torch, counts, tables and predictors follow from that. Equal blocks are equal keys.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import lru_cache

from ..devices.errors import UsageError
from .ops import (
    Activate,
    Activation,
    Add,
    Conv,
    Flatten,
    GlobalAveragePool,
    Linear,
    Multiply,
    OpGraph,
    Pool,
    PoolKind,
    Shape,
)


@dataclass(frozen=True, slots=True)
class Block:
    """A piece of a network with one output, and the shapes of its inputs.

    `height` and `width` of every block are its input's, in pixels.
    """

    @property
    def input_shapes(self) -> tuple[Shape, ...]:
        """Shape of each input, without the batch."""
        raise NotImplementedError

    def write(self, graph: OpGraph, *inputs: int, prefix: str = "") -> int:
        """Append this block's operations to `graph`; return the value that it gives."""
        raise NotImplementedError

    @property
    def output_shape(self) -> Shape:
        """Shape of the output, without the batch."""
        return _output_shape(self)

    @property
    def key(self) -> str:
        """The block as one line of text, equal exactly for equal blocks."""
        values = ", ".join(f"{item.name}={getattr(self, item.name)}" for item in fields(self))
        return f"{type(self).__name__}({values})"

    def __str__(self) -> str:
        return self.key


@lru_cache(maxsize=100_000)
def _output_shape(block: Block) -> Shape:
    graph = OpGraph(block.input_shapes[0])
    return graph.shape(block.write(graph, *([0] * len(block.input_shapes))))


def _check_positive(block: Block, *names: str) -> None:
    for name in names:
        value = getattr(block, name)
        if value < 1:
            raise UsageError(f"{type(block).__name__}: {name} is {value}, and must be at least 1")


def _check_odd(block: Block, *names: str) -> None:
    for name in names:
        value = getattr(block, name)
        if value < 1 or value % 2 == 0:
            raise UsageError(f"{type(block).__name__}: {name} is {value}, and must be odd")


@dataclass(frozen=True, slots=True)
class _Image(Block):
    """A block that reads one image-like value of `in_channels` x `height` x `width`."""

    in_channels: int
    height: int
    width: int

    @property
    def input_shapes(self) -> tuple[Shape, ...]:
        """Shape of each input, without the batch."""
        return ((self.in_channels, self.height, self.width),)

    def __post_init__(self) -> None:
        _check_positive(self, "in_channels", "height", "width")


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvBlock(_Image):
    """Dense convolution, batch norm, activation. Also the stem of a network."""

    out_channels: int
    kernel: int = 3
    stride: int = 1
    activation: Activation = "relu6"

    def __post_init__(self) -> None:
        _Image.__post_init__(self)
        _check_positive(self, "out_channels", "stride")
        _check_odd(self, "kernel")

    def write(self, graph: OpGraph, *inputs: int, prefix: str = "") -> int:
        """Append this block's operations to `graph`; return the value that it gives."""
        conv = Conv(
            "conv",
            self.in_channels,
            self.out_channels,
            self.kernel,
            self.stride,
            activation=self.activation,
        )
        return graph.add(conv, *inputs, prefix=prefix)


@dataclass(frozen=True, slots=True, kw_only=True)
class Depthwise(_Image):
    """Depthwise convolution, batch norm, activation."""

    kernel: int = 3
    stride: int = 1
    activation: Activation = "relu6"

    def __post_init__(self) -> None:
        _Image.__post_init__(self)
        _check_positive(self, "stride")
        _check_odd(self, "kernel")

    def write(self, graph: OpGraph, *inputs: int, prefix: str = "") -> int:
        """Append this block's operations to `graph`; return the value that it gives."""
        channels = self.in_channels
        conv = Conv(
            "depthwise",
            channels,
            channels,
            self.kernel,
            self.stride,
            groups=channels,
            activation=self.activation,
        )
        return graph.add(conv, *inputs, prefix=prefix)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pointwise(_Image):
    """1x1 convolution, batch norm, activation."""

    out_channels: int
    activation: Activation = "relu6"

    def __post_init__(self) -> None:
        _Image.__post_init__(self)
        _check_positive(self, "out_channels")

    def write(self, graph: OpGraph, *inputs: int, prefix: str = "") -> int:
        """Append this block's operations to `graph`; return the value that it gives."""
        conv = Conv("pointwise", self.in_channels, self.out_channels, activation=self.activation)
        return graph.add(conv, *inputs, prefix=prefix)


@dataclass(frozen=True, slots=True, kw_only=True)
class MBConv(_Image):
    """Inverted residual block (MobileNetV2, Sandler et al. 2018, section 3.3).

    1x1 convolution to `expanded_channels`, depthwise convolution, optional squeeze-excite
    (MobileNetV3, Howard et al. 2019, section 5.3: a quarter of the expanded channels, on the grid
    of 8; hard sigmoid), linear 1x1 convolution to `out_channels`. The first convolution is left
    out where `expanded_channels == in_channels`. The input is added where shapes and `residual`
    allow it.
    """

    out_channels: int
    expanded_channels: int
    kernel: int = 3
    stride: int = 1
    squeeze_excite: bool = False
    activation: Activation = "relu6"
    residual: bool = True

    def __post_init__(self) -> None:
        _Image.__post_init__(self)
        _check_positive(self, "out_channels", "expanded_channels", "stride")
        _check_odd(self, "kernel")

    @property
    def has_residual(self) -> bool:
        """Whether the input is added to the output."""
        return self.residual and self.stride == 1 and self.in_channels == self.out_channels

    @property
    def squeezed_channels(self) -> int:
        """Channels inside squeeze-excite."""
        return max(8, (self.expanded_channels // 4 + 4) // 8 * 8)

    def write(self, graph: OpGraph, *inputs: int, prefix: str = "") -> int:
        """Append this block's operations to `graph`; return the value that it gives."""
        (value,) = inputs
        middle = self.expanded_channels
        if middle != self.in_channels:
            expand = Conv("expand", self.in_channels, middle, activation=self.activation)
            value = graph.add(expand, value, prefix=prefix)
        depthwise = Conv(
            "depthwise",
            middle,
            middle,
            self.kernel,
            self.stride,
            groups=middle,
            activation=self.activation,
        )
        value = graph.add(depthwise, value, prefix=prefix)
        if self.squeeze_excite:
            value = self._write_squeeze_excite(graph, value, prefix)
        project = Conv("project", middle, self.out_channels)
        value = graph.add(project, value, prefix=prefix)
        if self.has_residual:
            value = graph.add(Add(), value, inputs[0], prefix=prefix)
        return value

    def _write_squeeze_excite(self, graph: OpGraph, value: int, prefix: str) -> int:
        middle, squeezed = self.expanded_channels, self.squeezed_channels
        reduce = Conv("squeeze", middle, squeezed, batch_norm=False, activation="relu")
        excite = Conv("excite", squeezed, middle, batch_norm=False, activation="hard_sigmoid")
        gate = graph.add(GlobalAveragePool(), value, prefix=prefix)
        gate = graph.add(reduce, gate, prefix=prefix)
        gate = graph.add(excite, gate, prefix=prefix)
        return graph.add(Multiply(), value, gate, prefix=prefix)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pooling(_Image):
    """Max or average pooling over a window."""

    pool: PoolKind = "max"
    kernel: int = 3
    stride: int = 2

    def __post_init__(self) -> None:
        _Image.__post_init__(self)
        _check_positive(self, "stride")
        _check_odd(self, "kernel")

    def write(self, graph: OpGraph, *inputs: int, prefix: str = "") -> int:
        """Append this block's operations to `graph`; return the value that it gives."""
        return graph.add(Pool(self.pool, self.kernel, self.stride), *inputs, prefix=prefix)


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearBlock(Block):
    """A fully connected layer."""

    in_features: int
    out_features: int
    activation: Activation = "none"

    def __post_init__(self) -> None:
        _check_positive(self, "in_features", "out_features")

    @property
    def input_shapes(self) -> tuple[Shape, ...]:
        """Shape of each input, without the batch."""
        return ((self.in_features,),)

    def write(self, graph: OpGraph, *inputs: int, prefix: str = "") -> int:
        """Append this block's operations to `graph`; return the value that it gives."""
        linear = Linear("linear", self.in_features, self.out_features)
        value = graph.add(linear, *inputs, prefix=prefix)
        if self.activation != "none":
            value = graph.add(Activate(self.activation), value, prefix=prefix)
        return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Skip(_Image):
    """The identity: no operation, and no time."""

    def write(self, graph: OpGraph, *inputs: int, prefix: str = "") -> int:
        """Append nothing; return the input."""
        return inputs[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sum(_Image):
    """Adds two values of one shape: where the branches of a network's graph meet."""

    @property
    def input_shapes(self) -> tuple[Shape, ...]:
        """Shape of each input, without the batch."""
        shape = (self.in_channels, self.height, self.width)
        return (shape, shape)

    def write(self, graph: OpGraph, *inputs: int, prefix: str = "") -> int:
        """Append this block's operations to `graph`; return the value that it gives."""
        return graph.add(Add(), *inputs, prefix=prefix)


@dataclass(frozen=True, slots=True, kw_only=True)
class Head(_Image):
    """A whole network's end: 1x1 convolution, global average pool, classifier."""

    hidden_channels: int
    classes: int
    activation: Activation = "relu6"

    def __post_init__(self) -> None:
        _Image.__post_init__(self)
        _check_positive(self, "hidden_channels", "classes")

    def write(self, graph: OpGraph, *inputs: int, prefix: str = "") -> int:
        """Append this block's operations to `graph`; return the value that it gives."""
        hidden = self.hidden_channels
        conv = Conv("conv", self.in_channels, hidden, activation=self.activation)
        value = graph.add(conv, *inputs, prefix=prefix)
        value = graph.add(GlobalAveragePool(), value, prefix=prefix)
        value = graph.add(Flatten(), value, prefix=prefix)
        return graph.add(Linear("classifier", hidden, self.classes), value, prefix=prefix)


BLOCK_KINDS: dict[str, type[Block]] = {
    kind.__name__: kind
    for kind in (ConvBlock, Depthwise, Pointwise, MBConv, Pooling, LinearBlock, Skip, Sum, Head)
}
"""Every kind of block by its name, which is what files call it."""
