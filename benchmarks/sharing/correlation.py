"""Rank correlations with bootstrap intervals over architectures."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import kendalltau, spearmanr

RESAMPLES = 1000
CONFIDENCE = 0.9

Values = NDArray[np.floating[Any]]


def correlations(first: Values, second: Values, seed: int = 0) -> dict[str, float]:
    """Kendall's and Spearman's rank correlation of two (N,) arrays, the former with an interval.

    The interval resamples architectures; not a number where one array is constant.
    """
    if not _varies(first, second):
        return dict.fromkeys(("kendall", "low", "high", "spearman"), np.nan)
    random = np.random.default_rng(seed)
    drawn = []
    for _ in range(RESAMPLES):
        chosen = random.integers(len(first), size=len(first))
        drawn.append(_kendall(first[chosen], second[chosen]))
    low, high = np.nanquantile(drawn, ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2))
    return {
        "kendall": _kendall(first, second),
        "low": float(low),
        "high": float(high),
        "spearman": float(spearmanr(first, second).statistic),
    }


def between_seeds(accuracies: Values) -> dict[str, float]:
    """The mean of `correlations` over all pairs of rows of (seeds, N): what noise leaves over."""
    pairs = [correlations(a, b) for a, b in combinations(accuracies, 2)]
    return {name: float(np.mean([pair[name] for pair in pairs])) for name in pairs[0]}


def _kendall(first: Values, second: Values) -> float:
    return float(kendalltau(first, second).statistic) if _varies(first, second) else np.nan


def _varies(*arrays: Values) -> bool:
    return all(np.ptp(array) > 0 for array in arrays)
