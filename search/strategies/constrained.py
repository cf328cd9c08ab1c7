"""Strategies that keep limits: every architecture that they ask for is fast enough."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...devices.errors import UsageError
from ...latency.cost import CostModel
from ...latency.limits import Limit, fits, require_feasible
from ..space import Architecture, SearchSpace
from .strategy import Strategy, rank

ADMITTED_AT_A_TIME = 64
"""Candidates that are made canonical and checked in one go."""

TRIES = 64
"""Most draws of random candidates for one request for feasible architectures."""

FIRST_DRAW = 64
"""Candidates of the first draw; each further one has four times as many, as the cost allows."""

LISTED = 1 << 16
"""A space with at most this many combinations of options is listed where draws find too few."""

DRAWS_BEFORE_LISTING = 8

WALKS = 32
"""Walks through what is within the limits, where draws find nothing more."""

WALKED = 16
"""Steps of a walk for each choice, before its end counts as a new draw."""


class ConstrainedStrategy(Strategy):
    """A strategy that only asks for architectures of at most `target_ms`, each one once.

    `None` is no target. With `also` they keep these limits too. Raises `UnreachableTargetError` at
    once where the cost models have none. `within` are all limits in words.
    """

    def __init__(
        self,
        space: SearchSpace,
        cost: CostModel,
        target_ms: float | None,
        seed: int = 0,
        also: Sequence[Limit] = (),
    ) -> None:
        self.limits = tuple(also)
        if target_ms is not None:
            named = "latency" if cost.unit == "ms" else "cost"
            self.limits = (Limit(cost, target_ms, named), *also)
        self._kept_by = require_feasible(self.limits) if self.limits else cost.minimum()[1]
        super().__init__(space, seed)
        self.cost = cost
        self.target_ms = target_ms
        self.within = ", ".join(map(str, self.limits))
        self._visited: set[tuple[int, ...]] = set()
        self._exhausted = False

    def best(self) -> Architecture:
        """The most accurate architecture so far; of equally accurate ones the fastest."""
        if not self.evaluations:
            raise UsageError("no architecture was evaluated yet")
        return min(self.evaluations, key=rank).architecture

    def _fits(self, rows: NDArray[np.integer[Any]]) -> NDArray[np.bool_]:
        """Which rows of choices (N, L) keep all limits."""
        return fits(self.limits, rows)

    def _fresh(self, candidates: Sequence[Sequence[int]], count: int) -> list[tuple[int, ...]]:
        """The first `count` distinct candidates within the limits and not visited, canonical."""
        fresh: dict[tuple[int, ...], None] = {}
        for start in range(0, len(candidates), ADMITTED_AT_A_TIME):
            if len(fresh) >= count:
                break
            batch = candidates[start : start + ADMITTED_AT_A_TIME]
            canonical = [self.space.canonical(candidate) for candidate in batch]
            keep = self._fits(np.array(canonical, dtype=np.int64)).tolist()
            for choices, inside in zip(canonical, keep, strict=True):
                if inside and choices not in self._visited:
                    fresh[choices] = None
        return list(fresh)[:count]

    def _admit(self, candidates: Sequence[Sequence[int]], count: int) -> list[tuple[int, ...]]:
        """As `_fresh`; they are now marked visited."""
        admitted = self._fresh(candidates, count)
        self._visited.update(admitted)
        return admitted

    def _draw(self, count: int) -> list[tuple[int, ...]]:
        """`count` random architectures within the limits, none visited before.

        Choices are uniform, rejected until they fit, in at most `TRIES` draws. Where these find
        too few, a small space is listed, and the rest drawn from what is left of it, so that fewer
        come back only where there are no more; in a large one random walks go on from what was
        found. Where none was ever found, one that is known to keep the limits stands in: the
        fastest, if it does.
        """
        found: list[tuple[int, ...]] = []
        seen: set[tuple[int, ...]] = set()
        small = math.prod(self.space.option_counts) <= LISTED
        size = FIRST_DRAW
        for _ in range(DRAWS_BEFORE_LISTING if small else TRIES):
            if len(found) >= count:
                return found
            drawn = self.space.sample_choices(min(size, self.cost.rows_at_once), self._random)
            size = min(4 * size, self.cost.rows_at_once)
            inside = map(tuple, drawn[self._fits(drawn)].tolist())
            fresh = [row for row in inside if row not in seen]
            found += self._admit(fresh, count - len(found))
            seen.update(fresh)
        if len(found) >= count:
            return found
        if small:
            return found + self._admit(self._shuffled_list(), count - len(found))
        if not self._visited:
            found += self._admit([self._kept_by], 1)
        return found + self._walk(count - len(found))

    def _shuffled_list(self) -> list[list[int]]:
        """All rows of choices within the limits, in random order."""
        counts = self.space.option_counts
        rows = np.indices(counts, dtype=np.int64).reshape(len(counts), -1).T
        inside = rows[self._fits(rows)]
        shuffled: list[list[int]] = self._random.permutation(inside).tolist()
        return shuffled

    def _walk(self, count: int) -> list[tuple[int, ...]]:
        """New architectures at the ends of random walks from visited ones.

        A step redraws one choice, and stays where it leads out of the limits: so it tends to the
        uniform distribution over all that can be reached (Metropolis et al. 1953).
        """
        found: list[tuple[int, ...]] = []
        starts = np.array(sorted(self._visited), dtype=np.int64)
        if not len(starts):
            return found
        rows = starts[self._random.integers(len(starts), size=WALKS)]
        walks = np.arange(WALKS)
        for _ in range(1 + 2 * count // WALKS):
            for _ in range(WALKED * len(self.space.choices)):
                positions = self._random.integers(len(self.space.choices), size=WALKS)
                stepped = rows.copy()
                drawn = self.space.sample_choices(WALKS, self._random)
                stepped[walks, positions] = drawn[walks, positions]
                rows = np.where(self._fits(stepped)[:, None], stepped, rows)
            found += self._admit(rows.tolist(), count - len(found))
            if len(found) >= count:
                break
        return found

    def _own_state(self) -> dict[str, Any]:
        return {
            "target_ms": self.target_ms,
            "within": self.within,
            "exhausted": self._exhausted,
            "visited": [list(choices) for choices in sorted(self._visited)],
        }

    def _load_own_state(self, state: dict[str, Any]) -> None:
        if state["target_ms"] != self.target_ms:
            raise UsageError(
                f"the saved search has target {state['target_ms']} ms, not {self.target_ms} ms"
            )
        if state.get("within", self.within) != self.within:
            raise UsageError(
                f"the saved search kept to a {state['within']}, not to a {self.within}"
            )
        self._exhausted = bool(state["exhausted"])
        self._visited = {tuple(choices) for choices in state["visited"]}


class BudgetedStrategy(ConstrainedStrategy):
    """One that ends after `budget` evaluations, or where it finds nothing new."""

    budget: int

    @property
    def done(self) -> bool:
        """Whether the budget is spent, or there was nothing new to ask for."""
        if self._queue or self._pending:
            return False
        return self._exhausted or len(self.evaluations) >= self.budget
