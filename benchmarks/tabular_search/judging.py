"""What searches found, judged by true latencies: regret, violations and differences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import wilcoxon

from .table import Table

Floats = NDArray[np.float64]

BOOTSTRAPS = 10_000
COVERAGE = 0.95


def regret(table: Table, rows: NDArray[np.intp], target_ms: float) -> float:
    """Accuracy of the best in the table less that of the best found, both truly within the target.

    Where nothing found is, all of the best's accuracy.
    """
    inside = rows[table.true_ms[rows] <= target_ms]
    found = float(table.accuracy[inside].max()) if len(inside) else 0.0
    return table.best_within(target_ms) - found


def regret_curve(table: Table, rows: NDArray[np.intp], target_ms: float, length: int) -> Floats:
    """Regret after 1, 2, ... evaluations; after the last one it stays."""
    inside = table.true_ms[rows] <= target_ms
    best = np.maximum.accumulate(np.where(inside, table.accuracy[rows], 0.0))
    best = np.concatenate([best, np.full(max(0, length - len(best)), best[-1])])
    return table.best_within(target_ms) - best[:length]


def violations(table: Table, rows: NDArray[np.intp], target_ms: float) -> tuple[float, float]:
    """Of what was seen to be within the target: the share that is not, and whether the best is not.

    The best is the most accurate one, of equals the one that is seen to be the fastest.
    """
    seen = rows[table.seen_ms[rows] <= target_ms]
    if not len(seen):
        return 0.0, 0.0
    above = table.true_ms[seen] > target_ms
    best = np.lexsort((table.seen_ms[seen], -table.accuracy[seen]))[0]
    return float(above.mean()), float(above[best])


def passes(curve: Floats, baseline: Floats) -> int | None:
    """After how many evaluations a median curve is below the baseline's and stays there.

    `None` where it is not at the end.
    """
    ahead = curve < baseline
    if not ahead[-1]:
        return None
    behind = np.flatnonzero(~ahead)
    return int(behind[-1]) + 2 if len(behind) else 1


@dataclass(frozen=True)
class Difference:
    """One strategy less another one, seed by seed; positive is better for the first."""

    figure: str
    budget: int
    than: str
    mean: float
    low: float
    high: float
    p: float


def difference(
    figure: str, budget: int, than: str, better: Floats, worse: Floats, sign: float
) -> Difference:
    """Mean of `sign * (better - worse)` over seeds, its bootstrap interval and Wilcoxon's p."""
    gains = sign * (better - worse)
    random = np.random.default_rng(0)
    means = gains[random.integers(len(gains), size=(BOOTSTRAPS, len(gains)))].mean(axis=1)
    low, high = np.quantile(means, [0.5 - COVERAGE / 2, 0.5 + COVERAGE / 2])
    p = 1.0 if np.allclose(gains, 0) else float(wilcoxon(gains).pvalue)
    return Difference(figure, budget, than, float(gains.mean()), float(low), float(high), p)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted for the number of tests (Holm 1979)."""
    order = np.argsort(p_values, kind="stable")
    factors = len(p_values) - np.arange(len(p_values))
    raised = np.minimum(np.maximum.accumulate(np.asarray(p_values)[order] * factors), 1.0)
    adjusted = np.empty(len(p_values))
    adjusted[order] = raised
    return [float(value) for value in adjusted]


def difference_rows(differences: Sequence[Difference]) -> list[dict[str, Any]]:
    """A row for each difference, with p adjusted over all of them."""
    adjusted = holm([item.p for item in differences])
    return [
        {
            "figure": item.figure,
            "budget": item.budget,
            "default against": item.than,
            "better by": item.mean,
            "low": item.low,
            "high": item.high,
            "p": item.p,
            "p_holm": p,
            "verdict": "ahead" if p < 0.05 and item.mean > 0 else "behind" if p < 0.05 else "-",
        }
        for item, p in zip(differences, adjusted, strict=True)
    ]
