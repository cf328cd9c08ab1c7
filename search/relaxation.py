"""Spaces whose candidates can be weighted against each other, for a search by gradients."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from ..latency.blocks import Block
from .space import Architecture, Piece

Weights = Mapping[str, NDArray[np.floating[Any]]]
"""By the name of a mixture or a sink, a weight for each of its candidates."""


@dataclass(frozen=True, slots=True)
class Mixture:
    """What may stand at a piece; `None` is nothing, which adds nothing.

    Pieces of equal cells have mixtures of one name, which share their weights.
    """

    name: str
    candidates: tuple[Block | None, ...]


@dataclass(frozen=True, slots=True)
class Sink:
    """The end of a stage: a weighted sum of what its layers give, a weight for each depth.

    `pieces` are the indices of the last layers that the depths keep (TF-NAS, Hu et al. 2020,
    section 3.2: sink-connecting).
    """

    name: str
    pieces: tuple[int, ...]


@runtime_checkable
class RelaxableSpace(Protocol):
    """A space whose architectures can be weighted against each other."""

    @property
    def name(self) -> str:
        """What the space is called."""

    @property
    def pieces(self) -> tuple[Piece, ...]:
        """The places of its networks."""

    @property
    def sources(self) -> tuple[tuple[int, ...], ...]:
        """Indices of the pieces that each piece reads, -1 for the network's input."""

    def mixtures(self) -> Mapping[int, Mixture]:
        """By the index of a piece, the mixture that stands there; the other pieces are fixed."""

    def discretise(self, weights: Weights) -> Architecture:
        """The architecture that the strongest candidates make."""


@runtime_checkable
class SinkConnected(Protocol):
    """A relaxable space in which the depth of a stage can be weighted too."""

    def sinks(self) -> Mapping[int, Sink]:
        """By the index of a stage's last piece, the sink that stands behind it."""
