"""The inverted residual block of mobile networks, and MobileNetV3's end."""

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
    Multiply,
    OpGraph,
)
from .base import ImageBlock, check_odd, check_positive


@dataclass(frozen=True, slots=True, kw_only=True)
class MBConv(ImageBlock):
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
        ImageBlock.__post_init__(self)
        check_positive(self, "out_channels", "expanded_channels", "stride")
        check_odd(self, "kernel")

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
class PooledHead(ImageBlock):
    """1x1 convolution, global average pool, hidden layer, classifier.

    The end of MobileNetV3, whose hidden layer costs little behind the pool (Howard et al. 2019,
    section 5.1).
    """

    hidden_channels: int
    pooled_features: int
    classes: int
    activation: Activation = "hard_swish"

    def __post_init__(self) -> None:
        ImageBlock.__post_init__(self)
        check_positive(self, "hidden_channels", "pooled_features", "classes")

    def write(self, graph: OpGraph, *inputs: int, prefix: str = "") -> int:
        """Append this block's operations to `graph`; return the value that it gives."""
        hidden, features = self.hidden_channels, self.pooled_features
        conv = Conv("conv", self.in_channels, hidden, activation=self.activation)
        value = graph.add(conv, *inputs, prefix=prefix)
        value = graph.add(GlobalAveragePool(), value, prefix=prefix)
        value = graph.add(Flatten(), value, prefix=prefix)
        value = graph.add(Linear("pooled", hidden, features), value, prefix=prefix)
        value = graph.add(Activate(self.activation), value, prefix=prefix)
        return graph.add(Linear("classifier", features, self.classes), value, prefix=prefix)
