"""Latency predictor: what a block that was never measured would take, with an interval.

A physical model comes first: latency as a non-negative combination of amounts of work, fitted by
relative error. A Gaussian process over kernels learns what it gets wrong of each
(latency/additive.py), boosted trees what is left where samples are many. Intervals are conformal,
from the errors on folds left out (Vovk et al. 2005, section 4; Barber et al. 2021), each relative
to how unsure the model was (Papadopoulos et al. 2011).
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import ValidationError

from ..devices.device import Setup
from ..devices.errors import DamagedFileError, UsageError
from .document import read_document, write_document
from .features import Sample, describe, kernels_of
from .hybrid import HybridModel, Prepared
from .predictor_file import PredictorBody, ProcessBody, TreesBody
from .predictor_fit import fit_model, fold_count
from .predictor_monotone import narrower, raised
from .table import Estimate

if TYPE_CHECKING:
    from sklearn.utils import Tags

KIND = "latency_predictor"
VERSION = 2
"""1: physical model and trees. 2: also a process over kernels."""

FEWEST_SAMPLES = 10
COVERAGE = 0.9

OUTSIDE_WIDENING = 3.0
"""How many times wider, as a ratio, the interval of a block unlike the training blocks is."""

RANGE_MARGIN = 0.1
"""Share by which a block may leave the range of the training blocks and still be like them."""


class LatencyPredictor:
    """Latency of blocks on one setup, learned from measured ones; in scikit-learn's manner.

    A sample is a block, a kernel, or a tuple of kernels that run in a row. `trees` is how many
    trees are tried at most, `learning_rate` theirs. With `monotone` a wider block on the channel
    grid is never predicted to be faster (latency/predictor_monotone.py): for runtimes whose probes
    confirm it.

    `setup` and `eviction_bytes` say what the latencies are of. `channel_grid` is the width of the
    runtime's vectors (see latency/grid.py); `None` takes the one that explains the training
    blocks best.

    >>> from latkit.latency import LatencyPredictor, Pointwise
    >>> blocks = [Pointwise(8 * n, 14, 14, out_channels=16) for n in range(1, 21)]
    >>> latency_ms = [0.01 + 0.002 * n for n in range(1, 21)]
    >>> predictor = LatencyPredictor().fit(blocks[:19], latency_ms[:19])
    >>> predicted_ms, (low_ms, high_ms) = (
    ...     predictor.predict(blocks[19:]), predictor.predict_interval(blocks[19:], 0.8)
    ... )
    >>> bool(low_ms[0] <= predicted_ms[0] <= high_ms[0]), bool(abs(predicted_ms[0] - 0.05) < 0.01)
    (True, True)
    """

    def __init__(
        self,
        setup: Setup | None = None,
        eviction_bytes: int = 0,
        channel_grid: int | None = None,
        trees: int = 300,
        learning_rate: float = 0.05,
        monotone: bool = False,
    ) -> None:
        self.setup = setup
        self.eviction_bytes = eviction_bytes
        self.channel_grid = channel_grid
        self.trees = trees
        self.learning_rate = learning_rate
        self.monotone = monotone

    def fit(
        self,
        samples: Sequence[Sample],
        latency_ms: ArrayLike,
        seed: int = 0,
        at_random: Sequence[bool] | None = None,
    ) -> LatencyPredictor:
        """Learn from measured samples. Takes seconds: a model for each fold left out is fitted.

        Samples without an operation are left out. `left_out_ms_` is then what was predicted for
        each of the others by a model that was not fitted to it, `left_out_spread_` how unsure
        that model was.

        Intervals are made from the errors of the samples that `at_random` marks (default: all):
        those drawn as what will be predicted is. Samples chosen because a model was unsure of
        them are harder than those.

        Raises `UsageError` for fewer than `FEWEST_SAMPLES` samples, for none that was drawn at
        random, and for latencies that are not positive numbers.
        """
        kept, latency = _timed(samples, latency_ms)
        timed = [samples[index] for index in kept]
        shuffled = np.random.default_rng(seed).permutation(len(timed))
        found = fit_model(
            timed,
            latency,
            shuffled % fold_count(len(timed)),
            channel_grid=self.channel_grid,
            trees=self.trees,
            learning_rate=self.learning_rate,
            seed=seed,
        )
        described = found.described
        self.channel_grid_ = found.channel_grid
        self.model_ = found.model
        self.left_out_ms_ = found.left_out_ms
        self.left_out_spread_ = found.left_out_spread
        errors = np.abs(np.log(latency / found.left_out_ms)) / found.left_out_spread
        drawn = np.ones(len(samples), bool) if at_random is None else np.asarray(at_random, bool)
        if drawn.shape != (len(samples),):
            raise UsageError(f"{len(samples)} samples need as many marks in at_random")
        self.residuals_ = np.sort(errors[drawn[kept]])
        if not len(self.residuals_):
            raise UsageError("no sample was drawn at random, so there can be no interval")
        self.ranges_ = {
            name: (
                float(min(item.ranges[name] for item in described)),
                float(max(item.ranges[name] for item in described)),
            )
            for name in described[0].ranges
        }
        self.categories_ = frozenset[str]().union(*(item.categories for item in described))
        return self

    def predict(self, samples: Sequence[Sample]) -> NDArray[np.float64]:
        """Latency of each block in ms: (N,). 0 for a block without an operation."""
        self._fitted()
        wanted = timed = [block for block in dict.fromkeys(samples) if _is_timed(block)]
        if self.monotone:
            relatives = (narrower(sample, self.channel_grid_) for sample in wanted)
            timed = list(dict.fromkeys(itertools.chain.from_iterable(relatives)))
        latency_ms = self.predict_prepared(self.prepare(timed)).tolist()
        known = dict(zip(timed, latency_ms, strict=True))
        if self.monotone:
            known = raised(wanted, known, self.channel_grid_)
        return np.array([known.get(block, 0.0) for block in samples], dtype=np.float64)

    def prepare(self, samples: Sequence[Sample]) -> Prepared:
        """What the model reads of blocks: the slow part of a prediction, to be done once."""
        model = self._fitted()
        return model.columns.prepare([describe(block, self.channel_grid_) for block in samples])

    def predict_prepared(self, prepared: Prepared) -> NDArray[np.float64]:
        """`predict` for what `prepare` gave of blocks that have an operation."""
        return self._fitted().predict(prepared)[0]

    def predict_interval(
        self, samples: Sequence[Sample], coverage: float = COVERAGE
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Ends in ms of an interval that holds a block's latency with probability `coverage`.

        That holds for blocks drawn as the training blocks were. For blocks unlike them the
        interval is wider, by `OUTSIDE_WIDENING`, without such a promise. Raises `UsageError`
        where the training blocks are too few for the coverage.
        """
        half_width = dict.fromkeys(samples, 0.0)
        timed = [sample for sample in half_width if _is_timed(sample)]
        _, spread = self._fitted().predict(self.prepare(timed))
        quantile = self._quantile(coverage)
        for sample, width in zip(timed, spread.tolist(), strict=True):
            widening = OUTSIDE_WIDENING if self.outside(sample) else 1.0
            half_width[sample] = quantile * width * widening
        predicted = self.predict(samples)
        widths = np.array([half_width[sample] for sample in samples], dtype=np.float64)
        return predicted * np.exp(-widths), predicted * np.exp(widths)

    def estimate(self, block: Sample) -> Estimate:
        """Latency of a block timed alone, uncalibrated; `reason` says where it is a strange one."""
        if not _is_timed(block):
            return Estimate(0.0, 0.0, 0.0, "predicted", "no operation")
        (latency_ms,), ((low_ms,), (high_ms,)) = (
            self.predict([block]),
            self.predict_interval([block]),
        )
        reason = "; ".join(self.outside(block))
        return Estimate(float(latency_ms), float(low_ms), float(high_ms), "predicted", reason)

    def outside(self, block: Sample) -> tuple[str, ...]:
        """In what the block is unlike the training blocks; empty where it is like them."""
        self._fitted()
        if not _is_timed(block):
            return ()
        described = describe(block, self.channel_grid_)
        unseen = sorted(described.categories - self.categories_)
        reasons = [f"no training block has {name}" for name in unseen]
        for name, (low, high) in self.ranges_.items():
            value = described.ranges[name]
            if not low / (1 + RANGE_MARGIN) <= value <= high * (1 + RANGE_MARGIN):
                reasons.append(f"{name}: {value:g}, in training blocks {low:g} to {high:g}")
        return tuple(reasons)

    def check_setup(self, setup: Setup) -> None:
        """Raise `UsageError` where `setup` is not the one that the predictor was fitted on."""
        if setup != self.setup:
            own = "no named setup" if self.setup is None else self.setup.key
            raise UsageError(
                f"the latency predictor is of {own}, and does not hold for {setup.key}. "
                "Profile that device and fit a predictor to it, or choose the predictor's own."
            )

    def score(self, samples: Sequence[Sample], latency_ms: ArrayLike) -> float:
        """Minus the root mean square of the relative error, so that greater is better."""
        relative = self.predict(samples) / np.asarray(latency_ms, dtype=np.float64) - 1
        return -math.sqrt(np.mean(relative**2))

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The constructor's arguments by name, as scikit-learn asks for them."""
        return {name: getattr(self, name) for name in _PARAMETERS}

    def set_params(self, **parameters: Any) -> LatencyPredictor:
        """Set the constructor's arguments by name; `UsageError` for a name that is none."""
        for name, value in parameters.items():
            if name not in _PARAMETERS:
                raise UsageError(f"{name} is no parameter; they are {', '.join(_PARAMETERS)}")
            setattr(self, name, value)
        return self

    def save(self, path: Path) -> None:
        """Write the fitted predictor as a latkit document: numbers and names, no code."""
        model = self._fitted()
        process = model.process
        body = {
            "setup": None if self.setup is None else asdict(self.setup),
            "eviction_bytes": self.eviction_bytes,
            "channel_grid": self.channel_grid_,
            "learning_rate": self.learning_rate,
            "monotone": self.monotone,
            "coefficients": dict(
                zip(model.columns.work, model.physical.coefficients.tolist(), strict=True)
            ),
            "features": list(model.columns.features),
            "process": None if process is None else ProcessBody.of(process).model_dump(),
            "trees": TreesBody.of(model.trees).model_dump(),
            "residuals": self.residuals_.tolist(),
            "ranges": {name: list(ends) for name, ends in self.ranges_.items()},
            "categories": sorted(self.categories_),
        }
        write_document(path, KIND, VERSION, body)

    @classmethod
    def load(cls, path: Path) -> LatencyPredictor:
        """Read a predictor; `DamagedFileError` where it is damaged or newer than this latkit."""
        document = read_document(path, KIND, VERSION)
        try:
            body = PredictorBody.model_validate_json(
                json.dumps(document, allow_nan=False), strict=True
            )
            model = body.model()
        except (UsageError, ValidationError, ValueError) as error:
            raise DamagedFileError(
                f"{path} holds no valid latency predictor: {error}. Make it again from the store."
            ) from error
        predictor = cls(
            body.setup,
            body.eviction_bytes,
            body.channel_grid,
            len(body.trees.roots),
            body.learning_rate,
            body.monotone,
        )
        predictor.channel_grid_ = body.channel_grid
        predictor.model_ = model
        predictor.residuals_ = np.array(body.residuals)
        predictor.ranges_ = dict(body.ranges)
        predictor.categories_ = frozenset(body.categories)
        return predictor

    def _fitted(self) -> HybridModel:
        if not hasattr(self, "model_"):
            raise _not_fitted()
        return self.model_

    def _quantile(self, coverage: float) -> float:
        """Half of an interval's width on the logarithm, relative to how unsure the model is."""
        count = len(self.residuals_)
        rank = math.ceil((count + 1) * coverage) if 0 < coverage < 1 else math.inf
        if rank > count:
            raise UsageError(
                f"{count} samples give intervals of a coverage between 0 and "
                f"{count / (count + 1):.3f}; {coverage} was asked for"
            )
        return float(self.residuals_[int(rank) - 1])

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "model_")

    def __repr__(self) -> str:
        values = ", ".join(f"{name}={value!r}" for name, value in self.get_params().items())
        return f"LatencyPredictor({values})"

    def __sklearn_tags__(self) -> Tags:
        from sklearn.utils import RegressorTags, Tags, TargetTags

        return Tags(
            estimator_type="regressor",
            target_tags=TargetTags(required=True),
            regressor_tags=RegressorTags(),
        )


