"""Rewards that join accuracy and latency into one number (TuNAS, Bender et al. 2020, section 4)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ...devices.errors import UsageError

RewardKind = Literal["absolute", "soft", "hard"]


def absolute_reward(
    accuracy: ArrayLike, latency_ms: ArrayLike, target_ms: float, strength: float = -0.10
) -> NDArray[np.float64]:
    """TuNAS's absolute reward: `Q + b * |T / T0 - 1|`, b = `strength` < 0, Q a share of 1.

    Its maximum lies at the target only while |b| exceeds the slope dQ/d(T/T0) that the front of
    the space has there: see `holding_strength`.
    """
    _check(target_ms, strength)
    ratio = np.asarray(latency_ms, dtype=np.float64) / target_ms
    return np.asarray(accuracy, dtype=np.float64) + strength * np.abs(ratio - 1)


def soft_reward(
    accuracy: ArrayLike, latency_ms: ArrayLike, target_ms: float, strength: float = -0.07
) -> NDArray[np.float64]:
    """MnasNet's soft reward: `Q * (T / T0)^b` (Tan et al. 2019, section 3.1)."""
    _check(target_ms, strength)
    ratio = np.asarray(latency_ms, dtype=np.float64) / target_ms
    return np.asarray(accuracy, dtype=np.float64) * ratio**strength


def hard_reward(
    accuracy: ArrayLike, latency_ms: ArrayLike, target_ms: float, strength: float = -0.07
) -> NDArray[np.float64]:
    """`Q * min((T / T0)^b, 1)`: nothing is gained below the target."""
    _check(target_ms, strength)
    ratio = np.asarray(latency_ms, dtype=np.float64) / target_ms
    return np.asarray(accuracy, dtype=np.float64) * np.minimum(ratio**strength, 1)


REWARDS: dict[RewardKind, Callable[..., NDArray[np.float64]]] = {
    "absolute": absolute_reward,
    "soft": soft_reward,
    "hard": hard_reward,
}
"""Every reward by its name."""


def reward_of(
    kind: RewardKind,
    accuracy: ArrayLike,
    latency_ms: ArrayLike,
    target_ms: float,
    strength: float,
) -> NDArray[np.float64]:
    """The reward called `kind`. Raises `UsageError` where there is none of that name."""
    if kind not in REWARDS:
        raise UsageError(f"there is no reward {kind}; choose one of {[*REWARDS]}")
    return REWARDS[kind](accuracy, latency_ms, target_ms, strength)


def holding_strength(
    accuracy: ArrayLike, latency_ms: ArrayLike, target_ms: float, within: float = 0.0
) -> float:
    """The smallest |b| at which the absolute reward is largest at the target, among the samples.

    At the target is what misses it by at most the share `within`, or by the least of all. It is the
    slope of the upper envelope of accuracy over |T/T0 - 1|, where it leaves that band: whatever is
    more accurate farther away, on either side, lies below a line of this slope. A regression would
    give the slope of the population, which is too small. Exact for the samples, and too small
    where the front's architectures are not among them. 0 where nothing far away is more accurate.
    Raises `UsageError` without samples.
    """
    _check(target_ms, -1)
    quality = np.asarray(accuracy, dtype=np.float64)
    if not len(quality):
        raise UsageError("the strength that holds a target needs evaluated architectures")
    miss = np.abs(np.asarray(latency_ms, dtype=np.float64) / target_ms - 1)
    envelope = _rising_envelope(miss, quality)
    last = max(int(np.searchsorted(envelope[:, 0], within, side="right")) - 1, 0)
    if last == len(envelope) - 1:
        return 0.0
    run, rise = envelope[last + 1] - envelope[last]
    return float(rise / run)


def _rising_envelope(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Corners of the least concave function above the points, from the left to its highest."""
    order = np.lexsort((-y, x))
    above = np.maximum.accumulate(y[order])
    records = order[np.concatenate([[True], above[1:] > above[:-1]])]
    corners: list[tuple[float, float]] = []
    for point in zip(x[records].tolist(), y[records].tolist(), strict=True):
        while len(corners) > 1 and _turns_up(corners[-2], corners[-1], point):
            corners.pop()
        corners.append(point)
    return np.array(corners)


def _turns_up(
    first: tuple[float, float], middle: tuple[float, float], last: tuple[float, float]
) -> bool:
    rise, run = middle[1] - first[1], middle[0] - first[0]
    return (last[1] - first[1]) * run >= rise * (last[0] - first[0])


def _check(target_ms: float, strength: float) -> None:
    if not (np.isfinite(target_ms) and target_ms > 0):
        raise UsageError(f"a target must be a positive number of milliseconds, not {target_ms}")
    if not strength < 0:
        raise UsageError(f"a reward's strength must be negative, not {strength}")
