"""Limits of what an architecture may cost: several at once, each on a cost of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..devices.errors import UnreachableTargetError, UsageError
from .combined import WorstCost
from .cost import CostModel
from .descent import found_minimum

PROVEN = 1e-9
"""Share by which a bound must be above the limits, for it to be more than rounding."""


@dataclass(frozen=True, slots=True, eq=False)
class Limit:
    """No architecture may cost more than `most`, in the cost's unit. Messages call it `name`."""

    cost: CostModel
    most: float
    name: str

    def __str__(self) -> str:
        return f"{self.name} of at most {self.most:g} {self.cost.unit}"


def fits(limits: Sequence[Limit], rows: NDArray[np.integer[Any]]) -> NDArray[np.bool_]:
    """Which rows of option indices keep all limits: (N,).

    Costs that are tables are asked first, and those that are called only about what is left.
    """
    inside = np.ones(len(rows), dtype=bool)
    for limit in _cheap_first(limits):
        left = np.flatnonzero(inside)
        if len(left) == 0:
            break
        taken = rows if len(left) == len(rows) else rows[left]
        inside[left] = limit.cost.latency_ms(taken) <= limit.most
    return inside


def require_feasible(limits: Sequence[Limit]) -> tuple[int, ...]:
    """An architecture that keeps all limits.

    Raises `UnreachableTargetError` where one of them can't be kept, naming the smallest reachable
    cost; where they contradict each other, as a bound proves (`WorstCost.bound`, each cost being
    a share of its limit), naming them and by how much; or where neither a proof nor an
    architecture was found in a bounded search, saying so.
    """
    if not limits:
        raise UsageError("at least one limit is needed")
    for limit in limits:
        try:
            limit.cost.require_reachable(limit.most)
        except UnreachableTargetError as error:
            raise UnreachableTargetError(f"{limit.name}: {error}") from None
    fastest = limits[0].cost.minimum()[1]
    if fits(limits, np.array([fastest]))[0]:
        return fastest
    shares = [limit.cost.scaled(1 / limit.most) for limit in _cheap_first(limits)]
    worst = WorstCost(shares)
    counts = worst.option_counts
    # Quick where limits are loose; cutting planes only where they are not.
    found = found_minimum(counts, worst.latency_ms, worst.rows_at_once, enough=1.0)
    if not fits(limits, np.array([found]))[0]:
        if worst.bound.value > 1 + PROVEN:
            raise UnreachableTargetError(_contradiction(limits, worst))
        found = worst.minimum()[1]
    if not fits(limits, np.array([found]))[0]:
        costs = ", ".join(
            f"{limit.name} {limit.cost.of(found):.6g} {limit.cost.unit}" for limit in limits
        )
        raise UnreachableTargetError(
            f"no architecture was found that keeps all limits ({_listed(limits)}), and that there "
            f"is none is not proven. The nearest one found has {costs}: "
            f"{worst.describe(found)}. Loosen a limit."
        )
    return found


def _cheap_first(limits: Sequence[Limit]) -> list[Limit]:
    return sorted(limits, key=lambda limit: -limit.cost.rows_at_once)


def _listed(limits: Sequence[Limit]) -> str:
    return ", ".join(map(str, limits))


def _contradiction(limits: Sequence[Limit], worst: WorstCost) -> str:
    """Which limits contradict each other, and how far each would have to be loosened alone."""
    bound = worst.bound
    weights: dict[Limit, float] = dict.fromkeys(limits, 0.0)
    weight_of = iter(bound.weights)
    for limit in _cheap_first(limits):
        parts = limit.cost.costs if isinstance(limit.cost, WorstCost) else (limit.cost,)
        weights[limit] = sum(next(weight_of) for _ in parts)
    involved = [limit for limit in limits if weights[limit] > 0]
    over = bound.value - 1
    # The weighted mean of all shares is above the bound: where the others are at most 1, the
    # share of one is at least this.
    least = " or ".join(
        f"{limit.name} of at least {limit.most * (1 + over / weights[limit]):.6g} {limit.cost.unit}"
        for limit in involved
    )
    return (
        f"limits contradict each other: {_listed(involved)}. Every architecture exceeds one of "
        f"them by at least {over:.3%}; with the others kept, it would have {least}. Loosen "
        "one of them."
    )
