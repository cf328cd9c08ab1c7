"""When a device is quiet: what its canary takes then, and waiting for it, up to a bound."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence

from .device import CANARY_DRIFT_LIMIT

QUIET_QUANTILE = 0.3
"""Where the canary of a quiet device stands among all rounds: what is slow is busy, and most
devices are quiet for more than a third of the time."""

POLL_S = 0.25


def quiet_canary_ns(medians_ns: Sequence[float]) -> float:
    """What the canary takes on the quiet device, from its median in each of some rounds."""
    ordered = sorted(medians_ns)
    return ordered[int(QUIET_QUANTILE * (len(ordered) - 1))]


class QuietWatch:
    """Compares a call's canaries with the quiet device's.

    `known_ns` is what earlier calls found that to be, `max_wait_s` how long may be waited for it
    in all.
    """

    def __init__(self, known_ns: float | None, max_wait_s: float) -> None:
        self._known_ns = known_ns
        self._left_s = max_wait_s
        self._medians_ns: list[float] = []

    def drift(self, canary_ns: float) -> float:
        """By what share a round's canary is slower than the quiet device's, as known by now."""
        self._medians_ns.append(canary_ns)
        quiet_ns = self._quiet_ns()
        assert quiet_ns is not None
        return canary_ns / quiet_ns - 1

    def is_severe(self, samples_ns: Sequence[float], limit: float) -> bool:
        """Whether these canaries' median is slower than the quiet device's by more than `limit`."""
        quiet_ns = self._quiet_ns()
        if quiet_ns is None or not samples_ns:
            return False
        return statistics.median(samples_ns) / quiet_ns - 1 > limit

    def wait(self, canary_ns: Callable[[], float]) -> None:
        """Time the canary until the device is quiet, or the wait is used up."""
        quiet_ns = self._quiet_ns()
        if quiet_ns is None:
            return
        while self._left_s > 0 and canary_ns() / quiet_ns - 1 > CANARY_DRIFT_LIMIT:
            time.sleep(POLL_S)
            self._left_s -= POLL_S

    def _quiet_ns(self) -> float | None:
        found = [quiet_canary_ns(self._medians_ns)] if self._medians_ns else []
        known = [] if self._known_ns is None else [self._known_ns]
        return min(found + known, default=None)
