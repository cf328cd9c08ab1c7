"""NSGA-II: the front of accuracy and latency (Deb et al. 2002)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...devices.errors import UsageError
from ...latency.cost import CostModel
from ...latency.limits import Limit
from ..space import SearchSpace
from .breeding import TRIES_PER_CHILD, Rows, crossed, redrawn
from .constrained import BudgetedStrategy
from .front import crowding, dominance_ranks, front_of
from .regularised_evolution import scaled_population
from .strategy import Evaluation


class Nsga2(BudgetedStrategy):
    """Generations of children; the fronts of parents and children that survive are the next ones.

    Parents win a tournament of two, by front and, within one, by crowding distance. A child takes
    each choice from either parent with equal chances, in `crossover_probability` of the cases,
    and each choice is drawn anew with `mutation_probability`, by default one in a child.
    Duplicates and what is above `target_ms` (`None`: no limit) are tried again, at most 10 times
    a child; random architectures fill the rest.

    `budget` counts evaluations. The population of 100 and the crossover probability of 0.9 are
    recalled; with fewer than 1,000 evaluations the population is a tenth of them, at least 10,
    unless given.
    """

    name = "nsga2"

    def __init__(
        self,
        space: SearchSpace,
        cost: CostModel,
        target_ms: float | None = None,
        *,
        budget: int = 1000,
        population: int | None = None,
        crossover_probability: float = 0.9,
        mutation_probability: float | None = None,
        seed: int = 0,
        also: Sequence[Limit] = (),
    ) -> None:
        super().__init__(space, cost, target_ms, seed, also)
        self.budget = budget
        self.population = scaled_population(budget) if population is None else population
        self.crossover_probability = crossover_probability
        one_in_a_child = 1 / max(1, len(space.choices))
        self.mutation_probability = (
            one_in_a_child if mutation_probability is None else mutation_probability
        )
        if budget < 1 or self.population < 2:
            raise UsageError("NSGA-II needs a budget of at least 1, and a population of at least 2")
        # Indices of evaluations, and how many of these the members were chosen from.
        self._members: list[int] = []
        self._considered = 0

    def front(self) -> list[Evaluation]:
        """The evaluations that no other one beats, from the fastest to the most accurate."""
        return front_of(self.evaluations)

    def _propose(self, count: int) -> list[tuple[int, ...]]:
        """The next generation, once the one before was told about in full."""
        if self._queue or self._pending or self.done:
            return []
        wanted = min(self.population, self.budget - len(self.evaluations))
        bred: list[tuple[int, ...]] = []
        if self.evaluations:
            self._select()
            bred += self._admit(self._children(TRIES_PER_CHILD * wanted).tolist(), wanted)
        bred += self._draw(wanted - len(bred))
        self._exhausted = not bred
        return bred

    def _select(self) -> None:
        """Who survives of members and children: whole fronts, then the least crowded."""
        pool = [*self._members, *range(self._considered, len(self.evaluations))]
        ranks, distances = self._fitness(pool)
        order = np.lexsort((-distances, ranks))[: self.population]
        self._members = [pool[index] for index in order]
        self._considered = len(self.evaluations)

    def _fitness(self, pool: Sequence[int]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Front and crowding distance of each of these evaluations."""
        accuracy = np.array([self.evaluations[index].accuracy for index in pool])
        latency_ms = np.array([self.evaluations[index].latency_ms for index in pool])
        ranks = dominance_ranks(accuracy, latency_ms)
        distances = np.zeros(len(pool))
        for front in range(int(ranks.max()) + 1):
            own = ranks == front
            distances[own] = crowding(accuracy[own], latency_ms[own])
        return ranks, distances

    def _children(self, count: int) -> Rows:
        ranks, distances = self._fitness(self._members)
        places = np.empty(len(ranks), dtype=np.int64)
        places[np.lexsort((-distances, ranks))] = np.arange(len(ranks))
        entrants = self._random.integers(len(places), size=(count, 2, 2))
        winners = np.take_along_axis(
            entrants, places[entrants].argmin(axis=2)[:, :, None], axis=2
        ).squeeze(2)
        choices = np.array([self.evaluations[i].choices for i in self._members], dtype=np.int64)
        mothers, fathers = choices[winners[:, 0]], choices[winners[:, 1]]
        pairs = self._random.random((count, 1)) < self.crossover_probability
        children = np.where(pairs, crossed(self.space, mothers, fathers, self._random), mothers)
        return redrawn(self.space, children, self.mutation_probability, self._random)

    def _own_state(self) -> dict[str, Any]:
        return {
            **super()._own_state(),
            "members": list(self._members),
            "considered": self._considered,
        }

    def _load_own_state(self, state: dict[str, Any]) -> None:
        super()._load_own_state(state)
        self._members = [int(index) for index in state["members"]]
        self._considered = int(state["considered"])
