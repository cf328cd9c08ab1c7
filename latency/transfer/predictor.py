"""A new device from few measurements: what others take, and 10 to 20 latencies of its own.

    sources = learn_sources(Choices.of(architectures), source_latency_ms)
    indices = sources.choose(20)
    predictor = TransferPredictor(sources).fit(indices, measured_ms)
    predictor.predict()

`adapt` does the four in one call. Variances of the kernel are learned on the sources, each in turn
as the new device (latency/transfer_sources.py), and then moved by the evidence of the new device's
own samples; no other latency of it is seen.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtri

from ...devices.errors import UsageError
from .choices import Choices
from .gaussian import (
    NEAR_ZERO,
    Floats,
    Part,
    Rows,
    Task,
    left_out,
    most_likely,
    posterior,
)
from .sources import Items, Sources, beginning_unlike, learn_sources

if TYPE_CHECKING:
    from sklearn.utils import Tags

FEWEST_SAMPLES = 5
COVERAGE = 0.9

SPREADS = (0.5, 1.0, 2.0)
"""How far, in log variance, a new device may be from what the sources taught; averaged over."""

STRANGER_SPREAD = 2.0
"""How far it may be from a device that goes by its op counts, if it is like no source."""

TRUST = 0.25
"""What each sample, left out, counts when these suppositions are weighed: 0.5 would be a likelihood
of normal errors of their own spread, and with few samples that is too sure."""

NOISE_SPREAD = 2.0
"""How much further the noise may be: it is a device's own."""

STEPS_MS = (1.0, 0.1, 0.01)
"""What tools round latencies to."""


class TransferPredictor:
    """Latency of items on a new device, from source devices and few measurements of its own.

    In scikit-learn's manner; the samples are indices of the sources' items.
    """

    def __init__(self, sources: Sources) -> None:
        self.sources = sources

    def fit(self, indices: ArrayLike, latency_ms: ArrayLike) -> TransferPredictor:
        """Learn from the measured latencies of the items `indices`, at least `FEWEST_SAMPLES`.

        Raises `UsageError` for latencies that can't be, and for an index that is none or occurs
        twice.
        """
        sources = self.sources
        rows, latency = sources.rows(indices), np.asarray(latency_ms, dtype=np.float64)
        if latency.shape != rows.shape:
            raise UsageError(f"{len(rows)} items need as many latencies, not {latency.shape}")
        wrong = "is no number" if not np.isfinite(latency).all() else sources.items.check(latency)
        if wrong:
            raise UsageError(f"a measured latency {wrong}. Leave out what could not be measured.")
        if len(rows) < FEWEST_SAMPLES:
            raise UsageError(
                f"{len(rows)} latencies were measured on the new device; at least {FEWEST_SAMPLES} "
                "are needed, better 20"
            )
        ranked = np.argsort(rows)
        self.rows_, measured = rows[ranked], latency[ranked]
        transformed = sources.items.transformed(measured)
        known_noise = sources.items.noise(measured, rounding_step_ms(measured))
        self.mean_, self.variance_ = _predict(
            sources.parts,
            self.rows_,
            transformed,
            known_noise,
            sources.log_variances,
            np.arange(len(sources)),
        )
        return self

    def predict(self, indices: ArrayLike | None = None) -> Floats:
        """Latency in ms of the items `indices` (default: all)."""
        rows = self._rows(indices)
        return self.sources.items.restored(self.mean_[rows])

    def predict_interval(
        self, indices: ArrayLike | None = None, coverage: float = COVERAGE
    ) -> tuple[Floats, Floats]:
        """Ends in ms of an interval that holds a measured latency with probability `coverage`.

        It is the process's own, wider where the samples were further from what the others of them
        said, each left out in turn, than expected.
        """
        if not 0 < coverage < 1:
            raise UsageError(f"coverage is between 0 and 1, not {coverage}")
        rows = self._rows(indices)
        reach = ndtri(0.5 + coverage / 2) * np.sqrt(self.variance_[rows])
        restored = self.sources.items.restored
        return restored(self.mean_[rows] - reach), restored(self.mean_[rows] + reach)

    def score(self, indices: ArrayLike, latency_ms: ArrayLike) -> float:
        """Minus the root mean square error relative to the mean, so that greater is better."""
        latency = np.asarray(latency_ms, dtype=np.float64)
        return -math.sqrt(np.mean((self.predict(indices) - latency) ** 2)) / float(latency.mean())

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The constructor's arguments by name, as scikit-learn asks for them."""
        return {"sources": self.sources}

    def set_params(self, **parameters: Any) -> TransferPredictor:
        """Set the constructor's arguments by name; `UsageError` for a name that is none."""
        for name, value in parameters.items():
            if name not in self.get_params():
                raise UsageError(f"{name} is no parameter; the only one is sources")
            setattr(self, name, value)
        return self

    def __repr__(self) -> str:
        return f"TransferPredictor({len(self.sources)} items)"

    def __sklearn_tags__(self) -> Tags:
        from sklearn.utils import RegressorTags, Tags, TargetTags

        return Tags(
            estimator_type="regressor",
            target_tags=TargetTags(required=True),
            regressor_tags=RegressorTags(),
        )

    def _rows(self, indices: ArrayLike | None) -> Rows:
        if not hasattr(self, "mean_"):
            raise UsageError("nothing is known of the new device yet: call fit first")
        return self.sources.rows(np.arange(len(self.sources)) if indices is None else indices)


