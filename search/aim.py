"""What a search aims at: the most accurate network within a latency, or right at it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ..devices.errors import UsageError
from .elasticity import is_scalable
from .space import SearchSpace

AimKind = Literal["at most", "exactly"]

HEADROOM = (1.03, 1.15)
"""To land on a target, architectures are chosen whose predicted latency is this many times the
target: scaling widths only shrinks them, so the choice has to be made from above."""

LANDING_SHARE = 0.01
"""Landed on a target is what is within this share of it."""


@dataclass(frozen=True, slots=True)
class Aim:
    """A latency in milliseconds, to stay within or to land on.

    In a space without widths to scale, no network can be made to land: there `exactly` is
    `at most`.
    """

    target_ms: float
    kind: AimKind = "at most"

    def lands(self, space: SearchSpace) -> bool:
        """Whether widths are to be scaled until the latency is the target."""
        return self.kind == "exactly" and is_scalable(space)

    def range_ms(self, space: SearchSpace) -> tuple[float, float]:
        """Predicted latencies to choose among; strategies ask for none above."""
        if not self.lands(space):
            return 0.0, self.target_ms
        return self.target_ms * HEADROOM[0], self.target_ms * HEADROOM[1]


def aims_of(at_most_ms: Sequence[float], exactly_ms: Sequence[float]) -> tuple[Aim, ...]:
    """Aims of one kind, from small to large. Raises `UsageError` where both are given."""
    if at_most_ms and exactly_ms:
        raise UsageError(
            "give --max-latency-ms to stay within a latency or --target-latency-ms to land on it, "
            "not both"
        )
    kind: AimKind = "exactly" if exactly_ms else "at most"
    aims = tuple(Aim(value, kind) for value in sorted({*at_most_ms, *exactly_ms}))
    for aim in aims:
        if not (math.isfinite(aim.target_ms) and aim.target_ms > 0):
            raise UsageError(f"a target must be a positive number of ms, not {aim.target_ms}")
    return aims


def is_met(kind: AimKind, target_ms: float, low_ms: float, high_ms: float) -> bool:
    """Whether an interval of measured latency agrees with the aim.

    That is, whether it is not all above the target; for `exactly`, whether it overlaps what is
    within `LANDING_SHARE` of it.
    """
    if kind == "at most":
        return low_ms <= target_ms
    return low_ms <= (1 + LANDING_SHARE) * target_ms and high_ms >= (1 - LANDING_SHARE) * target_ms
