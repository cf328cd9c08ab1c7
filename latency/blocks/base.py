"""What every block is: a frozen value that holds all that a latency depends on.

A new block is a frozen dataclass that derives from `Block` and writes itself into an `OpGraph`;
ONNX, torch, counts, tables and predictors follow from that. Equal blocks are equal keys.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import lru_cache

from ...devices.errors import UsageError
from ..ops import OpGraph, Shape, graph_reading


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
    graph, values = graph_reading(block.input_shapes)
    return graph.shape(block.write(graph, *values))


def check_positive(block: Block, *names: str) -> None:
    """Raise `UsageError`, naming it, where one of these fields is below 1."""
    for name in names:
        value = getattr(block, name)
        if value < 1:
            raise UsageError(f"{type(block).__name__}: {name} is {value}, and must be at least 1")


def check_odd(block: Block, *names: str) -> None:
    """Raise `UsageError`, naming it, where one of these fields is not an odd number."""
    for name in names:
        value = getattr(block, name)
        if value < 1 or value % 2 == 0:
            raise UsageError(f"{type(block).__name__}: {name} is {value}, and must be odd")


@dataclass(frozen=True, slots=True)
class ImageBlock(Block):
    """A block that reads one image-like value of `in_channels` x `height` x `width`."""

    in_channels: int
    height: int
    width: int

    @property
    def input_shapes(self) -> tuple[Shape, ...]:
        """Shape of each input, without the batch."""
        return ((self.in_channels, self.height, self.width),)

    def __post_init__(self) -> None:
        check_positive(self, "in_channels", "height", "width")