_PARAMETERS = ("setup", "eviction_bytes", "channel_grid", "trees", "learning_rate", "monotone")


def _timed(
    samples: Sequence[Sample], latency_ms: ArrayLike
) -> tuple[list[int], NDArray[np.float64]]:
    """Which samples have an operation, and their latencies, checked."""
    latency = np.asarray(latency_ms, dtype=np.float64)
    if latency.shape != (len(samples),):
        raise UsageError(f"{len(samples)} samples need as many latencies, not {latency.shape}")
    bad = [index for index, value in enumerate(latency) if not 0 < value < math.inf]
    if bad:
        named = "; ".join(f"{latency[index]} ms of {samples[index]}" for index in bad[:5])
        raise UsageError(
            f"{len(bad)} of {len(samples)} latencies are no positive numbers: {named}. Leave out "
            "what could not be measured."
        )
    kept = [index for index, sample in enumerate(samples) if _is_timed(sample)]
    if len(kept) < FEWEST_SAMPLES:
        raise UsageError(
            f"a predictor needs at least {FEWEST_SAMPLES} measured samples, better 100; "
            f"{len(kept)} are given"
        )
    return kept, latency[kept]


def _not_fitted() -> UsageError:
    """What is raised before `fit`: also scikit-learn's own error, where that is installed."""
    from sklearn.exceptions import NotFittedError

    both: Any = type("UnfittedError", (UsageError, NotFittedError), {})
    unfitted: UsageError = both("the latency predictor knows nothing yet: call fit, or load one")
    return unfitted


def _is_timed(sample: Sample) -> bool:
    return bool(kernels_of(sample))
