"""NASNet's space (Zoph et al. 2018, section 3): a normal and a reduction cell of five nodes.

A node takes two values of its cell, each through an operation of its own, and adds or concatenates
them. What no node reads, the cell's inputs among them, is concatenated: the cell's output. In a
reduction cell what reads an input has stride 2, and an input that none reads comes by a factorised
reduction. As the paper wants of values of unlike shapes, 1x1 convolutions are put in: one brings a
concatenation to the cell's channels before a node of the cell reads it.

Recalled: six cells between reductions and 32 channels (NASNet-A, 6 @ 768), a stem of three times as
many, inputs among what is concatenated, separable convolutions that are applied twice. NASNet-A's
normal cell also concatenates an input that its nodes do read, which is no choice here. Ours: the
dilated convolution is depthwise separable, as DARTS's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ...latency.blocks import (
    Block,
    CellConv,
    Classifier,
    ConcatOf,
    ConvBlock,
    FactorisedReduce,
    SumOf,
)
from ...latency.network import INPUT, Network
from ..choices import Choice
from .assembled import AssembledSpace, Assembly, Options
from .cells import (
    KINDS,
    SLOTS,
    CellValue,
    cell_kinds,
    entry,
    half_choices,
    mirrored,
    operation,
)
from .scale import PAPER, Scale

OPERATIONS = (
    "identity",
    "conv_1x3_3x1",
    "conv_1x7_7x1",
    "dil_conv_3x3",
    "avg_pool_3x3",
    "max_pool_3x3",
    "max_pool_5x5",
    "max_pool_7x7",
    "conv_1x1",
    "conv_3x3",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "sep_conv_7x7",
)
COMBINATIONS = ("add", "concat")
NODES = 5
CELLS = 20
CHANNELS = 32
STEM_FACTOR = 3
RESOLUTION = 32


class NasNetSpace(AssembledSpace):
    """The space; a node's choices are `normal.node1.first.input`, `normal.node1.first`, ...

    and `normal.node1.combination`. `input` is the number of a value in the cell: 0 and 1 are the
    outputs of the two cells before, then come the nodes. A node's two halves may be exchanged (a
    concatenation has its channels in another order then), so that the canonical form has them in
    order; cells whose nodes are merely numbered otherwise count as different.
    """

    def __init__(
        self,
        classes: int = 10,
        scale: Scale = PAPER,
        *,
        cells: int = CELLS,
        channels: int = CHANNELS,
        nodes: int = NODES,
    ) -> None:
        self._classes = classes
        self._kinds = cell_kinds(cells)
        self._channels = scale.channels(channels)
        self._resolution = (scale.resolutions or (RESOLUTION,))[0]
        self._nodes = nodes
        names = [(f"{kind}.node{node + 1}", node) for kind in KINDS for node in range(nodes)]
        choices = [choice for name, node in names for choice in _choices(name, node)]
        super().__init__("nasnet", choices, [mirrored(name) for name, _ in names])

    def assemble(self, options: Options) -> Network:
        """The network of these options."""
        assembly = Assembly((3, self._resolution, self._resolution))
        before = last = assembly.add(self._stem(), INPUT)
        channels = self._channels
        for kind in self._kinds:
            channels *= 1 + (kind == "reduce")
            cell = _Cell(assembly, kind, channels, before, last, self._nodes)
            before, last = last, cell.add(options)
        features, size, _ = assembly.shape(last)
        assembly.add(self._classifier(features, size), last)
        return assembly.network()

    def blocks(self) -> list[Block]:
        """Every distinct block that a network may have."""
        return list(dict.fromkeys(self._possible_blocks()))

    def _possible_blocks(self) -> Iterator[Block]:
        stem = self._stem()
        yield stem
        # A cell concatenates up to two halves of each node, and one of its inputs.
        most, channels, size = 2 * self._nodes + 1, self._channels, self._resolution
        before = last = [CellValue("stem", stem.out_channels, size)]
        for kind in self._kinds:
            stride = 1 + (kind == "reduce")
            channels *= stride
            yield from (entry(value, channels, size) for value in (*before, *last))
            yield from (operation(name, channels, size, stride) for name in OPERATIONS)
            if stride == 2:
                yield _half(channels, size)
                size //= 2
                yield from (operation(name, channels, size, 1) for name in OPERATIONS)
            yield _sum(channels, size)
            yield _match(channels, size)
            yield from (_concat(channels, size, inputs) for inputs in range(2, most + 1))
            outputs = [CellValue(kind, channels * parts, size) for parts in range(1, most + 1)]
            before, last = last, outputs
        yield from (self._classifier(value.channels, size) for value in last)

    def _stem(self) -> ConvBlock:
        return ConvBlock(
            in_channels=3,
            height=self._resolution,
            width=self._resolution,
            out_channels=STEM_FACTOR * self._channels,
            activation="none",
        )

    def _classifier(self, channels: int, size: int) -> Block:
        return Classifier(in_channels=channels, height=size, width=size, classes=self._classes)


@dataclass(frozen=True, slots=True)
class _Cell:
    """One cell of a network in the making, which reads the nodes `before` and `last`."""

    assembly: Assembly
    kind: str
    channels: int
    before: int
    last: int
    nodes: int

    def add(self, options: Options) -> int:
        """Add it; return the node that gives its output."""
        stride = 1 + (self.kind == "reduce")
        _, size, _ = self.assembly.shape(self.last)
        small = size // stride
        # The values of the cell, each of one part of the cell's channels or of two.
        inputs = (self._entry(self.before, size), self._entry(self.last, size))
        parts: list[tuple[int, ...]] = [(node,) for node in inputs]
        matched: dict[int, int] = {}
        read: set[int] = set()
        for node in range(self.nodes):
            name = f"{self.kind}.node{node + 1}"
            halves = []
            for slot in SLOTS:
                source = int(options[f"{name}.{slot}.input"])
                read.add(source)
                if source not in matched:
                    matched[source] = self._matched(parts[source], small)
                place = (size, stride) if source < 2 else (small, 1)
                block = operation(str(options[f"{name}.{slot}"]), self.channels, *place)
                halves.append(self.assembly.add(block, matched[source]))
            if options[f"{name}.combination"] == "add":
                halves = [self.assembly.add(_sum(self.channels, small), *halves)]
            parts.append(tuple(halves))
        ends = [
            self._end(part, size, stride if source < 2 else 1)
            for source, value in enumerate(parts)
            if source not in read
            for part in value
        ]
        if len(ends) == 1:
            return ends[0]
        return self.assembly.add(_concat(self.channels, small, len(ends)), *ends)

    def _entry(self, node: int, size: int) -> int:
        channels, own_size, _ = self.assembly.shape(node)
        return self.assembly.add(
            entry(CellValue("", channels, own_size), self.channels, size), node
        )

    def _matched(self, parts: tuple[int, ...], size: int) -> int:
        """A value with the cell's channels."""
        if len(parts) == 1:
            return parts[0]
        joined = self.assembly.add(_concat(self.channels, size, len(parts)), *parts)
        return self.assembly.add(_match(self.channels, size), joined)

    def _end(self, part: int, size: int, stride: int) -> int:
        """A part of the cell's output, brought to its size."""
        return part if stride == 1 else self.assembly.add(_half(self.channels, size), part)


def _sum(channels: int, size: int) -> Block:
    return SumOf(in_channels=channels, height=size, width=size, inputs=2)


def _concat(channels: int, size: int, inputs: int) -> Block:
    return ConcatOf(in_channels=channels, height=size, width=size, inputs=inputs)


def _match(channels: int, size: int) -> Block:
    return CellConv(in_channels=2 * channels, height=size, width=size, out_channels=channels)


def _half(channels: int, size: int) -> Block:
    return FactorisedReduce(in_channels=channels, height=size, width=size, out_channels=channels)


def _choices(name: str, node: int) -> Iterator[Choice]:
    """The choices of a node, counted from 0."""
    for slot in SLOTS:
        yield from half_choices(name, slot, node + 2, OPERATIONS)
    yield Choice(f"{name}.combination", COMBINATIONS)


def nasnet(classes: int = 10, scale: Scale = PAPER) -> NasNetSpace:
    """The space with the network that the paper trains on CIFAR-10."""
    return NasNetSpace(classes, scale)
