"""SPOS's evolutionary search within a latency target (Guo et al. 2019, section 3.4)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...devices.errors import UsageError
from ...latency.cost import CostModel
from ...latency.limits import Limit
from ..space import SearchSpace
from .breeding import TRIES_PER_CHILD, Rows, crossed, redrawn
from .constrained import ConstrainedStrategy
from .strategy import rank


class Evolution(ConstrainedStrategy):
    """`rounds` populations, the first random, the others bred from the best `parents` so far.

    A new population has `mutations` mutants (each choice redrawn with `mutation_probability`) and
    `crossovers` children of two parents (each choice from either). What is above the target or
    was visited is rejected, in at most 10 tries a child; random architectures fill the rest. The
    defaults are the paper's: 1,000 evaluations. With a smaller `population` the two operators
    make half of it each, unless given.
    """

    name = "evolution"

    def __init__(
        self,
        space: SearchSpace,
        cost: CostModel,
        target_ms: float,
        *,
        population: int = 50,
        rounds: int = 20,
        parents: int = 10,
        mutations: int | None = None,
        crossovers: int | None = None,
        mutation_probability: float = 0.1,
        seed: int = 0,
        also: Sequence[Limit] = (),
    ) -> None:
        super().__init__(space, cost, target_ms, seed, also)
        self.population = population
        self.rounds = rounds
        self.parents = parents
        self.mutations = population // 2 if mutations is None else mutations
        self.crossovers = population // 2 if crossovers is None else crossovers
        self.mutation_probability = mutation_probability
        if min(population, rounds, parents) < 1:
            raise UsageError("population, rounds and parents of an evolution must be at least 1")
        if self.mutations + self.crossovers > population:
            raise UsageError(
                f"{self.mutations} mutations and {self.crossovers} crossovers exceed the "
                f"population of {population}"
            )
        self._round = 0

    @property
    def done(self) -> bool:
        """Whether all rounds were evaluated, or nothing new could be bred or drawn."""
        if self._queue or self._pending:
            return False
        return self._exhausted or self._round >= self.rounds

    def _propose(self, count: int) -> list[tuple[int, ...]]:
        """The next population, once the one before was told about in full."""
        if self._queue or self._pending or self.done:
            return []
        bred: list[tuple[int, ...]] = []
        if self.evaluations:
            ranked = sorted(self.evaluations, key=rank)[: self.parents]
            best = np.array([item.choices for item in ranked], dtype=np.int64)
            bred += self._mutants(best)
            bred += self._children(best)
        bred += self._draw(self.population - len(bred))
        self._round += 1
        self._exhausted = not bred
        return bred

    def _mutants(self, best: Rows) -> list[tuple[int, ...]]:
        picked = self._random.integers(len(best), size=TRIES_PER_CHILD * self.mutations)
        tried = redrawn(self.space, best[picked], self.mutation_probability, self._random)
        return self._admit(tried.tolist(), self.mutations)

    def _children(self, best: Rows) -> list[tuple[int, ...]]:
        pairs = self._random.integers(len(best), size=(TRIES_PER_CHILD * self.crossovers, 2))
        tried = crossed(self.space, best[pairs[:, 0]], best[pairs[:, 1]], self._random)
        return self._admit(tried.tolist(), self.crossovers)

    def _own_state(self) -> dict[str, Any]:
        return {**super()._own_state(), "round": self._round}

    def _load_own_state(self, state: dict[str, Any]) -> None:
        super()._load_own_state(state)
        self._round = int(state["round"])
