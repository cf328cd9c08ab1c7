"""Random search: architectures within the target, drawn at random, the best one kept."""

from __future__ import annotations

from collections.abc import Sequence

from ...latency.cost import CostModel
from ...latency.limits import Limit
from ..space import SearchSpace
from .constrained import BudgetedStrategy


class RandomSearch(BudgetedStrategy):
    """Uniform choices, rejected above `target_ms` (`None`: no limit), without replacement.

    `budget` is the number of evaluations. A space that has fewer architectures within the target
    ends the search earlier. Where they are too rare to be drawn, they are walked to from those
    found, and the search ends once that leads to no new one.
    """

    name = "random"

    def __init__(
        self,
        space: SearchSpace,
        cost: CostModel,
        target_ms: float | None,
        budget: int = 1000,
        seed: int = 0,
        also: Sequence[Limit] = (),
    ) -> None:
        super().__init__(space, cost, target_ms, seed, also)
        self.budget = budget

    def _propose(self, count: int) -> list[tuple[int, ...]]:
        left = self.budget - len(self._visited)
        wanted = min(count, left)
        if wanted <= 0 or self._exhausted:
            return []
        found = self._draw(wanted)
        self._exhausted = len(found) < wanted
        return found
