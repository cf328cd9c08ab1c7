"""DARTS's cells (Liu et al. 2019, section 3.1): a normal and a reduction cell of four nodes.

A node adds two of the values before it, each through an operation of its own. Both cells are
chosen once and repeated; a cell's output is its nodes' concatenation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from ...latency.blocks import Block, Classifier, ConcatOf, ConvBlock, SumOf
from ..choices import Choice
from ..relaxation import Mixture, Weights
from ..space import Architecture, Piece, SearchSpace
from .cells import KINDS, CellValue, cell_kinds, entry, operation
from .scale import PAPER, Scale

OPERATIONS = (
    "max_pool_3x3",
    "avg_pool_3x3",
    "skip_connect",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
)
NODES = 4
RESOLUTION = 32
CHANNELS = 36
CELLS = 20
STEM_FACTOR = 3


class DartsSpace(SearchSpace):
    """The space; a node's choices are `normal.node1.inputs`, `.first` and `.second`.

    `inputs` is a pair of values in a cell: 0 and 1 are the outputs of the two cells before, then
    come the nodes. `first` is the operation of the smaller one. `cells` and `channels` are those
    of the retrained network of CIFAR-10; DARTS searches with 8 cells and 16 channels.
    """

    def __init__(
        self,
        classes: int = 10,
        scale: Scale = PAPER,
        *,
        cells: int = CELLS,
        channels: int = CHANNELS,
    ) -> None:
        self._classes = classes
        self._cells = cells
        self._channels = scale.channels(channels)
        self._resolution = (scale.resolutions or (RESOLUTION,))[0]
        self._mixtures: dict[str, Mixture] = {}
        choices = [
            choice for kind in KINDS for node in range(NODES) for choice in _choices(kind, node)
        ]
        super().__init__("darts", choices, self._all_pieces())

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
            cell = _Cell(f"cell{number + 1}", kind, channels, before, last)
            self._mixtures |= cell.mixtures()
            yield from cell.pieces()
            before, last = last, cell.output
        end = last
        yield Piece(
            (),
            lambda: Classifier(
                in_channels=end.channels, height=end.size, width=end.size, classes=self._classes
            ),
        )

    def mixtures(self) -> dict[int, Mixture]:
        """By the index of a piece, its mixture: equal edges of equal cells share one."""
        return {
            index: self._mixtures[piece.name]
            for index, piece in enumerate(self.pieces)
            if piece.edge
        }

    def discretise(self, weights: Weights) -> Architecture:
        """Keeps the two strongest edges of each node, each with its strongest operation.

        An edge is as strong as its strongest operation; nothing (`none`) is never chosen (Liu et
        al. 2019, section 2.4).
        """
        options: dict[str, str] = {}
        for kind in KINDS:
            for node in range(NODES):
                edges = [weights[f"{kind}.edge{source}-{node + 2}"] for source in range(node + 2)]
                strength = [float(np.max(edge[1:])) for edge in edges]
                pair = sorted(np.argsort(strength, kind="stable")[-2:].tolist())
                name = f"{kind}.node{node + 1}"
                options[f"{name}.inputs"] = "+".join(map(str, pair))
                for source, slot in zip(pair, ("first", "second"), strict=True):
                    options[f"{name}.{slot}"] = OPERATIONS[int(np.argmax(edges[source][1:]))]
        return self.architecture(
            [choice.options.index(options[choice.name]) for choice in self.choices]
        )


@dataclass(frozen=True, slots=True)
class _Cell:
    """One cell, which reads the outputs of the two before it."""

    name: str
    kind: str
    channels: int
    before: CellValue
    last: CellValue

    @property
    def output(self) -> CellValue:
        """What it gives."""
        stride = 2 if self.kind == "reduce" else 1
        return CellValue(self.name, NODES * self.channels, self.last.size // stride)

    def pieces(self) -> Iterator[Piece]:
        """Its inputs brought to its channels and size, its nodes, and their concatenation."""
        names = [f"{self.name}.input{number}" for number in range(2)]
        for name, value in zip(names, (self.before, self.last), strict=True):
            block = entry(value, self.channels, self.last.size)
            yield Piece((), lambda block=block: block, name=name, reads=(value.name,))
        for node in range(NODES):
            choices = tuple(choice.name for choice in _choices(self.kind, node))
            edges = [f"{self.name}.edge{source}-{node + 2}" for source in range(node + 2)]
            for source, edge in enumerate(edges):
                build = self._edge_builder(source)
                yield Piece(choices, build, name=edge, reads=(names[source],), edge=True)
            names.append(f"{self.name}.node{node + 1}")
            yield Piece((), self._sum(), name=names[-1], reads=tuple(edges))
        concat = ConcatOf(
            in_channels=self.channels,
            height=self.output.size,
            width=self.output.size,
            inputs=NODES,
        )
        yield Piece((), lambda: concat, name=self.name, reads=tuple(names[2:]))

    def mixtures(self) -> dict[str, Mixture]:
        """By the name of an edge's piece, nothing and every operation."""
        found = {}
        for node in range(NODES):
            for source in range(node + 2):
                edge = f"edge{source}-{node + 2}"
                size, stride = self._reads(source)
                candidates = [operation(name, self.channels, size, stride) for name in OPERATIONS]
                mixture = Mixture(f"{self.kind}.{edge}", (None, *candidates))
                found[f"{self.name}.{edge}"] = mixture
        return found

    def _reads(self, source: int) -> tuple[int, int]:
        """Size in pixels of what an edge reads, and the edge's stride."""
        if source < 2:
            return self.last.size, 2 if self.kind == "reduce" else 1
        return self.output.size, 1

    def _sum(self) -> Callable[[], Block]:
        size = self.output.size
        return lambda: SumOf(in_channels=self.channels, height=size, width=size, inputs=2)

    def _edge_builder(self, source: int) -> Callable[..., Block | None]:
        size, stride = self._reads(source)

        def build(*options: str) -> Block | None:
            *inputs, first, second = options
            pair = [int(text) for text in inputs[0].split("+")] if inputs else [0, 1]
            if source not in pair:
                return None
            chosen = first if source == pair[0] else second
            return operation(chosen, self.channels, size, stride)

        return build


def _choices(kind: str, node: int) -> list[Choice]:
    """The choices of a node, counted from 0."""
    name = f"{kind}.node{node + 1}"
    pairs = tuple(f"{first}+{second}" for first, second in combinations(range(node + 2), 2))
    return [
        *([Choice(f"{name}.inputs", pairs)] if len(pairs) > 1 else []),
        Choice(f"{name}.first", OPERATIONS),
        Choice(f"{name}.second", OPERATIONS),
    ]


def darts(classes: int = 10, scale: Scale = PAPER) -> DartsSpace:
    """The space with the network that DARTS retrains on CIFAR-10."""
    return DartsSpace(classes, scale)
