"""Bayesian optimisation over choices: the strategy to take where nothing speaks for another one.

Latency is known for nothing and accuracy is dear, so a Gaussian process of accuracy alone decides
which of many cheap candidates to evaluate (Jones et al. 1998; in architecture search BANANAS, White
et al. 2021, whose candidates are mutants of the best, too).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from ...devices.errors import UsageError
from ...latency.cost import CostModel
from ...latency.limits import Limit
from ..space import SearchSpace
from .breeding import Rows, changed, crossed
from .constrained import BudgetedStrategy
from .front import front_of
from .strategy import Evaluation, rank
from .surrogate import Candidates, Surrogate, warped

Floats = NDArray[np.float64]

FIRST = 20
"""Random architectures before anything is believed."""

PARENTS = 20
"""The best evaluations, whose mutants are candidates."""

CANDIDATES = 512
"""Architectures that are compared at a time: half of them bred, half random."""

SHARE = 0.1
FEWEST = 4
"""Evaluations that one look at the process proposes: this share of those there are, or so many."""


class Bayesian(BudgetedStrategy):
    """Evaluates what is expected to improve most, and learns from it.

    Within `target_ms` that is the expected improvement over the most accurate so far. Without a
    target (`None`) it is the expected gain in hypervolume: as latency is known, an integral of
    expected improvements over the front (Emmerich et al. 2006 have it for two unknown values).
    Candidates are mutants and children of the best, or of the front, and random architectures. A
    look proposes several: each as if the ones before had been found to be what was expected of
    them (the kriging believer of Ginsbourger et al. 2010).

    It may be stopped at any time; `budget` is where it ends by itself. Settings are ours, and the
    places cited are recalled.
    """

    name = "bayesian"

    def __init__(
        self,
        space: SearchSpace,
        cost: CostModel,
        target_ms: float | None = None,
        *,
        budget: int = 1000,
        first: int = FIRST,
        seed: int = 0,
        also: Sequence[Limit] = (),
    ) -> None:
        super().__init__(space, cost, target_ms, seed, also)
        self.budget = budget
        self.first = first
        if budget < 1 or first < 2:
            raise UsageError("a Bayesian search needs a budget, and at least two to begin with")

    def front(self) -> list[Evaluation]:
        """The evaluations that no other one beats, from the fastest to the most accurate."""
        return front_of(self.evaluations)

    def _propose(self, count: int) -> list[tuple[int, ...]]:
        """Random ones to begin with; once told about all, the most promising."""
        if self._queue or self._pending or self.done:
            return []
        known = len(self.evaluations)
        left = self.budget - known
        if known < self.first:
            found = self._draw(min(self.first, self.budget) - known)
        else:
            found = self._promising(min(left, max(FEWEST, int(SHARE * known))))
        self._exhausted = not found
        return found

    def _promising(self, count: int) -> list[tuple[int, ...]]:
        """The best `count` of the candidates, one after the other."""
        candidates = self._candidates()
        if not candidates:
            return []
        rows = np.array([item.choices for item in self.evaluations], dtype=np.int64)
        latency_ms = np.array([item.latency_ms for item in self.evaluations])
        worth = warped(np.array([item.accuracy for item in self.evaluations]))
        surrogate = Surrogate(rows, latency_ms, worth)
        offered = np.array(candidates, dtype=np.int64)
        offered_ms = self.cost.latency_ms(offered)
        believed = surrogate.believe(offered, offered_ms)
        front = _Front(latency_ms, worth, float(max(latency_ms.max(), offered_ms.max())))
        chosen: list[tuple[int, ...]] = []
        free = np.ones(len(candidates), dtype=np.bool_)
        while len(chosen) < min(count, len(candidates)):
            gain = self._gain(surrogate, believed, offered_ms, front)
            index = int(np.where(free, gain, -1.0).argmax())
            free[index] = False
            chosen.append(candidates[index])
            front.add(float(offered_ms[index]), float(believed.mean[index]))
            believed = surrogate.after(believed, index)
        self._visited.update(chosen)
        return chosen

    def _gain(
        self, surrogate: Surrogate, believed: Candidates, latency_ms: Floats, front: _Front
    ) -> Floats:
        deviation = surrogate.deviation(believed.variance)
        if self.target_ms is not None:
            return expected_improvement(believed.mean, deviation, front.highest)
        return front.expected_gain(latency_ms, believed.mean, deviation)

    def _candidates(self) -> list[tuple[int, ...]]:
        """New architectures: bred from the best and the front, and random."""
        ranked = sorted(self.evaluations, key=rank)[:PARENTS]
        if self.target_ms is None:
            ranked = [*ranked, *self.front()]
        parents = np.array(list({item.choices: None for item in ranked}), dtype=np.int64)
        half = CANDIDATES // 2
        bred = self._fresh(self._bred(parents, 2 * half).tolist(), half)
        drawn = self.space.sample_choices(2 * half, self._random).astype(np.int64)
        random = self._fresh(drawn[self._fits(drawn)].tolist(), CANDIDATES - len(bred))
        found = list(dict.fromkeys([*bred, *random]))
        if not found:
            found = self._draw(half)
            self._visited.difference_update(found)
        return found

    def _bred(self, parents: Rows, count: int) -> Rows:
        """Mutants in one choice, in two choices, and children of two parents."""
        picked = parents[self._random.integers(len(parents), size=(2, count))]
        once = changed(self.space, picked[0], self._random)
        twice = changed(self.space, once, self._random)
        children = crossed(self.space, picked[0], picked[1], self._random)
        kind = self._random.integers(3, size=(count, 1))
        return np.select([kind == 0, kind == 1], [once, twice], children)


class _Front:
    """The front of what was evaluated, and of what is believed of that to come."""

    def __init__(self, latency_ms: Floats, worth: Floats, ceiling_ms: float) -> None:
        self.ceiling_ms = ceiling_ms
        self.floor = float(worth.min())
        self.highest = float(worth.max())
        order = np.lexsort((-worth, latency_ms))
        higher = np.maximum.accumulate(worth[order])
        steps = np.flatnonzero(np.diff(higher, prepend=-np.inf) > 0)
        self.latency_ms, self.worth = latency_ms[order][steps], higher[steps]

    def add(self, latency_ms: float, worth: float) -> None:
        """Count this in."""
        self.highest = max(self.highest, worth)
        place = int(np.searchsorted(self.latency_ms, latency_ms, side="right"))
        if place and self.worth[place - 1] >= worth:
            return
        keep = (self.latency_ms < latency_ms) | (self.worth > worth)
        self.latency_ms = np.insert(self.latency_ms[keep], np.sum(keep[:place]), latency_ms)
        self.worth = np.insert(self.worth[keep], np.sum(keep[:place]), worth)

    def expected_gain(self, latency_ms: Floats, mean: Floats, deviation: Floats) -> Floats:
        """Expected gain in hypervolume: widths of the front's steps times improvements over them.

        From a candidate's latency on to the right, it improves on each step by what it exceeds it.
        """
        starts = np.concatenate([[-np.inf], self.latency_ms])
        ends = np.concatenate([self.latency_ms, [self.ceiling_ms]])
        levels = np.concatenate([[self.floor], self.worth])
        widths = np.maximum(ends - np.maximum(starts, latency_ms[:, None]), 0.0)
        gains = expected_improvement(mean[:, None], deviation[:, None], levels)
        return np.asarray((widths * gains).sum(axis=1))


def expected_improvement(mean: Floats, deviation: Floats, level: Floats | float) -> Floats:
    """Mean of max(0, X - level) for a normal X (Jones et al. 1998, equation 15; recalled)."""
    excess = mean - level
    z = excess / deviation
    density = np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi)
    return np.asarray(np.maximum(excess * ndtr(z) + deviation * density, 0.0))
