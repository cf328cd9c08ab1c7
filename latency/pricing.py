"""Costs of spaces of any kind: tables where they are sums over few choices, else called."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..devices.errors import LatkitError, UsageError
from .blocks import Block
from .cost import AdditiveSpace, CostModel, lay_out
from .descent import found_minimum

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
    space: PricedSpace,
    block_cost_ms: Callable[[Block], float],
    constant: float = 0.0,
    *,
    unit: str = "ms",
) -> CostModel:
    """What architectures of `space` cost: `constant` and each of their blocks' cost, in `unit`.

    Laid out as tables where the space is additive, else a `CalledCost`. Raises `LatkitError`
    naming a block whose cost is no finite number, with a `CalledCost` when it is met.
    """
    if space.is_additive:
        return lay_out(space, block_cost_ms, constant, unit=unit)
    return CalledCost(space, block_cost_ms, constant, unit=unit)


class FunctionCost(CostModel):
    """A cost that a function tells of one architecture, as option indices, at a time.

    Exact for an architecture, and much slower than tables. `minimum` and `maximum` are those that
    a search of one choice at a time finds, from the best of some random architectures: there may
    be better ones. So `require_reachable` refuses a target below the minimum found, which an
    architecture that was not found might reach; it accepts none that is out of reach. `expected`
    is refused.
    """

    rows_at_once = 64
    is_additive = False

    def __init__(
        self,
        option_counts: Sequence[int],
        cost_of: Callable[[tuple[int, ...]], float],
        constant: float = 0.0,
        describe: Callable[[Sequence[int]], str] = str,
        *,
        unit: str = "ms",
        certainty: Callable[[tuple[int, ...]], str] | None = None,
    ) -> None:
        super().__init__(option_counts, (), constant, describe, unit=unit, certainty=certainty)
        self._cost_of = lru_cache(REMEMBERED)(cost_of)
        self._extremes: dict[float, tuple[int, ...]] = {}

    def latency_ms(self, architectures: NDArray[np.integer[Any]]) -> NDArray[np.float64]:
        """As `CostModel.latency_ms`."""
        result = super().latency_ms(architectures)  # the constant, once the rows are checked
        result += [self._cost_of(tuple(row)) for row in np.asarray(architectures).tolist()]
        return result

    def expected(self, probabilities: Sequence[NDArray[np.floating[Any]]]) -> float:
        """Raises `UsageError`: a mean over all architectures can't be computed here."""
        raise UsageError(
            "this cost is no sum over a few choices each, so that the mean cost of a policy is no "
            "sum over its probabilities. Draw architectures and average their costs."
        )

    def minimum(self) -> tuple[float, tuple[int, ...]]:
        """The smallest cost that was found, and an architecture that has it."""
        return self._extreme(1.0)

    def maximum(self) -> tuple[float, tuple[int, ...]]:
        """The largest cost that was found, and an architecture that has it."""
        return self._extreme(-1.0)

    def scaled(self, factor: float) -> CostModel:
        """As `CostModel.scaled`."""
        return FunctionCost(
            self.option_counts,
            lambda choices: factor * self._cost_of(choices),
            factor * self.constant,
            self.describe,
            unit="",
        )

    def certainty(self, choices: tuple[int, ...]) -> str:
        """As `CostModel.certainty`."""
        found = "It is the smallest of a search, for this space is too large to be sure."
        return f"{found} {super().certainty(choices)}"

    def _extreme(self, sign: float) -> tuple[float, tuple[int, ...]]:
        """The least of `sign` times the cost, by descent over one choice at a time."""
        if sign not in self._extremes:
            self._extremes[sign] = found_minimum(
                self.option_counts, lambda rows: sign * self.latency_ms(rows), self.rows_at_once
            )
        return self.of(self._extremes[sign]), self._extremes[sign]


class CalledCost(FunctionCost):
    """Costs of a space whose blocks depend on many choices at once: each network is summed up."""

    def __init__(
        self,
        space: PricedSpace,
        block_cost_ms: Callable[[Block], float],
        constant: float = 0.0,
        *,
        unit: str = "ms",
        certainty: Callable[[tuple[int, ...]], str] | None = None,
    ) -> None:
        super().__init__(
            space.option_counts,
            self._sum_of,
            constant,
            space.describe,
            unit=unit,
            certainty=certainty,
        )
        self._space = space
        self._block_cost_ms = block_cost_ms
        self._block_costs: dict[Block, float] = {}

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
