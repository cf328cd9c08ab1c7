"""Spaces whose candidates can be weighted against each other, for a search by gradients."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..latency.blocks import Block
from .space import Architecture, Piece

Weights = Mapping[str, NDArray[np.floating[Any]]]
"""By the name of a mixture, a weight for each of its candidates."""


@dataclass(frozen=True, slots=True)
class Mixture:
    """What may stand at a piece; `None` is nothing, which adds nothing.

    Pieces of equal cells have mixtures of one name, which share their weights.
    """

    name: str
    candidates: tuple[Block | None, ...]


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
