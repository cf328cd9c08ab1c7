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
    the space has there: see `front_slope`.
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


def front_slope(accuracy: ArrayLike, latency_ms: ArrayLike, target_ms: float) -> float:
    """Slope dQ/d(T/T0) of the front at the target: of the samples' upper concave envelope.

    The larger of the envelope's slopes left and right of T0, at least 0: where |b| of the absolute
    reward is below it, the reward's maximum is not at the target. Raises `UsageError` with fewer
    than two different latencies.
    """
    _check(target_ms, -1)
    ratio = np.asarray(latency_ms, dtype=np.float64) / target_ms
    quality = np.asarray(accuracy, dtype=np.float64)
    envelope = _upper_envelope(ratio, quality)
    if len(envelope) < 2:
        raise UsageError("the slope of a front needs samples of at least two latencies")
    slopes = np.diff(envelope[:, 1]) / np.diff(envelope[:, 0])
    # Slopes fall from left to right, so the piece that ends at or holds T0 has the larger one.
    piece = int(np.searchsorted(envelope[1:-1, 0], 1.0, side="left"))
    return max(0.0, float(slopes[piece]))


def _upper_envelope(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Corners of the least concave function above the points, from left to right."""
    corners: list[tuple[float, float]] = []
    for index in np.lexsort((-y, x)):
        point = (float(x[index]), float(y[index]))
        if corners and corners[-1][0] == point[0]:
            continue
        while len(corners) > 1 and _turns_up(corners[-2], corners[-1], point):
            corners.pop()
        corners.append(point)
    return np.array(corners).reshape(-1, 2)


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
