"""The front of accuracy against latency, and the area that it dominates.

Less latency and more accuracy are better. Every function takes one value of each for every
architecture and refuses, with `UsageError`, values that are not finite: what was never measured
has no place in a comparison.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..devices.errors import UsageError

Floats = NDArray[np.float64]


def front(latency_ms: ArrayLike, accuracy: ArrayLike) -> NDArray[np.bool_]:
    """Which architectures no other one dominates; of equal ones each is kept.

    One dominates another where it is no slower and no less accurate, and not equal to it.
    """
    latency, gain = _values(latency_ms, accuracy)
    order = np.lexsort((-gain, latency))
    latency, gain = latency[order], gain[order]
    # Of all at or below a latency, the first to reach an accuracy is on the front ...
    kept = gain > np.concatenate([[-np.inf], np.maximum.accumulate(gain)[:-1]])[: gain.size]
    # ... and so are those equal to it.
    new = np.ones(gain.size, dtype=bool)
    new[1:] = (np.diff(latency) != 0) | (np.diff(gain) != 0)
    first = np.maximum.accumulate(np.where(new, np.arange(gain.size), 0))
    mask = np.empty(gain.size, dtype=bool)
    mask[order] = kept[first]
    return mask


def hypervolume(
    latency_ms: ArrayLike, accuracy: ArrayLike, reference: tuple[float, float]
) -> float:
    """Area between the front and `reference`, a latency and an accuracy: more is better.

    In milliseconds times shares of accuracy. Points that are slower or less accurate than the
    reference add nothing; without points the area is 0.
    """
    latency, gain = _values(latency_ms, accuracy)
    slowest_ms, lowest = _reference(reference)
    inside = (latency < slowest_ms) & (gain > lowest)
    latency, gain = latency[inside], gain[inside]
    kept = front(latency, gain)
    latency, gain = latency[kept], gain[kept]
    order = np.argsort(latency)
    steps = np.diff(gain[order], prepend=lowest)
    return float(np.sum((slowest_ms - latency[order]) * steps))


def hypervolume_so_far(
    latency_ms: ArrayLike, accuracy: ArrayLike, reference: tuple[float, float]
) -> Floats:
    """The area after each architecture, in the order in which they were found."""
    latency, gain = _values(latency_ms, accuracy)
    _reference(reference)
    areas = np.zeros(latency.size)
    best_latency, best_gain = np.empty(0), np.empty(0)
    area = 0.0
    for index, point in enumerate(zip(latency, gain, strict=True)):
        if not np.any((best_latency <= point[0]) & (best_gain >= point[1])):
            left = (best_latency < point[0]) | (best_gain > point[1])
            best_latency = np.append(best_latency[left], point[0])
            best_gain = np.append(best_gain[left], point[1])
            area = hypervolume(best_latency, best_gain, reference)
        areas[index] = area
    return areas


def _values(latency_ms: ArrayLike, accuracy: ArrayLike) -> tuple[Floats, Floats]:
    latency = np.asarray(latency_ms, dtype=np.float64)
    gain = np.asarray(accuracy, dtype=np.float64)
    if latency.ndim != 1 or latency.shape != gain.shape:
        raise UsageError(
            f"a front needs one latency and one accuracy for each architecture; their shapes are "
            f"{latency.shape} and {gain.shape}"
        )
    for name, values in (("latency", latency), ("accuracy", gain)):
        wrong = np.flatnonzero(~np.isfinite(values))
        if wrong.size:
            raise UsageError(
                f"the {name} of architecture {wrong[0]} is {values[wrong[0]]}; leave out what was "
                "not measured"
            )
    return latency, gain


def _reference(reference: tuple[float, float]) -> tuple[float, float]:
    latency_ms, accuracy = map(float, reference)
    if not (np.isfinite(latency_ms) and np.isfinite(accuracy)):
        raise UsageError(
            f"the reference of a hypervolume is a latency in ms and an accuracy, not {reference}"
        )
    return latency_ms, accuracy
