"""Costs of spaces of any kind: tables where they are sums over few choices, else called."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..devices.errors import LatkitError, UnreachableTargetError, UsageError
from .blocks import Block
from .cost import AdditiveSpace, CostModel, lay_out

FIRST_DRAWS = 64
"""Random architectures, among which the search for a minimum begins."""

STARTS = 8
"""The cheapest of them, from each of which it descends."""

REMEMBERED = 1 << 16
"""Architectures whose cost is kept."""


class PricedSpace(AdditiveSpace, Protocol):
    """A space whose networks may or may not be sums over few choices."""

    @property
    def is_additive(self) -> bool:
        """Whether `factors` holds all that networks are made of."""

    def blocks_of(self, choices: Sequence[int]) -> Sequence[Block]:
        """The blocks of the network of these option indices."""


def cost_model(
    space: PricedSpace, block_cost_ms: Callable[[Block], float], constant: float = 0.0
) -> CostModel:
    """What architectures of `space` cost: `constant`, and what each of their blocks does.

    Laid out as tables where the space is additive, else a `CalledCost`. Raises `LatkitError`
    naming a block whose cost is no finite number, with a `CalledCost` when it is met.
    """
    if space.is_additive:
        return lay_out(space, block_cost_ms, constant)
    return CalledCost(space, block_cost_ms, constant)


class CalledCost(CostModel):
    """Costs of a space whose blocks depend on many choices at once: each network is summed up.

    Exact for an architecture, and much slower than tables. `minimum` and `maximum` are those that
    a search of one choice at a time finds, from the best of some random architectures: there may
    be better ones. So `require_reachable` refuses a target below the
    minimum found, which an architecture that was not found might reach; it accepts none that is
    out of reach. `expected` is refused.
    """

    rows_at_once = 64

    def __init__(
        self,
        space: PricedSpace,
        block_cost_ms: Callable[[Block], float],
        constant: float = 0.0,
    ) -> None:
        super().__init__(space.option_counts, (), constant, space.describe)
        self._space = space
        self._block_cost_ms = block_cost_ms
        self._block_costs: dict[Block, float] = {}
        self._sum = lru_cache(REMEMBERED)(self._sum_of)
        self._extremes: dict[float, tuple[int, ...]] = {}

    def latency_ms(self, architectures: NDArray[np.integer[Any]]) -> NDArray[np.float64]:
        """As `CostModel.latency_ms`."""
        result = super().latency_ms(architectures)  # the constant, once the rows are checked
        result += [self._sum(tuple(row)) for row in np.asarray(architectures).tolist()]
        return result

    def expected(self, probabilities: Sequence[NDArray[np.floating[Any]]]) -> float:
        """Raises `UsageError`: a mean over all architectures can't be computed here."""
        raise UsageError(
            "blocks of this space depend on many choices at once, so that the mean cost of a "
            "policy is no sum over its probabilities. Draw architectures and average their costs."
        )

    def minimum(self) -> tuple[float, tuple[int, ...]]:
        """The smallest cost that was found, and an architecture that has it."""
        return self._extreme(1.0)

    def maximum(self) -> tuple[float, tuple[int, ...]]:
        """The largest cost that was found, and an architecture that has it."""
        return self._extreme(-1.0)

    def require_reachable(self, target_ms: float) -> None:
        """Raise `UnreachableTargetError` where none that was found costs at most `target_ms`."""
        try:
            super().require_reachable(target_ms)
        except UnreachableTargetError as error:
            raise UnreachableTargetError(
                f"{error} It is the smallest of a search, for this space is too large to be sure."
            ) from None

    def _sum_of(self, choices: tuple[int, ...]) -> float:
        costs = self._block_costs
        total = 0.0
        for block in self._space.blocks_of(choices):
            if block not in costs:
                cost_ms = float(self._block_cost_ms(block))
                if not math.isfinite(cost_ms):
                    raise LatkitError(f"the cost of {block} is {cost_ms}, no finite number")
                costs[block] = cost_ms
            total += costs[block]
        return total

    def _extreme(self, sign: float) -> tuple[float, tuple[int, ...]]:
        """The least of `sign` times the cost, by descent over one choice at a time."""
        if sign not in self._extremes:
            random = np.random.default_rng(0)
            draws = [
                tuple(random.integers(self.option_counts).tolist()) for _ in range(FIRST_DRAWS)
            ]
            draws.sort(key=lambda row: sign * self._sum(row))
            found = [self._descend(row, sign) for row in draws[:STARTS]]
            self._extremes[sign] = min(found, key=lambda row: sign * self._sum(row))
        return self._at(self._extremes[sign]), self._extremes[sign]

    def _descend(self, row: tuple[int, ...], sign: float) -> tuple[int, ...]:
        """Take the best option of one choice after the other until none is better."""
        before = None
        while before != row:
            before = row
            for position, count in enumerate(self.option_counts):
                others = [
                    (*row[:position], option, *row[position + 1 :])
                    for option in range(count)
                    if option != row[position]
                ]
                row = min([row, *others], key=lambda item: sign * self._sum(item))
        return row
