"""Several costs as one: the mean of an architecture's costs, or the worst of them.

As on several devices at once. All must be of one space and in one unit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog

from ..devices.errors import UsageError
from .cost import CostModel, Factor, minimise
from .descent import found_minimum
from .pricing import FunctionCost

ROUNDS = 50
"""Most weightings of the costs that are tried for a bound."""

CONVERGED = 1e-9
"""Relative distance to the best bound that weightings can give, at which no more are tried."""


@dataclass(frozen=True, slots=True)
class Bound:
    """No architecture's worst cost is below `value`: the smallest `weights`-ed mean of its costs.

    `points` are the architectures that were met on the way.
    """

    value: float
    weights: tuple[float, ...]
    points: tuple[tuple[int, ...], ...]


def mean_cost(costs: Sequence[CostModel]) -> CostModel:
    """The mean of several costs of an architecture: additive where all of them are."""
    _check(costs)
    first, share = costs[0], 1 / len(costs)
    if not all(cost.is_additive for cost in costs):
        return FunctionCost(
            first.option_counts,
            lambda choices: share * sum(cost.of(choices) for cost in costs),
            describe=first.describe,
            unit=first.unit,
        )
    summed: dict[tuple[int, ...], NDArray[np.float64]] = {}
    for cost in costs:
        for factor in cost.factors:
            summed[factor.positions] = (
                summed.get(factor.positions, np.zeros(())) + share * factor.values
            )
    factors = [Factor(positions, values) for positions, values in summed.items()]
    constant = share * sum(cost.constant for cost in costs)
    return CostModel(first.option_counts, factors, constant, first.describe, unit=first.unit)


class WorstCost(CostModel):
    """The largest of several costs of an architecture.

    Exact for an architecture, and `maximum` is. The smallest worst cost is none of a sum:
    `minimum` is the best that a bounded search finds, `bound` what no architecture is below. Where
    they meet, both are exact. `expected` is refused.
    """

    is_additive = False

    def __init__(self, costs: Sequence[CostModel]) -> None:
        _check(costs)
        first = costs[0]
        super().__init__(first.option_counts, (), 0.0, first.describe, unit=first.unit)
        self.costs: tuple[CostModel, ...] = tuple(
            inner
            for cost in costs
            for inner in (cost.costs if isinstance(cost, WorstCost) else (cost,))
        )
        self.rows_at_once = min(cost.rows_at_once for cost in self.costs)

    def latency_ms(self, architectures: NDArray[np.integer[Any]]) -> NDArray[np.float64]:
        """As `CostModel.latency_ms`."""
        worst: NDArray[np.float64] = np.max(
            [cost.latency_ms(architectures) for cost in self.costs], axis=0
        )
        return worst

    def expected(self, probabilities: Sequence[NDArray[np.floating[Any]]]) -> float:
        """Raises `UsageError`: the mean of the worst is not the worst of the means."""
        raise UsageError(
            "the worst of several costs is no sum, so that the mean of a policy is none over its "
            "probabilities. Take the mean of the costs (mean_cost), or draw architectures."
        )

    def minimum(self) -> tuple[float, tuple[int, ...]]:
        """The smallest worst cost that was found, and an architecture that has it."""
        return self.of(self._best), self._best

    def maximum(self) -> tuple[float, tuple[int, ...]]:
        """The largest cost of any: as exact as those of the costs are."""
        return max((cost.maximum() for cost in self.costs), key=lambda found: found[0])

    def scaled(self, factor: float) -> CostModel:
        """As `CostModel.scaled`."""
        return WorstCost([cost.scaled(factor) for cost in self.costs])

    def certainty(self, choices: tuple[int, ...]) -> str:
        """As `CostModel.certainty`."""
        smallest, low = self.of(choices), self.bound.value
        if smallest <= low + 1e-6 * abs(low):
            return ""
        proven = "" if low == -np.inf else f"; that none is below {low:.6g} {self.unit} is proven"
        return f"It is the smallest of a search{proven}. "

    @cached_property
    def bound(self) -> Bound:
        """A proven bound of the smallest worst cost, of the additive costs; -inf without any.

        By Lagrange relaxation: for any weights that sum to 1, the smallest weighted mean of the
        costs is below the smallest worst cost. Weights are chosen by cutting planes (Kelley 1960),
        and each smallest mean is exact.
        """
        additive = [cost for cost in self.costs if cost.is_additive]
        if not additive:
            return Bound(-np.inf, (0.0,) * len(self.costs), ())
        weights = np.full(len(additive), 1 / len(additive))
        value, best, points = -np.inf, weights, dict[tuple[int, ...], list[float]]()
        for _ in range(ROUNDS):
            point = minimise(
                self.option_counts,
                [
                    Factor(factor.positions, weight * factor.values)
                    for cost, weight in zip(additive, weights.tolist(), strict=True)
                    if weight > 0
                    for factor in cost.factors
                ],
            )
            costs = [cost.of(point) for cost in additive]
            points[point] = costs
            mean = float(np.dot(weights, costs))
            if mean > value:
                value, best = mean, weights
            ceiling, weights = _heaviest(np.array(list(points.values())))
            if ceiling - value <= CONVERGED * abs(ceiling):
                break
        shares = iter(best.tolist())
        padded = tuple(next(shares) if cost.is_additive else 0.0 for cost in self.costs)
        return Bound(value, padded, tuple(points))

    @cached_property
    def _best(self) -> tuple[int, ...]:
        bound = self.bound
        # Costs that are equal to the bound but for rounding can't be bettered.
        enough = bound.value + CONVERGED * abs(bound.value)
        return found_minimum(
            self.option_counts, self.latency_ms, self.rows_at_once, bound.points, enough
        )


def _heaviest(costs: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
    """The weights for which the smallest mean of the rows is the largest, and that mean."""
    rows, count = costs.shape
    # Variables: the weights, and the mean t to be made large; t <= row @ weights for every row.
    scale = float(np.abs(costs).max()) or 1.0
    found = linprog(
        [0.0] * count + [-1.0],
        A_ub=np.hstack([-costs / scale, np.ones((rows, 1))]),
        b_ub=np.zeros(rows),
        A_eq=[[1.0] * count + [0.0]],
        b_eq=[1.0],
        bounds=[(0, None)] * count + [(None, None)],
    )
    *weights, mean = np.asarray(found.x).tolist()
    kept = np.array([weight if weight > CONVERGED else 0.0 for weight in weights])
    return scale * mean, kept / kept.sum()


def _check(costs: Sequence[CostModel]) -> None:
    if not costs:
        raise UsageError("a combined cost needs at least one cost")
    if len({(cost.option_counts, cost.unit) for cost in costs}) > 1:
        named = "; ".join(f"{cost.option_counts} in {cost.unit or 1}" for cost in costs)
        raise UsageError(f"costs of one space, in one unit, can be combined; these are of {named}")
