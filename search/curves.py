"""Curves over a search: the best accuracy so far, the front's area so far, a band over seeds.

A trajectory is a data frame with a row for each evaluation: strategy, index, predicted_ms and
accuracy, and, where they are known, search and seed (which tell runs of one strategy apart),
feasible (whether the search may choose it), the seconds that it took, and the strategy's own
figures, such as policy_entropy. Rows without an index are no evaluations and are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from .pareto import Floats
from .pareto import hypervolume_so_far as areas_so_far

RUN = ("search", "strategy", "seed")
"""Columns that tell runs apart."""

EVALUATION = (
    *RUN,
    *("index", "architecture", "predicted_ms", "measured_ms", "accuracy", "seconds", "feasible"),
)
"""Columns that are no figure of a strategy's."""

MOST_UNTIMED = 0.1
"""Share of evaluations without a time up to which a run is drawn over time."""


@dataclass(frozen=True)
class Run:
    """The evaluations of one run of a strategy, in order; its name tells it from the others."""

    strategy: str
    name: str
    rows: pd.DataFrame

    @property
    def evaluations(self) -> Floats:
        """How many evaluations there were after each."""
        return np.arange(1, len(self.rows) + 1).astype(np.float64)

    @property
    def seconds(self) -> Floats:
        """Seconds that all evaluations up to each took, those that are not known left out.

        NaN where more than `MOST_UNTIMED` of the run's are not known.
        """
        if "seconds" not in self.rows or self.untimed > MOST_UNTIMED * len(self.rows):
            return np.full(len(self.rows), np.nan)
        return np.cumsum(np.nan_to_num(np.asarray(self.rows["seconds"], dtype=np.float64)))

    @property
    def untimed(self) -> int:
        """How many evaluations have no time: a kill loses the last ones'."""
        return int(self.rows["seconds"].isna().sum()) if "seconds" in self.rows else len(self.rows)


@dataclass(frozen=True)
class Band:
    """The median of several curves over `x`, and the lowest and highest of them."""

    x: Floats
    low: Floats
    middle: Floats
    high: Floats


def runs(trajectory: pd.DataFrame) -> list[Run]:
    """The runs of a trajectory, in order of appearance."""
    if trajectory.empty:
        return []
    trajectory = trajectory[trajectory["index"].notna()]
    columns = [name for name in RUN if name in trajectory]
    # What does not differ within a strategy is left out of the names.
    differs = trajectory.groupby("strategy", sort=False)[columns].nunique(dropna=False) > 1
    found = []
    for _, rows in trajectory.groupby(columns, sort=False, dropna=False):
        first = rows.iloc[0]
        strategy = first["strategy"]
        telling = [name for name in columns if name != "strategy" and differs.loc[strategy, name]]
        parts = [str(strategy), *(f"{name} {first[name]}" for name in telling)]
        ordered = rows.sort_values("index", kind="stable")
        found.append(Run(str(strategy), ", ".join(parts), ordered))
    return found


def best_so_far(run: Run) -> Floats:
    """The best accuracy of a feasible architecture after each evaluation; NaN before the first."""
    accuracy = run.rows["accuracy"].astype(float)
    if "feasible" in run.rows:
        accuracy = accuracy.where(run.rows["feasible"].astype(bool))
    return np.asarray(accuracy.cummax().ffill(), dtype=np.float64)


def hypervolume_so_far(run: Run, reference: tuple[float, float]) -> Floats:
    """The area between the front and `reference` after each evaluation.

    Evaluations without a latency or an accuracy add nothing.
    """
    values = run.rows[["predicted_ms", "accuracy"]].to_numpy(dtype=np.float64)
    known = np.isfinite(values).all(axis=1)
    found = areas_so_far(values[known, 0], values[known, 1], reference)
    areas = np.concatenate([[0.0], found])
    after: Floats = areas[np.cumsum(known)]
    return after


def worst_seen(trajectory: pd.DataFrame) -> tuple[float, float]:
    """The reference where none is given: the largest latency and the lowest accuracy seen."""
    known = trajectory[["predicted_ms", "accuracy"]].replace([np.inf, -np.inf], np.nan).dropna()
    return float(known["predicted_ms"].max()), float(known["accuracy"].min())


def figures_of(trajectory: pd.DataFrame) -> list[str]:
    """Columns with what strategies tell of themselves."""
    return [
        str(name)
        for name in trajectory.columns
        if name not in EVALUATION and pd.api.types.is_numeric_dtype(trajectory[name])
    ]


def changing_figures(trajectory: pd.DataFrame) -> list[str]:
    """Those of `figures_of` that change within a run."""
    found = runs(trajectory)
    return [
        name
        for name in figures_of(trajectory)
        if any(run.rows[name].nunique() > 1 for run in found)
    ]


def band(curves: Sequence[tuple[Floats, Floats]]) -> Band:
    """Median, lowest and highest of curves that each hold a value until their next point.

    A curve is its x, ascending, and its y. The band begins where every curve has a value; a curve
    that ends early holds its last value.
    """
    curves = [(x[np.isfinite(x)], y[np.isfinite(x)]) for x, y in curves]
    x = np.unique(np.concatenate([places for places, _ in curves]))
    values = np.full((len(curves), x.size), np.nan)
    for row, (places, heights) in zip(values, curves, strict=True):
        at = np.searchsorted(places, x, side="right") - 1
        row[at >= 0] = heights[at[at >= 0]]
    drawn = np.isfinite(values).all(axis=0)
    values = values[:, drawn]
    return Band(x[drawn], values.min(axis=0), np.median(values, axis=0), values.max(axis=0))
