"""New choices from old ones: mutation and crossover, a row of option indices each.

A choice that is off in a parent says nothing, whatever its canonical form has there: should the
child have it on, it is drawn anew, or is the other parent's. What comes out need not be canonical,
nor within a limit: who breeds has to check.
"""

from __future__ import annotations

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
    anew = (random.random(parents.shape) < probability) | ~_on(space, parents)
    return np.where(anew, drawn, parents)


def crossed(space: SearchSpace, mothers: Rows, fathers: Rows, random: np.random.Generator) -> Rows:
    """A child of each pair, with every choice from either with equal chances."""
    on = _on(space, mothers), _on(space, fathers)
    mothers_own = np.where(on[0] == on[1], random.random(mothers.shape) < 0.5, on[0])
    drawn = space.sample_choices(len(mothers), random).astype(np.int64)
    return np.where(on[0] | on[1], np.where(mothers_own, mothers, fathers), drawn)


def changed(space: SearchSpace, parents: Rows, random: np.random.Generator) -> Rows:
    """Each parent with one of its choices changed to another option.

    The parents as they are where no choice has a second option.
    """
    counts = np.array(space.option_counts)
    free = np.flatnonzero(counts > 1)
    children = redrawn(space, parents, 0.0, random)
    if not len(free):
        return children
    rows = np.arange(len(children))
    positions = free[random.integers(len(free), size=len(children))]
    steps = 1 + np.floor(random.random(len(children)) * (counts[positions] - 1)).astype(np.int64)
    children[rows, positions] = (children[rows, positions] + steps) % counts[positions]
    return children


def _on(space: SearchSpace, rows: Rows) -> NDArray[np.bool_]:
    """Which choices of each row are on."""
    found = [space.active(row) for row in rows.tolist()]
    return np.array(found, dtype=np.bool_).reshape(rows.shape)
