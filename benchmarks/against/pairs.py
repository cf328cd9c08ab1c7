"""Differences of paired results over seeds, with Student's interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.stats import t

CONFIDENCE = 0.95


def paired(method: Sequence[float], random: Sequence[float]) -> dict[str, Any]:
    """Means of both, and of `method` less `random`, seed by seed, with the latter's 95 % interval.

    The interval is Student's, over seeds: not a number where there is one seed. `wins`, `ties` and
    `losses` are the method's. Raises `ValueError` where the two are not as many.
    """
    pairs = list(zip(method, random, strict=True))
    differences = np.array([own - other for own, other in pairs])
    count = len(differences)
    mean, half = float(differences.mean()), math.nan
    if count > 1:
        error = float(differences.std(ddof=1)) / math.sqrt(count)
        half = float(t.ppf((1 + CONFIDENCE) / 2, count - 1)) * error
    return {
        "seeds": count,
        "method": float(np.mean(method)),
        "random": float(np.mean(random)),
        "difference": mean,
        "low": mean - half,
        "high": mean + half,
        "wins": int((differences > 0).sum()),
        "ties": int((differences == 0).sum()),
        "losses": int((differences < 0).sum()),
    }
