"""Landing on a target: scale widths by the table, measure, correct, and scale again."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass

from ..devices.errors import UnreachableTargetError
from ..latency.table import LatencyTable
from .elasticity import architecture_latency, scale
from .measuring import Networks, Timed
from .space import Architecture, SearchSpace

TOLERANCE = 0.003
"""A measured latency within this share of the target needs no correction."""

CORRECTIONS = 8
"""At most this many times the model is corrected by a measurement and widths are scaled again."""


@dataclass(frozen=True, slots=True)
class Landing:
    """An architecture scaled to a target.

    `correction` is the factor between the table's prediction and the measurement that its
    scaling used, `timed` the latency of the network with random weights on the device.
    """

    architecture: Architecture
    correction: float
    corrections: int
    timed: Timed


def scale_by_table(
    architecture: Architecture,
    space: SearchSpace,
    table: LatencyTable,
    target_ms: float,
    correction: float = 1.0,
) -> Architecture:
    """Elasticity-scaling with `correction` times the table's latency as its cost."""
    latency_of = architecture_latency(space, table.block_cost_ms, table.calibration.constant_ms)
    return scale(
        architecture,
        space,
        lambda candidate: correction * latency_of(candidate),
        target_ms,
        table.channel_grid,
    )


def land(
    architectures: Mapping[str, Architecture],
    networks: Networks,
    target_ms: float,
    factors: Mapping[str, float] | None = None,
) -> dict[str, Landing]:
    """Scale each architecture to `target_ms`, as measured on the device.

    Scaled networks are timed together, in the same rounds, and with them the blocks that the table
    of `networks` only interpolates. Where one misses the target by more than `TOLERANCE` its
    scaling is repeated with the table corrected by what was measured, at most `CORRECTIONS` times;
    the state closest to the target is returned. `factors`, of the first scaling, are measured over
    predicted latency as known before. Raises `UnreachableTargetError` where the first scaling does.
    """
    approaches = {
        name: _Approach(item, networks, target_ms, (factors or {}).get(name, 1.0))
        for name, item in architectures.items()
    }
    for _ in range(CORRECTIONS + 1):
        scaled = {name: approach.next() for name, approach in approaches.items()}
        timed = networks.measure(item for item in scaled.values() if item is not None)
        if not timed:
            break
        for name, item in scaled.items():
            if item is not None:
                approaches[name].tell(item, timed[item])
    return {name: approach.best() for name, approach in approaches.items()}


class _Approach:
    """How one architecture comes closer to the target, state by state."""

    def __init__(
        self, architecture: Architecture, networks: Networks, target_ms: float, factor: float
    ) -> None:
        self._architecture = architecture
        self._networks = networks
        self._target_ms = target_ms
        self._factor = factor
        self._states: dict[Architecture, Landing] = {}

    def next(self) -> Architecture | None:
        """The next state to time; `None` where the last ones were close enough, or nothing is new.

        By the factor of the last state; where that leads to one that is known, by the mean of the
        two closest ones' factors, for they lie on either side.
        """
        if any(self._miss(landing) <= TOLERANCE for landing in self._states.values()):
            return None
        for factor in (self._factor, self._closest_factor()):
            try:
                scaled = scale_by_table(
                    self._architecture,
                    self._networks.space,
                    self._networks.table,
                    self._target_ms,
                    factor,
                )
            except UnreachableTargetError:
                # A correction asks for more than widths can give: what was measured before stands.
                if not self._states:
                    raise
                continue
            self._factor = factor
            if scaled not in self._states:
                return scaled
        return None

    def tell(self, scaled: Architecture, timed: Timed) -> None:
        """What a state was found to take."""
        self._states[scaled] = Landing(scaled, self._factor, len(self._states), timed)
        self._factor = self._measured_factor(self._states[scaled])

    def best(self) -> Landing:
        """The state closest to the target."""
        return min(self._states.values(), key=self._miss)

    def _closest_factor(self) -> float:
        closest = sorted(self._states.values(), key=self._miss)[:2]
        factors = [self._measured_factor(landing) for landing in closest]
        return statistics.mean(factors or [self._factor])

    def _measured_factor(self, landing: Landing) -> float:
        predicted_ms = self._networks.predicted_ms(landing.architecture)
        return landing.timed.median_ms / predicted_ms

    def _miss(self, landing: Landing) -> float:
        return abs(landing.timed.median_ms / self._target_ms - 1)
