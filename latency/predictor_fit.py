"""How a latency predictor is fitted: channel grid, physical model, process, trees, left-out errors.

Each part is kept only where it lowers the error on folds left out, and those errors are what
intervals are made of.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .additive import fit_process
from .additive_scales import fit_scales
from .features import Description, Sample, describe, matrix, names_of
from .hybrid import NO_TREES, Columns, HybridModel, PhysicalModel, Prepared, with_estimate
from .trees import Trees, boosted_trees

FOLDS = 10
FEW_FOLDS = 5
MANY_SAMPLES = 150
"""With more samples than this `FEW_FOLDS` folds are enough."""

FEWEST_FOR_TREES = 1000
"""Fewer samples tell trees nothing that the process does not know."""

NEEDED_GAIN = 0.02
"""Share by which trees must lower the mean left-out error to be kept."""

COMMON_GRIDS = (8, 16)
"""Channel grids that are compared where none is given."""

RARE_GRIDS = (32, 4)
"""Grids that are compared too from `ENOUGH_FOR_RARE` samples on: fewer can't tell so many apart."""

ENOUGH_FOR_RARE = 100
GREATEST_ERROR = 0.3
"""Larger errors count as this when models are compared: a rare kernel errs in any."""

Array = NDArray[np.float64]
Rows = NDArray[np.intp]


@dataclass(frozen=True)
class Fit:
    """A fitted model, and what models that did not know a sample said of it.

    `left_out_spread` is how unsure they were, in comparison with each other.
    """

    model: HybridModel
    channel_grid: int
    described: Sequence[Description]
    left_out_ms: Array
    left_out_spread: Array


def fold_count(samples: int) -> int:
    """Into how many folds so many samples are split."""
    return FEW_FOLDS if samples > MANY_SAMPLES else FOLDS


def fit_model(
    samples: Sequence[Sample],
    latency_ms: Array,
    folds: Rows,
    *,
    channel_grid: int | None,
    trees: int,
    learning_rate: float,
    seed: int,
) -> Fit:
    """Fit to measured samples; `folds` (N,) numbers the fold that each is left out with."""
    grid = channel_grid or _best_grid(samples, latency_ms, folds)
    described = [describe(sample, grid) for sample in samples]
    columns = Columns.of(described)
    prepared = columns.prepare(described)
    everyone = np.arange(len(samples))

    def model(rows: Rows) -> HybridModel:
        known, known_ms = prepared[rows], latency_ms[rows]
        base = PhysicalModel.fit(columns.work, known.work, known_ms)
        estimate_ms = base.predict(known.terms.work)
        # Scales learned from a sample that is left out would make its error look small.
        scales = fit_scales(known.terms, estimate_ms, known_ms, seed)
        process = fit_process(known.terms, estimate_ms, known_ms, scales, seed)
        return HybridModel(columns, base, process, NO_TREES)

    left_out_ms, spread = np.empty(len(samples)), np.empty(len(samples))
    for fold in np.unique(folds):
        out = np.flatnonzero(folds == fold)
        left_out_ms[out], spread[out] = model(np.flatnonzero(folds != fold)).predict(prepared[out])
    final = model(everyone)
    if trees and len(samples) >= FEWEST_FOR_TREES:

        def boosted(rows: Rows) -> Trees:
            return boosted_trees(
                with_estimate(prepared.features[rows], left_out_ms[rows]),
                np.log(latency_ms[rows] / left_out_ms[rows]),
                trees=trees,
                learning_rate=learning_rate,
                seed=seed,
            )

        corrected_ms = left_out_ms * np.exp(_left_out_trees(boosted, prepared, left_out_ms, folds))
        if _error(corrected_ms, latency_ms) < (1 - NEEDED_GAIN) * _error(left_out_ms, latency_ms):
            final = HybridModel(columns, final.physical, final.process, boosted(everyone))
            left_out_ms = corrected_ms
    return Fit(final, grid, described, left_out_ms, spread)


def _left_out_trees(
    boosted: Callable[[Rows], Trees], prepared: Prepared, left_out_ms: Array, folds: Rows
) -> Array:
    """What trees that did not know a sample add to its logarithm: (N,)."""
    correction = np.empty(len(folds))
    for fold in np.unique(folds):
        out = np.flatnonzero(folds == fold)
        features = with_estimate(prepared.features[out], left_out_ms[out])
        correction[out] = boosted(np.flatnonzero(folds != fold)).predict(features)
    return correction


def _best_grid(samples: Sequence[Sample], latency_ms: Array, folds: Rows) -> int:
    """The channel grid whose physical model errs least on folds left out."""
    grids = COMMON_GRIDS if len(samples) < ENOUGH_FOR_RARE else COMMON_GRIDS + RARE_GRIDS
    errors = []
    for grid in grids:
        described = [describe(sample, grid) for sample in samples]
        names = names_of(item.work for item in described)
        work = matrix([item.work for item in described], names)
        left_out_ms = np.empty(len(samples))
        for fold in np.unique(folds):
            out, kept = folds == fold, folds != fold
            model = PhysicalModel.fit(names, work[kept], latency_ms[kept])
            left_out_ms[out] = model.predict(work[out])
        errors.append(_error(left_out_ms, latency_ms))
    return grids[int(np.argmin(errors))]


def _error(predicted_ms: Array, latency_ms: Array) -> float:
    """Mean error of the logarithm, none larger than `GREATEST_ERROR`."""
    return float(np.minimum(np.abs(np.log(predicted_ms / latency_ms)), GREATEST_ERROR).mean())
