"""Accuracy against latency: which evaluations no other one beats in both, and their order."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .strategy import Evaluation

Floats = NDArray[np.float64]


def front_of(evaluations: Sequence[Evaluation]) -> list[Evaluation]:
    """The evaluations that no other one beats, from the fastest to the most accurate.

    Of equally fast and accurate ones the first.
    """
    front: list[Evaluation] = []
    for item in sorted(evaluations, key=lambda each: (each.latency_ms, -each.accuracy)):
        if not front or item.accuracy > front[-1].accuracy:
            front.append(item)
    return front


def dominance_ranks(accuracy: ArrayLike, latency_ms: ArrayLike) -> NDArray[np.int64]:
    """0 for the front, 1 for the front of the others, and so on (Deb et al. 2002, section III.A).

    Equal ones do not beat each other.
    """
    accuracy, latency_ms = np.asarray(accuracy), np.asarray(latency_ms)
    no_worse = (accuracy[:, None] >= accuracy) & (latency_ms[:, None] <= latency_ms)
    beats = no_worse & ~no_worse.T
    ranks = np.full(len(accuracy), -1, dtype=np.int64)
    beaten_by = beats.sum(axis=0)
    rank = 0
    while (ranks < 0).any():
        front = (ranks < 0) & (beaten_by == 0)
        ranks[front] = rank
        beaten_by = beaten_by - beats[front].sum(axis=0)
        rank += 1
    return ranks


def crowding(accuracy: ArrayLike, latency_ms: ArrayLike) -> Floats:
    """Crowding distance within one front (section III.B): infinite at the ends of either axis."""
    total = np.zeros(np.size(accuracy))
    for values in (np.asarray(accuracy, np.float64), np.asarray(latency_ms, np.float64)):
        order = np.argsort(values, kind="stable")
        ranked = values[order]
        total[order[[0, -1]]] = np.inf
        reach = ranked[-1] - ranked[0]
        if reach > 0:
            total[order[1:-1]] += (ranked[2:] - ranked[:-2]) / reach
    return total
