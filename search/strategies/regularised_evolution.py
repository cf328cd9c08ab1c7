"""Regularised evolution within a latency target (Real et al. 2019, section 3.3 and algorithm 1)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...devices.errors import UsageError
from ...latency.cost import CostModel
from ...latency.limits import Limit
from ..space import SearchSpace
from .breeding import TRIES_PER_CHILD, Rows, changed
from .constrained import BudgetedStrategy
from .strategy import rank

POPULATION = 100
SAMPLE_SHARE = 0.25


class RegularisedEvolution(BudgetedStrategy):
    """The best of a random sample of the population has a child; the oldest member dies.

    A child differs from its parent in one choice. The paper allows it to be known already; here,
    as for all strategies within a limit, what was visited or is above the target is tried again,
    at most 10 times a child, and random architectures stand in.

    `budget` counts evaluations. The population of 100 and the sample of 25 are recalled; with
    fewer than 1,000 evaluations the population is a tenth of them, at least 10, and the sample a
    quarter of it, unless given.
    """

    name = "regularised_evolution"

    def __init__(
        self,
        space: SearchSpace,
        cost: CostModel,
        target_ms: float | None,
        *,
        budget: int = 1000,
        population: int | None = None,
        sample: int | None = None,
        seed: int = 0,
        also: Sequence[Limit] = (),
    ) -> None:
        super().__init__(space, cost, target_ms, seed, also)
        self.budget = budget
        self.population = scaled_population(budget) if population is None else population
        self.sample = max(2, round(SAMPLE_SHARE * self.population)) if sample is None else sample
        if min(budget, self.population, self.sample) < 1:
            raise UsageError("budget, population and sample of an evolution must be at least 1")
        if population is not None and self.sample > population:
            raise UsageError(f"a sample of {self.sample} exceeds the population of {population}")

    def _propose(self, count: int) -> list[tuple[int, ...]]:
        """The first population at random; once all of it was told about, children."""
        wanted = min(count, self.budget - len(self._visited))
        if wanted <= 0 or self._exhausted:
            return []
        founders = self.population - len(self._visited)
        if founders > 0:
            wanted = min(wanted, founders)
            found = self._draw(wanted)
            self._exhausted = len(found) < wanted
            return found
        if len(self.evaluations) < self.population:
            return []
        bred = self._admit(self._children(TRIES_PER_CHILD * wanted).tolist(), wanted)
        bred += self._draw(wanted - len(bred))
        self._exhausted = not bred
        return bred

    def _children(self, count: int) -> Rows:
        """One child each of the best of `count` samples."""
        living = self.evaluations[-self.population :]
        places = np.argsort(sorted(range(len(living)), key=lambda index: rank(living[index])))
        size = min(self.sample, len(living))
        order = self._random.random((count, len(living))).argsort(axis=1, kind="stable")
        sampled = order[:, :size]
        winners = sampled[np.arange(count), places[sampled].argmin(axis=1)]
        choices = np.array([item.choices for item in living], dtype=np.int64)
        return changed(self.space, choices[winners], self._random)


def scaled_population(budget: int) -> int:
    """100 members where there are 1,000 evaluations or more; else a tenth, at least 10."""
    return min(POPULATION, max(10, budget // 10))
