"""One entry of a latency table: what was measured of a block, and how far it can be trusted."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from ..devices.errors import UsageError

VerdictKind = Literal["stable", "noisy", "throttled", "unknown"]
"""`unknown` stands where others measured and did not say how steadily."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A measured block: median with its 95 % interval, and how far it can be trusted.

    `median_ms` may be another statistic where others measured; the reasons name it then.
    """

    median_ms: float
    low_ms: float
    high_ms: float
    verdict: VerdictKind = "stable"
    reasons: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 0 < self.low_ms <= self.median_ms <= self.high_ms < math.inf:
            raise UsageError(
                f"a latency of {self.median_ms} ms in [{self.low_ms}, {self.high_ms}] is none"
            )


@dataclass(frozen=True, slots=True)
class EvictionTrial:
    """How well networks were explained by blocks timed with this many bytes evicted.

    `plain_bias` is that of plain sums, `rmspe` the calibrated leave-one-out error; `chosen` marks
    the trial that the table was made with.
    """

    eviction_bytes: int
    plain_bias: float
    rmspe: float
    chosen: bool = False
