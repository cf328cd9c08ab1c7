"""What the layers of NAS-RL's networks are made of (Zoph & Le 2017, section 3.3)."""

from __future__ import annotations

from dataclasses import dataclass

from ...devices.errors import UsageError
from ..ops import Concat, Conv, OpGraph, Pad, Shape
from .base import Block, ImageBlock, check_odd, check_positive


@dataclass(frozen=True, slots=True, kw_only=True)
class RectangularConv(ImageBlock):
    """Convolution with a kernel of any height and width, batch norm, ReLU."""

    out_channels: int
    kernel_height: int = 3
    kernel_width: int = 3
    stride: int = 1

    def __post_init__(self) -> None:
        ImageBlock.__post_init__(self)
        check_positive(self, "out_channels", "stride")
        check_odd(self, "kernel_height", "kernel_width")

    def write(self, graph: OpGraph, *inputs: int, prefix: str = "") -> int:
        """Append this block's operations to `graph`; return the value that it gives."""
        kernel = (self.kernel_height, self.kernel_width)
        conv = Conv(
            "conv", self.in_channels, self.out_channels, kernel, self.stride, activation="relu"
        )
        return graph.add(conv, *inputs, prefix=prefix)


@dataclass(frozen=True, slots=True, kw_only=True)
class PaddedConcat(Block):
    """Values put together along the channels, smaller ones padded with zeros to the largest.

    `shapes` are those of the values: channels, height, width. Height and width of the result are
    the largest of any of them.
    """

    shapes: tuple[tuple[int, int, int], ...]

    def __post_init__(self) -> None:
        if not self.shapes or any(size < 1 for shape in self.shapes for size in shape):
            raise UsageError(
                f"PaddedConcat: shapes is {self.shapes}; at least one is needed, all above 0"
            )

    @property
    def input_shapes(self) -> tuple[Shape, ...]:
        """Shape of each input, without the batch."""
        return self.shapes

    def write(self, graph: OpGraph, *inputs: int, prefix: str = "") -> int:
        """Append this block's operations to `graph`; return the value that it gives."""
        size = tuple(max(shape[axis] for shape in self.shapes) for axis in (1, 2))
        padded = [
            value if shape[1:] == size else graph.add(Pad(*size), value, prefix=prefix)
            for value, shape in zip(inputs, self.shapes, strict=True)
        ]
        if len(padded) == 1:
            return padded[0]
        return graph.add(Concat(), *padded, prefix=prefix)
