"""What a runtime's own profiler tells of one operation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Shaped = tuple[str, tuple[int, ...]]
"""Element type, as the runtime calls it, and shape of a value."""


@dataclass(frozen=True, slots=True)
class ProfiledOperation:
    """An operation as the runtime executed it, after its own fusions.

    `times_ms` are those of single runs. `outputs` are what it writes, where the runtime tells.
    """

    name: str
    kind: str
    times_ms: tuple[float, ...]
    outputs: tuple[Shaped, ...] = ()


def middle_ms(times_ms: Sequence[float]) -> float:
    """The mean of the middle half of some times.

    As deaf to outliers as is needed here, and finer than the median: profilers count whole
    microseconds, of which an operation may take three.
    """
    ordered = np.sort(np.asarray(times_ms, dtype=np.float64))
    cut = len(ordered) // 4
    return float(np.mean(ordered[cut : len(ordered) - cut])) if len(ordered) else 0.0
