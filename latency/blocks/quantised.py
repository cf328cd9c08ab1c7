"""The residual block of networks whose weights and activations have few bits."""

from __future__ import annotations

from dataclasses import dataclass

from ...devices.errors import UsageError
from ..ops import Activate, Add, Conv, OpGraph, Quantise
from .base import ImageBlock, check_positive

MOST_BITS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantisedResidual(ImageBlock):
    """ResNet's basic block (He et al. 2016) with weights and activations of few bits.

    Two 3x3 convolutions with batch norm, the first with the stride. What each of them reads is
    clipped and rounded to `activation_bits` (PACT, Choi et al. 2018), their weights are to
    `weight_bits`. The shortcut is the block's input itself; where shapes differ, a 1x1 convolution
    of the same bits. ReLU follows their sum. The input must not be negative, as behind a ReLU.

    Runtimes here compute it in float32, so its latency says nothing of its bits; `bit_operations`
    does.
    """

    out_channels: int
    stride: int = 1
    weight_bits: int = 4
    activation_bits: int = 4

    def __post_init__(self) -> None:
        ImageBlock.__post_init__(self)
        check_positive(self, "out_channels", "stride", "weight_bits", "activation_bits")
        if max(self.weight_bits, self.activation_bits) > MOST_BITS:
            raise UsageError(
                f"QuantisedResidual: weight_bits and activation_bits are {self.weight_bits} and "
                f"{self.activation_bits}, and must be at most {MOST_BITS}"
            )

    def write(self, graph: OpGraph, *inputs: int, prefix: str = "") -> int:
        """Append this block's operations to `graph`; return the value that it gives."""
        (passed,) = inputs
        out, bits = self.out_channels, self.weight_bits
        read = graph.add(Quantise("read", self.activation_bits), passed, prefix=prefix)
        first = Conv("first", self.in_channels, out, 3, self.stride, weight_bits=bits)
        value = graph.add(first, read, prefix=prefix)
        value = graph.add(Quantise("middle", self.activation_bits), value, prefix=prefix)
        value = graph.add(Conv("second", out, out, 3, weight_bits=bits), value, prefix=prefix)
        if self.stride > 1 or self.in_channels != out:
            match = Conv("match", self.in_channels, out, 1, self.stride, weight_bits=bits)
            passed = graph.add(match, read, prefix=prefix)
        value = graph.add(Add(), value, passed, prefix=prefix)
        return graph.add(Activate("relu"), value, prefix=prefix)
