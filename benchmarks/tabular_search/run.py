"""One search on a table: what is counted, and where it ends."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from latkit.search.strategies.strategy import Strategy
from numpy.typing import NDArray

from .table import Table

ASKS = 4
"""Times the budget that a search may ask in all: repeats and what is above the target are free."""


class SpentError(Exception):
    """The budget is used up."""


class Evaluations:
    """Accuracies from the table; each architecture counts once, and its repeats are free.

    Raises `SpentError` where one more would exceed the budget, or the search has asked too often.
    """

    def __init__(self, table: Table, target_ms: float | None, budget: int) -> None:
        self.table, self.target_ms, self.budget = table, target_ms, budget
        self.charged: dict[int, None] = {}
        self._asks = 0

    def accuracy(self, choices: Sequence[int]) -> float:
        """What an architecture is worth."""
        self._ask()
        row = self.table.index(choices)
        if row not in self.charged:
            if len(self.charged) >= self.budget:
                raise SpentError
            self.charged[row] = None
        return float(self.table.accuracy[row])

    def rejected(self, choices: Sequence[int]) -> bool:
        """Whether an architecture is seen to be above the target: told at no charge."""
        above = self.target_ms is not None and self.latency_ms(choices) > self.target_ms
        if above:
            self._ask()
        return above

    def latency_ms(self, choices: Sequence[int]) -> float:
        """What strategies see of its latency."""
        return float(self.table.seen_ms[self.table.index(choices)])

    def _ask(self) -> None:
        self._asks += 1
        if self._asks > ASKS * self.budget:
            raise SpentError


@dataclass(frozen=True, eq=False)
class Found:
    """Rows of the table in the order in which they were charged, and seconds on one core."""

    rows: NDArray[np.intp]
    seconds: float


Search = Callable[[Evaluations, int], None]
"""Searches until `SpentError` is raised, or it has nothing more to ask; the number is its seed."""


def run(search: Search, table: Table, target_ms: float | None, budget: int, seed: int) -> Found:
    """What a search evaluates."""
    evaluations = Evaluations(table, target_ms, budget)
    start = time.perf_counter()
    with contextlib.suppress(SpentError):
        search(evaluations, seed)
    rows = np.array(list(evaluations.charged), dtype=np.intp)
    return Found(rows, time.perf_counter() - start)


def follow(strategy: Strategy, evaluations: Evaluations) -> None:
    """Run one of the kit's strategies to its end, one architecture at a time."""
    while not strategy.done:
        asked = strategy.ask(1)
        if not asked:
            return
        choices = asked[0].choices
        accuracy = evaluations.accuracy(choices)
        strategy.tell(asked, [accuracy], [evaluations.latency_ms(choices)])
