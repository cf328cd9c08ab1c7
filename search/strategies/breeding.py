"""New choices from old ones: mutation and crossover, a row of option indices each.

What comes out need not be canonical, nor within a limit: who breeds has to check.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..space import SearchSpace

Rows = NDArray[np.int64]
"""(N, L) option indices."""

TRIES_PER_CHILD = 10
"""Most attempts of an operator for each child that it shall give."""


def redrawn(
    space: SearchSpace, parents: Rows, probability: float, random: np.random.Generator
) -> Rows:
    """Each parent with every choice drawn anew with `probability`."""
    drawn = space.sample_choices(len(parents), random).astype(np.int64)
    return np.where(random.random(parents.shape) < probability, drawn, parents)


def crossed(mothers: Rows, fathers: Rows, random: np.random.Generator) -> Rows:
    """A child of each pair, with every choice from either with equal chances."""
    return np.where(random.random(mothers.shape) < 0.5, mothers, fathers)


def changed(parents: Rows, option_counts: Sequence[int], random: np.random.Generator) -> Rows:
    """Each parent with one of its choices changed to another option.

    The parents as they are where no choice has a second option.
    """
    counts = np.array(option_counts)
    free = np.flatnonzero(counts > 1)
    children = np.array(parents, dtype=np.int64)
    if not len(free):
        return children
    rows = np.arange(len(children))
    positions = free[random.integers(len(free), size=len(children))]
    steps = 1 + np.floor(random.random(len(children)) * (counts[positions] - 1)).astype(np.int64)
    children[rows, positions] = (children[rows, positions] + steps) % counts[positions]
    return children
