"""Coarse-to-fine selection (BigNAS, Yu et al. 2020, section 3.4): a grid, then its best, refined.

The grid is over settings of the whole network: its resolution, and one level each of depth, of
width and of operations (BigNAS's are kernels). Then the most accurate architecture so far is
perturbed in one choice at a time; once all its choices were, the next one is.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ...devices.errors import UsageError
from ...latency.cost import CostModel
from ...latency.limits import Limit
from ..choices import SKIP, Choice, Kind, Option
from ..space import SearchSpace
from .constrained import ConstrainedStrategy
from .strategy import rank

KINDS: tuple[Kind, ...] = ("resolution", "depth", "width", "operation")


class CoarseToFine(ConstrainedStrategy):
    """The levels of the coarse grid are the paper's: 5 x 4 x 2 x 4, 160 points.

    At a level between the lowest and the highest, all choices of a kind take an option so far up
    their list, from small to large; where that falls between two options, the last stages take
    the larger one. The paper does not say what its levels are, nor how many evaluations it makes:
    these are ours. Where more than `budget` points of the grid are within the target, the slowest
    are evaluated; where none is, the fastest architecture is perturbed. `budget` counts all
    evaluations. Nothing is drawn at random.
    """

    name = "coarse_to_fine"

    def __init__(
        self,
        space: SearchSpace,
        cost: CostModel,
        target_ms: float,
        *,
        resolutions: int = 5,
        depths: int = 4,
        widths: int = 2,
        operations: int = 4,
        budget: int = 500,
        also: Sequence[Limit] = (),
    ) -> None:
        super().__init__(space, cost, target_ms, also=also)
        self.resolutions = resolutions
        self.depths = depths
        self.widths = widths
        self.operations = operations
        self.budget = budget
        if min(resolutions, depths, widths, operations, budget) < 1:
            raise UsageError("levels and budget of a coarse-to-fine selection must be at least 1")
        # Of each perturbed architecture, the choice that is next and how many are left.
        self._perturbed: dict[tuple[int, ...], tuple[int, int]] = {}
        self._position = 0

    @property
    def done(self) -> bool:
        """Whether the budget is spent, or all that one choice leads to was evaluated."""
        if self._queue or self._pending:
            return False
        return self._exhausted or len(self.evaluations) >= self.budget

    def _propose(self, count: int) -> list[tuple[int, ...]]:
        """The grid; once told about it, all that one choice of a good one may be instead."""
        if self._queue or self._pending or self.done:
            return []
        if not self.evaluations:
            return self._coarse()
        found = self._fine()
        self._exhausted = not found
        return found

    def grid(self) -> list[tuple[int, ...]]:
        """The distinct points of the coarse grid, as options of all choices."""
        counts = (self.resolutions, self.depths, self.widths, self.operations)
        levels = (np.linspace(0, 1, count) if count > 1 else [1.0] for count in counts)
        points = []
        for shares in itertools.product(*levels):
            point = [0] * len(self.space.choices)
            for kind, share in zip(KINDS, shares, strict=True):
                stages = _by_stage(self.space.choices, kind)
                for number, positions in enumerate(stages):
                    for position in positions:
                        options = _ascending(self.space.choices[position].options)
                        upwards = share * (len(options) - 1) + (number + 0.5) / len(stages)
                        point[position] = options[math.floor(upwards)]
            points.append(self.space.canonical(point))
        return list(dict.fromkeys(points))

    def _coarse(self) -> list[tuple[int, ...]]:
        points = self.grid()
        latency_ms = self.cost.latency_ms(np.array(points, dtype=np.int64))
        slowest = np.argsort(-latency_ms, kind="stable").tolist()
        found = self._admit([points[index] for index in slowest], self.budget)
        return found or self._admit([self._kept_by], 1)

    def _fine(self) -> list[tuple[int, ...]]:
        """What the next choice of the best architecture that has one could be, where it is new."""
        count = len(self.space.choices)
        for item in sorted(self.evaluations, key=rank):
            best = item.choices
            # It goes on where the one before it stopped, for the choices there were just tried.
            position, left = self._perturbed.get(best, (self._position, count))
            while left:
                others = [
                    (*best[:position], option, *best[position + 1 :])
                    for option in range(self.space.option_counts[position])
                    if option != best[position]
                ]
                self._position = position = (position + 1) % count
                left -= 1
                self._perturbed[best] = (position, left)
                found = self._admit(others, min(len(others), self.budget - len(self._visited)))
                if found:
                    return found
        return []

    def _own_state(self) -> dict[str, Any]:
        return {
            **super()._own_state(),
            "position": self._position,
            "perturbed": [[list(best), *at] for best, at in self._perturbed.items()],
        }

    def _load_own_state(self, state: dict[str, Any]) -> None:
        super()._load_own_state(state)
        self._position = int(state["position"])
        self._perturbed = {
            tuple(best): (int(position), int(left)) for best, position, left in state["perturbed"]
        }


def _by_stage(choices: Sequence[Choice], kind: Kind) -> list[list[int]]:
    """Positions of the choices of a kind, those of one stage together: `stage1.` of their names."""
    stages: dict[str, list[int]] = {}
    for position, choice in enumerate(choices):
        if choice.kind == kind:
            stages.setdefault(choice.name.partition(".")[0], []).append(position)
    return list(stages.values())


def _ascending(options: Sequence[Option]) -> list[int]:
    """Indices of options from small to large: skips, then numbers by size, or as listed."""
    numbers = [option for option in options if not isinstance(option, str)]
    indices = range(len(options))
    if len(numbers) == sum(option != SKIP for option in options):
        values = [-math.inf if option == SKIP else float(option) for option in options]
        return sorted(indices, key=lambda index: values[index])
    return sorted(indices, key=lambda index: options[index] != SKIP)
