"""Single operations as blocks, and what begins, joins and ends a network."""

from __future__ import annotations

from dataclasses import dataclass

from ..ops import (
    Activate,
    Activation,
    Add,
    Conv,
    Flatten,
    GlobalAveragePool,
    Linear,
    OpGraph,
    Pool,
    PoolKind,
    Shape,
)
from .base import Block, ImageBlock, check_odd, check_positive


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvBlock(ImageBlock):
    """Dense convolution, batch norm, activation. Also the stem of a network."""

    out_channels: int
    kernel: int = 3
    stride: int = 1
    activation: Activation = "relu6"

    def __post_init__(self) -> None:
        ImageBlock.__post_init__(self)
        check_positive(self, "out_channels", "stride")
        check_odd(self, "kernel")

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
class Depthwise(ImageBlock):
    """Depthwise convolution, batch norm, activation."""

    kernel: int = 3
    stride: int = 1
    activation: Activation = "relu6"

    def __post_init__(self) -> None:
        ImageBlock.__post_init__(self)
        check_positive(self, "stride")
        check_odd(self, "kernel")

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
class Pointwise(ImageBlock):
    """1x1 convolution, batch norm, activation."""

    out_channels: int
    activation: Activation = "relu6"

    def __post_init__(self) -> None:
        ImageBlock.__post_init__(self)
        check_positive(self, "out_channels")

    def write(self, graph: OpGraph, *inputs: int, prefix: str = "") -> int:
        """Append this block's operations to `graph`; return the value that it gives."""
        conv = Conv("pointwise", self.in_channels, self.out_channels, activation=self.activation)
        return graph.add(conv, *inputs, prefix=prefix)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pooling(ImageBlock):
    """Max or average pooling over a window."""

    pool: PoolKind = "max"
    kernel: int = 3
    stride: int = 2

    def __post_init__(self) -> None:
        ImageBlock.__post_init__(self)
        check_positive(self, "stride")
        check_odd(self, "kernel")

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
        check_positive(self, "in_features", "out_features")

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
class Skip(ImageBlock):
    """The identity: no operation, and no time."""

    def write(self, graph: OpGraph, *inputs: int, prefix: str = "") -> int:
        """Append nothing; return the input."""
        return inputs[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sum(ImageBlock):
    """Adds two values of one shape: where the branches of a network's graph meet.

    `SumOf` adds any number of them; this kind stays for the files that name it.
    """

    @property
    def input_shapes(self) -> tuple[Shape, ...]:
        """Shape of each input, without the batch."""
        shape = (self.in_channels, self.height, self.width)
        return (shape, shape)

    def write(self, graph: OpGraph, *inputs: int, prefix: str = "") -> int:
        """Append this block's operations to `graph`; return the value that it gives."""
        return graph.add(Add(), *inputs, prefix=prefix)


@dataclass(frozen=True, slots=True, kw_only=True)
class Head(ImageBlock):
    """A whole network's end: 1x1 convolution, global average pool, classifier."""

    hidden_channels: int
    classes: int
    activation: Activation = "relu6"

    def __post_init__(self) -> None:
        ImageBlock.__post_init__(self)
        check_positive(self, "hidden_channels", "classes")

    def write(self, graph: OpGraph, *inputs: int, prefix: str = "") -> int:
        """Append this block's operations to `graph`; return the value that it gives."""
        hidden = self.hidden_channels
        conv = Conv("conv", self.in_channels, hidden, activation=self.activation)
        value = graph.add(conv, *inputs, prefix=prefix)
        value = graph.add(GlobalAveragePool(), value, prefix=prefix)
        value = graph.add(Flatten(), value, prefix=prefix)
        return graph.add(Linear("classifier", hidden, self.classes), value, prefix=prefix)
