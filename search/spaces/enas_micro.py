"""ENAS's micro space (Pham et al. 2018, section 2.4): a normal and a reduction cell of five nodes.

A node adds two values of its cell, each through an operation of its own; they may be the same
value. What no node reads ends the cell: its loose ends, the cell's inputs among them, are
concatenated and brought to the cell's channels by ReLU, 1x1 convolution and batch norm. A
convolution of a concatenation is the sum of one convolution for each part, and is built so: in a
supernet, each value then has weights of its own. An input of a reduction cell that is a loose end
comes by a factorised reduction.

Recalled, of the released code: five nodes, 15 cells and 2 reductions, 36 channels, a stem of three
times as many, separable convolutions that are applied twice, and inputs among the loose ends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ...latency.blocks import Block, Classifier, ConvBlock, FactorisedReduce, LooseEnd, SumOf
from ..choices import Choice
from ..space import Piece, SearchSpace
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

OPERATIONS = ("sep_conv_3x3", "sep_conv_5x5", "avg_pool_3x3", "max_pool_3x3", "identity")
NODES = 5
CELLS = 17
CHANNELS = 36
STEM_FACTOR = 3
RESOLUTION = 32


class EnasMicroSpace(SearchSpace):
    """The space; a node's choices are `normal.node1.first.input`, `normal.node1.first`, ...

    `input` is the number of a value in the cell: 0 and 1 are the outputs of the two cells before,
    then come the nodes. A node's two halves may be exchanged, so that the canonical form has them
    in order; cells whose nodes are merely numbered otherwise count as different.
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
        self._cells = cells
        self._channels = scale.channels(channels)
        self._resolution = (scale.resolutions or (RESOLUTION,))[0]
        self._nodes = nodes
        names = [f"{kind}.node{node + 1}" for kind in KINDS for node in range(nodes)]
        choices = [
            choice
            for kind in KINDS
            for node in range(nodes)
            for slot in SLOTS
            for choice in _half(kind, node, slot)
        ]
        super().__init__(
            "enas_micro", choices, self._all_pieces(), mirrors=[mirrored(name) for name in names]
        )

    def _all_pieces(self) -> Iterator[Piece]:
        channels, size = self._channels, self._resolution
        stem = ConvBlock(
            in_channels=3,
            height=size,
            width=size,
            out_channels=STEM_FACTOR * channels,
            activation="none",
        )
        yield Piece((), lambda: stem, name="stem")
        before = last = CellValue("stem", stem.out_channels, size)
        for number, kind in enumerate(cell_kinds(self._cells)):
            channels *= 1 + (kind == "reduce")
            cell = _Cell(f"cell{number + 1}", kind, channels, before, last, self._nodes)
            yield from cell.pieces()
            before, last = last, cell.output
        yield Piece(
            (),
            lambda: Classifier(
                in_channels=last.channels, height=last.size, width=last.size, classes=self._classes
            ),
        )


@dataclass(frozen=True, slots=True)
class _Cell:
    """One cell, which reads the outputs of the two before it."""

    name: str
    kind: str
    channels: int
    before: CellValue
    last: CellValue
    nodes: int

    @property
    def output(self) -> CellValue:
        """What it gives."""
        return CellValue(self.name, self.channels, self.last.size // self._input_stride)

    @property
    def _input_stride(self) -> int:
        return 2 if self.kind == "reduce" else 1

    def pieces(self) -> Iterator[Piece]:
        """Its inputs brought to its channels and size, its nodes, and what joins its loose ends."""
        names = [f"{self.name}.input{number}" for number in range(2)]
        for name, value in zip(names, (self.before, self.last), strict=True):
            block = entry(value, self.channels, self.last.size)
            yield Piece((), lambda block=block: block, name=name, reads=(value.name,))
        for node in range(self.nodes):
            edges = []
            for slot in SLOTS:
                choices = tuple(choice.name for choice in _half(self.kind, node, slot))
                for source, read in enumerate(names):
                    edges.append(f"{self.name}.{slot}{source}-{node + 2}")
                    build = self._edge_builder(source)
                    yield Piece(choices, build, name=edges[-1], reads=(read,), edge=True)
            names.append(f"{self.name}.node{node + 1}")
            yield Piece((), self._sum(2), name=names[-1], reads=tuple(edges))
        ends = [f"{self.name}.end{source}" for source in range(len(names))]
        for source, (end, read) in enumerate(zip(ends, names, strict=True)):
            block = self._end(source)
            yield Piece(
                (), lambda block=block: block, name=end, reads=(read,), edge=True, if_unread=True
            )
        yield Piece((), self._joined, name=self.name, reads=tuple(ends), joins=True)

    def _edge_builder(self, source: int) -> Callable[[int, str], Block | None]:
        size, stride = self._read(source)

        def build(read: int, name: str) -> Block | None:
            return operation(name, self.channels, size, stride) if read == source else None

        return build

    def _sum(self, inputs: int) -> Callable[[], Block]:
        size = self.output.size
        block = SumOf(in_channels=self.channels, height=size, width=size, inputs=inputs)
        return lambda: block

    def _end(self, source: int) -> Block:
        size, stride = self._read(source)
        kind = LooseEnd if stride == 1 else FactorisedReduce
        return kind(in_channels=self.channels, height=size, width=size, out_channels=self.channels)

    def _joined(self, inputs: int) -> Block:
        size = self.output.size
        return SumOf(in_channels=self.channels, height=size, width=size, inputs=inputs, norm=True)

    def _read(self, source: int) -> tuple[int, int]:
        """Size in pixels of a value of the cell, and the stride of what reads it."""
        if source < 2:
            return self.last.size, self._input_stride
        return self.output.size, 1


def _half(kind: str, node: int, slot: str) -> list[Choice]:
    """The choices of one of the two values that a node, counted from 0, adds."""
    return half_choices(f"{kind}.node{node + 1}", slot, node + 2, OPERATIONS)


def enas_micro(classes: int = 10, scale: Scale = PAPER) -> EnasMicroSpace:
    """The space with the network that ENAS retrains on CIFAR-10."""
    return EnasMicroSpace(classes, scale)
