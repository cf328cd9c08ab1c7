"""Calibration of whole models: from kernels inside networks to the latency of a network.

Also the rough estimate of kernels whose sort was never profiled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares, nnls

from ..counts import Kernel

ROBUST_ERROR = 0.03
"""Relative errors beyond this count less and less in the calibration: a host was busy."""

LEAST_SHARE = 0.05
"""Share of its profiled time that a kernel takes at least, whatever the profiler may have added."""

ROUGH_ERROR = 0.3
"""The same for the rough estimate of unknown kernels."""


@dataclass(frozen=True, slots=True)
class WholeCalibration:
    """From profiled kernels to a whole: a constant, and `kernel_ms` of each kernel.

    `overhead_ms` is negative where the profiler adds more to a kernel than the profile misses.
    """

    constant_ms: float
    scale: float
    overhead_ms: float

    def kernel_ms(self, profiled_ms: float) -> float:
        """What a kernel adds to the whole that the profiler says to take so long."""
        return max(LEAST_SHARE * profiled_ms, self.scale * profiled_ms + self.overhead_ms)

    def whole_ms(self, sum_ms: float, kernels: float) -> float:
        """Latency of a network from the sum of its kernels as profiled, and their number."""
        return float(self.constant_ms + self.scale * sum_ms + self.overhead_ms * kernels)


@dataclass(frozen=True, slots=True)
class RoughEstimate:
    """What a kernel of an unknown sort takes: a constant, its FLOPs and its bytes moved."""

    constant_ms: float
    per_flop_ms: float
    per_byte_ms: float

    def latency_ms(self, kernel: Kernel) -> float:
        """Latency of one kernel, good to a factor of about `UNKNOWN_FACTOR`."""
        return (
            self.constant_ms
            + self.per_flop_ms * kernel.flops
            + self.per_byte_ms * kernel.moved_bytes
        )


def fit_calibration(
    sums_ms: NDArray[np.float64], counts: NDArray[np.float64], whole_ms: NDArray[np.float64]
) -> WholeCalibration:
    """Coefficients by relative error, outliers counting less; the overhead may be negative."""
    columns = np.column_stack([np.ones(len(sums_ms)), sums_ms, counts]) / whole_ms[:, None]
    size = columns.max(axis=0)
    least = (0.0, 0.0, -np.inf)
    constant, scale, overhead = _robust(columns / size, least, ROBUST_ERROR) / size
    return WholeCalibration(float(constant), float(scale), float(overhead))


def fit_rough(kernels: Sequence[Kernel], latency_ms: Sequence[float]) -> RoughEstimate:
    """The rough estimate that is closest to these kernels by relative error."""
    columns = np.array([[1.0, kernel.flops, kernel.moved_bytes] for kernel in kernels])
    columns = columns / np.array(latency_ms)[:, None]
    size = columns.max(axis=0)
    size[size == 0] = 1.0
    constant, per_flop, per_byte = _robust(columns / size, (0.0, 0.0, 0.0), ROUGH_ERROR) / size
    return RoughEstimate(float(constant), float(per_flop), float(per_byte))


def _robust(
    rows: NDArray[np.float64], least: tuple[float, ...], error: float
) -> NDArray[np.float64]:
    """Coefficients of at least `least` that make each row 1, errors beyond `error` tempered."""

    def residuals(coefficients: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(rows @ coefficients - 1)

    start, _ = nnls(rows, np.ones(len(rows)))
    found = least_squares(
        residuals,
        np.maximum(start, 1e-9),
        bounds=(least, np.inf),
        loss="soft_l1",
        f_scale=error,
    )
    return np.asarray(found.x, dtype=np.float64)