@dataclass(frozen=True, eq=False)
class Adaptation:
    """What `adapt` found: all N latencies with their interval, and what was measured for it."""

    indices: Rows
    measured_ms: Floats
    latency_ms: Floats
    low_ms: Floats
    high_ms: Floats
    predictor: TransferPredictor


def adapt(
    architectures: ArrayLike | Items,
    source_latency_ms: ArrayLike,
    measure: Callable[[Rows], ArrayLike] | Mapping[int, float],
    *,
    count: int = 20,
    candidates: ArrayLike | None = None,
    coverage: float = COVERAGE,
    seed: int = 0,
) -> Adaptation:
    """Predict a new device from other devices' latencies and few measurements.

    `architectures` are vectors of choices (N, positions), or `Items` of another kind;
    `source_latency_ms` is (N, sources), NaN where not measured. `measure` is called once with the
    `count` indices that the kit chooses among `candidates` and gives their latencies in ms, NaN
    where that failed; or it is a mapping of latencies that were measured already.

    >>> import numpy as np
    >>> from latkit.latency.transfer import adapt
    >>> random = np.random.default_rng(0)
    >>> architectures = random.integers(0, 3, (200, 4))
    >>> effects_ms = random.random((3, 4, 3))
    >>> latency_ms = 1 + effects_ms[:, np.arange(4), architectures].sum(2).T
    >>> others, new = latency_ms[:, :2], latency_ms[:, 2]
    >>> found = adapt(architectures, others, lambda indices: new[indices], count=14)
    >>> len(found.indices), found.latency_ms.shape
    (14, (200,))
    >>> bool(np.corrcoef(found.latency_ms, new)[0, 1] > 0.9)
    True
    """
    given = architectures
    items = given if isinstance(given, Items) else Choices.of(given)
    sources = learn_sources(items, source_latency_ms, seed=seed)
    if isinstance(measure, Mapping):
        indices = np.array(list(measure), dtype=np.intp)
        measured = np.array(list(measure.values()), dtype=np.float64)
    else:
        indices = sources.choose(count, candidates=candidates, seed=seed)
        measured = np.asarray(measure(indices), dtype=np.float64)
        if measured.shape != indices.shape:
            raise UsageError(f"measure gave {measured.shape} latencies for {len(indices)} items")
        indices, measured = indices[~np.isnan(measured)], measured[~np.isnan(measured)]
    predictor = TransferPredictor(sources).fit(indices, measured)
    low_ms, high_ms = predictor.predict_interval(coverage=coverage)
    return Adaptation(indices, measured, predictor.predict(), low_ms, high_ms, predictor)


def rounding_step_ms(latency_ms: Floats) -> float:
    """What latencies were rounded to, in ms; 0 where they were not."""
    for step in STEPS_MS:
        if np.allclose(latency_ms / step, np.round(latency_ms / step), rtol=0, atol=1e-4):
            return step
    return 0.0


def _predict(
    parts: list[Part],
    rows: Rows,
    latency: Floats,
    known_noise: float,
    centre: Floats,
    wanted: Rows,
) -> tuple[Floats, Floats]:
    """Mean and variance of transformed latencies, averaged over how far the device may be.

    Each supposition weighs by how well it tells a sample from the others.
    """
    middle, spread = latency.mean(), max(latency.std(), NEAR_ZERO)
    task = Task.of(parts, rows, (latency - middle) / spread, known_noise / spread**2)
    supposed = [(centre, reach) for reach in SPREADS]
    supposed.append((beginning_unlike(parts), STRANGER_SPREAD))
    means, variances, errors = [], [], []
    for middle_of_prior, reach in supposed:
        reaches = np.full(len(centre), reach)
        reaches[-1] *= NOISE_SPREAD
        log_variances = most_likely([task], middle_of_prior, reaches)
        mean, variance = posterior(parts, rows, task, log_variances, wanted)
        error, ratio = left_out(task, log_variances)
        means.append(mean)
        variances.append(variance * max(1.0, ratio))
        errors.append(max(error, NEAR_ZERO))
    weights = (np.array(errors) / min(errors)) ** (-TRUST * len(rows))
    weights /= weights.sum()
    mean = weights @ np.array(means)
    variance = weights @ (np.array(variances) + (np.array(means) - mean) ** 2)
    return middle + spread * mean, spread**2 * variance
