"""NAS-Bench-201's cells (Dong & Yang 2020): four nodes, six edges, five operations.

Three stages of equal cells, with residual reductions between them. `ops` of the published tables
number the operations of the edges in the order of `EDGES`, as here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from ...latency.blocks import (
    Block,
    CellConv,
    Classifier,
    ConvBlock,
    Nothing,
    Pooling,
    ResidualReduction,
    Skip,
    SumOf,
)
from ..choices import Choice
from ..relaxation import Mixture, Weights
from ..space import Architecture, Piece, SearchSpace
from .scale import PAPER, Scale

CHANNELS = (16, 32, 64)
CELLS = 5
RESOLUTION = 32
NODES = 4
NONE = "none"
OPERATIONS = (NONE, "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
EDGES = tuple((source, node) for node in range(1, NODES) for source in range(node))


class NasBench201Space(SearchSpace):
    """The space; choices are called `edge0-1`, `edge0-2`, `edge1-2`, `edge0-3`, ..."""

    def __init__(self, classes: int = 10, scale: Scale = PAPER, cells: int = CELLS) -> None:
        self._classes = classes
        self._cells = cells
        self._resolution = (scale.resolutions or (RESOLUTION,))[0]
        self._channels = [scale.channels(channels) for channels in CHANNELS]
        self._mixtures: dict[str, Mixture] = {}
        choices = [Choice(_edge(*edge), OPERATIONS) for edge in EDGES]
        super().__init__("nasbench201", choices, self._all_pieces())

    def _all_pieces(self) -> Iterator[Piece]:
        size, before = self._resolution, 3
        for stage, channels in enumerate(self._channels):
            yield Piece((), self._entry(stage, before, channels, size))
            size = size if stage == 0 else size // 2
            # What a cell reads first must have a name.
            yield Piece((), self._skip(channels, size), name=f"stage{stage}.cell0")
            for cell in range(self._cells):
                for piece in _cell(f"stage{stage}.cell", cell, channels, size):
                    if piece.edge:
                        candidates = tuple(_operation(name, channels, size) for name in OPERATIONS)
                        edge = piece.name.rpartition(".")[2]
                        self._mixtures[piece.name] = Mixture(edge, candidates)
                    yield piece
            before = channels
        yield Piece(
            (),
            lambda: Classifier(
                in_channels=before, height=size, width=size, classes=self._classes, norm=True
            ),
        )

    def mixtures(self) -> dict[int, Mixture]:
        """By the index of a piece, its mixture: equal edges of all cells share one."""
        return {
            index: self._mixtures[piece.name]
            for index, piece in enumerate(self.pieces)
            if piece.edge
        }

    def discretise(self, weights: Weights) -> Architecture:
        """The architecture with the strongest operation on each edge, `none` among them."""
        return self.architecture([int(np.argmax(weights[_edge(*edge)])) for edge in EDGES])

    @staticmethod
    def _entry(stage: int, before: int, channels: int, size: int) -> Callable[[], Block]:
        if stage == 0:
            return lambda: ConvBlock(
                in_channels=before,
                height=size,
                width=size,
                out_channels=channels,
                activation="none",
            )
        return lambda: ResidualReduction(
            in_channels=before, height=size, width=size, out_channels=channels
        )

    @staticmethod
    def _skip(channels: int, size: int) -> Callable[[], Block]:
        return lambda: Skip(in_channels=channels, height=size, width=size)


def _cell(prefix: str, number: int, channels: int, size: int) -> Iterator[Piece]:
    """Edges and nodes of one cell; its last node has the next cell's name."""
    names = [f"{prefix}{number}"]
    names += [f"{prefix}{number}.node{node}" for node in range(1, NODES - 1)]
    names += [f"{prefix}{number + 1}"]
    for node in range(1, NODES):
        choices = tuple(_edge(source, node) for source in range(node))
        edges = [f"{names[0]}.{choice}" for choice in choices]
        for source in range(node):
            # The first edge gives zeros where all are left out, and has to know of the others.
            read = choices if source == 0 else (choices[source],)
            build = _edge_builder(channels, size, source == 0)
            yield Piece(read, build, name=edges[source], reads=(names[source],), edge=True)
        yield Piece(choices, _node_builder(channels, size), name=names[node], reads=tuple(edges))


def _edge_builder(channels: int, size: int, first: bool) -> Callable[..., Block | None]:
    def build(operation: str, *others: str) -> Block | None:
        if operation == NONE and first and not set(others) - {NONE}:
            return Nothing(in_channels=channels, height=size, width=size)
        return _operation(operation, channels, size)

    return build


def _operation(name: str, channels: int, size: int) -> Block | None:
    """The block of one of `OPERATIONS`."""
    place = {"in_channels": channels, "height": size, "width": size}
    match name:
        case "none":
            return None
        case "skip_connect":
            return Skip(**place)
        case "nor_conv_1x1":
            return CellConv(**place, out_channels=channels, kernel=1)
        case "nor_conv_3x3":
            return CellConv(**place, out_channels=channels, kernel=3)
        case _:
            return Pooling(**place, pool="average", kernel=3, stride=1)


def _node_builder(channels: int, size: int) -> Callable[..., Block | None]:
    def build(*operations: str) -> Block | None:
        present = sum(operation != NONE for operation in operations)
        if present < 2:
            return None
        return SumOf(in_channels=channels, height=size, width=size, inputs=present)

    return build


def _edge(source: int, node: int) -> str:
    return f"edge{source}-{node}"


def nasbench201(classes: int = 10, scale: Scale = PAPER) -> NasBench201Space:
    """The space as the benchmark has it: 15,625 networks for 32-pixel images."""
    return NasBench201Space(classes, scale)
