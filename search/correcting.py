"""Searching until the device agrees: finalists are timed, the cost is corrected, and again.

A cost model that is off by a few per cent lets a search choose what is too slow, or leave out what
would be fast enough. So the best of each search are timed, the median of measured over predicted
becomes a factor of the cost, and where that matters the strategies run again.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from ..devices.errors import UnreachableTargetError
from .aim import Aim
from .measuring import Networks, Timed
from .space import Architecture

FINALISTS = 3
"""Architectures of each strategy that are timed after a search."""

CORRECTIONS = 3
"""A search is repeated at most this many times, under a corrected cost."""

SLACK = 0.02
"""A cost that is off by no more than this share of itself is not worth another search."""

LARGEST_SHRINKING = 1.25
"""Widths can bring what takes this many times the target down to it."""


@dataclass(frozen=True, slots=True)
class Offer:
    """What a strategy comes back with: its choice, and the accuracies of all it has evaluated."""

    preferred: Architecture
    accuracies: Mapping[Architecture, float]


Search = Callable[[float, int], Mapping[str, Offer]]
"""Offers by the strategies' names, under this factor of the cost, in the search of this number."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """What a strategy ended with, in a network with random weights, timed.

    `predicted_ms` is the table's own, not corrected. `evaluations` counts the architectures that
    the strategy has had evaluated in all searches.
    """

    architecture: Architecture
    accuracy: float
    predicted_ms: float
    timed: Timed
    evaluations: int

    @property
    def factor(self) -> float:
        """Measured over predicted."""
        return self.timed.median_ms / self.predicted_ms


@dataclass(frozen=True, slots=True)
class Settled:
    """What each strategy ended with, the factor of the last search, and how many times a factor led
    to anything new.
    """

    chosen: Mapping[str, Chosen]
    factor: float
    corrections: int


def settle(search: Search, networks: Networks, aim: Aim) -> Settled:
    """Search, time the best, correct the cost; again where it was off or none of them is accepted.

    Within a target: what is accepted has an interval that is not above it, and the most accurate
    one wins, also where the factor moved in the end. Where none was accepted, the one closest to
    the target stands. Raises `UnreachableTargetError` where the first search does, and
    `DeviceError` where a network can't be timed.
    """
    state = _State(networks, aim)
    factor, corrections = 1.0, 0
    for number in range(CORRECTIONS + 1):
        try:
            offers = search(factor, number)
        except UnreachableTargetError:
            # By the corrected cost nothing is fast enough: what was timed before stands.
            if number == 0:
                raise
            break
        used = factor
        if not state.take(offers, factor):
            break
        corrections, factor = number, state.factor()
        is_off = not aim.lands(networks.space) and abs(factor / used - 1) > SLACK
        if not is_off and state.all_accepted():
            break
    chosen = {name: state.winner(name) for name in state.pools}
    return Settled(chosen, used, corrections)


@dataclass
class _State:
    """What was offered and timed so far."""

    networks: Networks
    aim: Aim
    pools: dict[str, dict[Architecture, float]] = field(default_factory=dict)
    timed: dict[Architecture, Timed] = field(default_factory=dict)
    _predicted_ms: dict[Architecture, float] = field(default_factory=dict)

    def take(self, offers: Mapping[str, Offer], factor: float) -> bool:
        """Time the best of what was offered; tells whether any of it was not timed before."""
        picked: list[Architecture] = []
        for name, offer in offers.items():
            pool = self.pools.setdefault(name, {})
            pool.update(offer.accuracies)
            picked += self._picks(pool, offer.preferred, factor)
        new = [item for item in dict.fromkeys(picked) if item not in self.timed]
        self.timed.update(self.networks.measure(new))
        return bool(new)

    def factor(self) -> float:
        """The median of measured over predicted."""
        return statistics.median(
            timed.median_ms / self._predicted(item) for item, timed in self.timed.items()
        )

    def all_accepted(self) -> bool:
        """Whether each strategy has an architecture that was timed and accepted."""
        return all(self._accepted(pool) for pool in self.pools.values())

    def winner(self, name: str) -> Chosen:
        """The most accurate one accepted, else the one timed closest to the target."""
        pool = self.pools[name]
        accepted = self._accepted(pool)
        if accepted:
            best = min(accepted, key=lambda item: (-pool[item], self.timed[item].median_ms))
        else:
            best = min((item for item in pool if item in self.timed), key=self._distance)
        return Chosen(best, pool[best], self._predicted(best), self.timed[best], len(pool))

    def _picks(
        self, pool: Mapping[Architecture, float], preferred: Architecture, factor: float
    ) -> list[Architecture]:
        """The preferred one and the most accurate within the range, none that was turned down."""
        least_ms, limit_ms = self.aim.range_ms(self.networks.space)
        left = [item for item in pool if item not in self.timed or self._accepts(item)]
        inside = [item for item in left if least_ms <= factor * self._predicted(item) <= limit_ms]
        ranked = sorted(
            inside, key=lambda item: (item != preferred, -pool[item], self._predicted(item))
        )
        if not ranked:
            ranked = sorted(left, key=lambda item: abs(factor * self._predicted(item) - least_ms))
        return ranked[:FINALISTS]

    def _accepted(self, pool: Mapping[Architecture, float]) -> Sequence[Architecture]:
        return [item for item in pool if item in self.timed and self._accepts(item)]

    def _accepts(self, architecture: Architecture) -> bool:
        timed, target_ms = self.timed[architecture], self.aim.target_ms
        if self.aim.lands(self.networks.space):
            return target_ms <= timed.median_ms <= LARGEST_SHRINKING * target_ms
        return timed.high_ms <= target_ms

    def _distance(self, architecture: Architecture) -> float:
        return abs(self.timed[architecture].median_ms / self.aim.target_ms - 1)

    def _predicted(self, architecture: Architecture) -> float:
        if architecture not in self._predicted_ms:
            self._predicted_ms[architecture] = self.networks.predicted_ms(architecture)
        return self._predicted_ms[architecture]
