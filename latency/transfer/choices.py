"""Architectures as vectors of choices, as the transfer between devices sees them.

Latency is nearly a sum over positions of what the chosen category adds there, in milliseconds, and
not in their logarithm. So the parts of the kernel are over these effects: those of the source
devices, the same stretched for a position or a category, those of a category everywhere, and free
ones. Two more parts are for what is no sum: that of the sources, and any that is left.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ...devices.errors import UsageError
from .gaussian import NEAR_ZERO, Floats, Part, Rows, second_moments

REACH = 1 / 6
"""How far, as a share of all positions, effects of neighbouring positions are alike."""

UNLIKE = {"consensus": 0.1, "other components": 0.01, "counts": 1.0}
"""Variances that are looked for first on a device that is like no source: op counts tell most."""

LANDMARKS = 200
INTERACTION_POWER = 3
SHARPNESS = (0.15, 0.5, 1.5)
RIDGE = 1e-6


@dataclass(frozen=True, eq=False)
class Choices:
    """N architectures as `values` (N, positions): ids of categories, from 0."""

    values: NDArray[np.int64]

    keeps_measured = False
    """Measurements are replaced by the smooth fit to all: their noise is the device's alone."""

    @classmethod
    def of(cls, architectures: ArrayLike) -> Choices:
        """Check architectures; `UsageError` where they are no table of whole numbers."""
        values = np.asarray(architectures)
        if values.ndim != 2 or not values.size or not np.issubdtype(values.dtype, np.integer):
            raise UsageError(
                "architectures are a table of whole numbers, a row for each and a column for each "
                f"position; not {values.dtype} of shape {values.shape}"
            )
        return cls(values.astype(np.int64))

    def __len__(self) -> int:
        return len(self.values)

    def order(self) -> Rows:
        """Rows in an order that depends on their content alone."""
        return np.lexsort(self.values.T[::-1])

    def take(self, rows: Rows) -> Choices:
        """The architectures `rows`."""
        return Choices(self.values[rows])

    def check(self, latency_ms: Floats) -> str:
        """What is wrong with latencies; empty where nothing is."""
        return "is negative" if (latency_ms < 0).any() else ""

    def transformed(self, latency_ms: Floats) -> Floats:
        """Latency where effects add up: in milliseconds, as it is."""
        return latency_ms

    def restored(self, latency: Floats) -> Floats:
        """Back to milliseconds. Not negative."""
        return np.maximum(latency, 0.0)

    def noise(self, latency_ms: Floats, step_ms: float) -> float:
        """Variance that rounding to `step_ms` adds to transformed latencies."""
        return step_ms**2 / 12

    def kernels(self, these: Rows, those: Rows) -> Iterator[Floats]:
        """Kernels to complete a source with: sums of effects, with interactions near or far."""
        alike = self._alike(these, those)
        for sharpness in SHARPNESS:
            reach = sharpness * self.values.shape[1]
            yield alike + 0.5 * np.expm1(reach * alike) / np.expm1(reach)

    def parts(self, latency: Floats) -> list[Part]:
        """The kernel's parts, from latencies on sources, centred and scaled: (N, sources)."""
        effects = self._effects(latency)
        mean = effects.mean(1)
        consensus = np.outer(mean, mean)
        others = effects - mean[:, None]
        products = effects @ effects.T
        one_hot, near, same = self._one_hot, self._near, self._same
        rest = latency - latency.mean(0) - one_hot @ effects
        if (rest**2).mean() < NEAR_ZERO:
            rest = np.zeros_like(rest)
        over_effects = (
            ("consensus", 1.0, consensus),
            ("other components", 0.1, others @ others.T),
            ("consensus by position", 0.03, consensus * near),
            ("consensus by category", 0.03, consensus * same),
            ("sources by position", 0.03, products * near),
            ("sources by category", 0.03, products * same),
            ("counts", 0.01, same),
            ("counts by position", 0.01, same * near),
            ("one-hot", 0.01, np.eye(len(mean))),
        )
        return [
            *(
                Part(name, one_hot, variance, gram, self._moments, UNLIKE.get(name))
                for name, variance, gram in over_effects
            ),
            Part("rest of sources", rest, 0.01),
            Part("interactions", self._interactions, 0.01),
        ]

    def _effects(self, latency: Floats) -> Floats:
        """What each category adds at each position, by ridge regression: (columns, sources)."""
        ridge = RIDGE * max(float(np.trace(self._moments)) / len(self._moments), NEAR_ZERO)
        together = self._one_hot.T @ (latency - latency.mean(0)) / len(self)
        return np.asarray(
            np.linalg.solve(self._moments + ridge * np.eye(len(self._moments)), together)
        )

    def _alike(self, these: Rows, those: Rows) -> Floats:
        """Share of positions at which two architectures choose the same."""
        alike = np.zeros((len(these), len(those)))
        for first, second in zip(self.values[these].T, self.values[those].T, strict=True):
            alike += first[:, None] == second
        return np.asarray(alike / self.values.shape[1])

    @cached_property
    def _columns(self) -> NDArray[np.int64]:
        """Position and category of each column of the one-hot matrix: (columns, 2)."""
        return np.array(
            [
                (position, category)
                for position, chosen in enumerate(self.values.T)
                for category in np.unique(chosen)
            ]
        )

    @cached_property
    def _one_hot(self) -> Floats:
        columns = [self.values[:, position] == category for position, category in self._columns]
        one_hot = np.array(columns, dtype=np.float64).T
        return np.ascontiguousarray(one_hot - one_hot.mean(0))

    @cached_property
    def _moments(self) -> Floats:
        return second_moments(self._one_hot)

    @cached_property
    def _near(self) -> Floats:
        position = self._columns[:, 0]
        reach = max(1.0, REACH * self.values.shape[1])
        return np.asarray(np.exp(-np.abs(position[:, None] - position) / reach))

    @cached_property
    def _same(self) -> Floats:
        category = self._columns[:, 1]
        return np.asarray(category[:, None] == category, dtype=np.float64)

    @cached_property
    def _interactions(self) -> Floats:
        """Features of a kernel over which choices come together (Nystroem's approximation)."""
        spaced = np.unique(np.linspace(0, len(self) - 1, LANDMARKS).astype(np.intp))
        return landmark_features(
            self._alike(spaced, spaced) ** INTERACTION_POWER,
            self._alike(np.arange(len(self)), spaced) ** INTERACTION_POWER,
        )


def landmark_features(among: Floats, between: Floats) -> Floats:
    """Features whose products approximate a kernel, from its values with some landmarks."""
    values, vectors = np.linalg.eigh(among)
    kept = values > 1e-6 * values[-1]
    return np.asarray(between @ (vectors[:, kept] / np.sqrt(values[kept])))


def concatenated(columns: Sequence[ArrayLike]) -> NDArray[np.int64]:
    """Architectures from several tables and columns of choices, side by side."""
    tables = [np.asarray(column) for column in columns]
    return np.hstack([table.reshape(len(table), -1).astype(np.int64) for table in tables])
