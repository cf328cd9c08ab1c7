"""Small costs found by changing one choice at a time, where no exact way to them is known."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.integer[Any]]

STARTS = 8
"""The cheapest of the random architectures, from each of which it descends."""


def found_minimum(
    option_counts: Sequence[int],
    cost: Callable[[Rows], NDArray[np.float64]],
    draws: int,
    more: Iterable[tuple[int, ...]] = (),
    enough: float | None = None,
) -> tuple[int, ...]:
    """The cheapest architecture that descents find, from the best of `draws` random and `more`.

    `cost` tells that of each row of option indices. Ends at once where one costs at most `enough`.
    The same for the same arguments; there may be better ones.
    """
    random = np.random.default_rng(0)
    drawn = random.integers(np.array(option_counts), size=(draws, len(option_counts)))
    ranked = drawn[np.argsort(cost(drawn), kind="stable")[:STARTS]]
    best: tuple[float, tuple[int, ...]] | None = None
    for start in [*more, *map(tuple, ranked.tolist())]:
        if best is not None and enough is not None and best[0] <= enough:
            break
        found = _descended(option_counts, cost, start, enough)
        best = found if best is None else min(best, found)
    return () if best is None else best[1]


def _descended(
    option_counts: Sequence[int],
    cost: Callable[[Rows], NDArray[np.float64]],
    start: tuple[int, ...],
    enough: float | None,
) -> tuple[float, tuple[int, ...]]:
    """Take the best option of one choice after the other until none is better."""
    row = np.array(start, dtype=np.int64)
    value, before = float(cost(row[None])[0]), float("inf")
    while value < before and (enough is None or value > enough):
        before = value
        for position, count in enumerate(option_counts):
            rows = np.repeat(row[None], count, axis=0)
            rows[:, position] = range(count)
            costs = cost(rows)
            best = int(costs.argmin())
            if costs[best] < value:
                row, value = rows[best], float(costs[best])
    return value, tuple(row.tolist())
