"""Latency predictor: what a block that was never measured would take, with an interval.

A physical model comes first: latency as a non-negative combination of amounts of work, fitted by
relative error. Boosted trees then learn what it gets wrong (latency/hybrid.py). Intervals are
conformal, from the errors on folds left out (Vovk et al. 2005, section 4; Barber et al. 2021).
"""

from __future__ import annotations

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
from .blocks import Block
from .calibration import is_timed
from .document import read_document, write_document
from .features import describe
from .hybrid import Columns, HybridModel, PhysicalModel, Prepared
from .predictor_file import PredictorBody
from .table import Estimate

if TYPE_CHECKING:
    from sklearn.utils import Tags

KIND = "latency_predictor"
VERSION = 1

FEWEST_SAMPLES = 10
FOLDS = 10
COVERAGE = 0.9

COMMON_GRIDS = (8, 16)
"""Channel grids that are compared where none is given."""

RARE_GRIDS = (32, 4)
"""Grids that are compared too from `ENOUGH_FOR_RARE` blocks on: fewer can't tell so many apart."""

ENOUGH_FOR_RARE = 100
GREATEST_GRID_ERROR = 0.3
"""Larger errors count as this when grids are compared: a rare kernel errs on any grid."""

OUTSIDE_WIDENING = 3.0
"""How many times wider, as a ratio, the interval of a block unlike the training blocks is."""

RANGE_MARGIN = 0.1
"""Share by which a block may leave the range of the training blocks and still be like them."""


class LatencyPredictor:
    """Latency of blocks on one setup, learned from measured ones; in scikit-learn's manner.

    `setup` and `eviction_bytes` say what the latencies are of. `channel_grid` is the width of the
    runtime's vectors (see latency/grid.py); `None` takes the one that explains the training
    blocks best.

    >>> predictor = LatencyPredictor(setup).fit(blocks, latency_ms)
    >>> predictor.predict([MBConv(...)])
    array([0.0731])
    """

    def __init__(
        self,
        setup: Setup | None = None,
        eviction_bytes: int = 0,
        channel_grid: int | None = None,
        trees: int = 300,
        learning_rate: float = 0.05,
    ) -> None:
        self.setup = setup
        self.eviction_bytes = eviction_bytes
        self.channel_grid = channel_grid
        self.trees = trees
        self.learning_rate = learning_rate

    def fit(
        self, blocks: Sequence[Block], latency_ms: ArrayLike, seed: int = 0
    ) -> LatencyPredictor:
        """Learn from measured blocks. Takes seconds: `FOLDS` models are fitted for the interval.

        Blocks without an operation are left out. Raises `UsageError` for fewer than
        `FEWEST_SAMPLES` others, and for latencies that are not positive numbers. `left_out_ms_` is
        then what was predicted for each of the others by a model that was not fitted to it.
        """
        blocks, latency = _samples(blocks, latency_ms)
        folds = np.random.default_rng(seed).permutation(len(blocks)) % FOLDS
        self.channel_grid_ = self.channel_grid or _best_grid(blocks, latency, folds)
        described = [describe(block, self.channel_grid_) for block in blocks]
        columns = Columns.of(described)
        prepared = columns.prepare(described)

        def model(rows: NDArray[np.intp]) -> HybridModel:
            return HybridModel.fit(
                columns,
                prepared[rows],
                latency[rows],
                trees=self.trees,
                learning_rate=self.learning_rate,
                seed=seed,
            )

        residuals = np.empty(len(latency))
        for fold in range(FOLDS):
            out = np.flatnonzero(folds == fold)
            predicted = model(np.flatnonzero(folds != fold)).predict(prepared[out])
            residuals[out] = np.log(latency[out] / predicted)
        self.model_ = model(np.arange(len(latency)))
        self.left_out_ms_ = latency / np.exp(residuals)
        self.residuals_ = np.sort(np.abs(residuals))
        self.ranges_ = {
            name: (
                float(min(item.ranges[name] for item in described)),
                float(max(item.ranges[name] for item in described)),
            )
            for name in described[0].ranges
        }
        self.categories_ = frozenset[str]().union(*(item.categories for item in described))
        return self

    def predict(self, blocks: Sequence[Block]) -> NDArray[np.float64]:
        """Latency of each block in ms: (N,). 0 for a block without an operation."""
        timed = [block for block in dict.fromkeys(blocks) if is_timed(block)]
        latency_ms = self.predict_prepared(self.prepare(timed)).tolist()
        known = dict(zip(timed, latency_ms, strict=True))
        return np.array([known.get(block, 0.0) for block in blocks], dtype=np.float64)

    def prepare(self, blocks: Sequence[Block]) -> Prepared:
        """What the model reads of blocks: the slow part of a prediction, to be done once."""
        model = self._fitted()
        return model.columns.prepare([describe(block, self.channel_grid_) for block in blocks])

    def predict_prepared(self, prepared: Prepared) -> NDArray[np.float64]:
        """`predict` for what `prepare` gave of blocks that have an operation."""
        return self._fitted().predict(prepared)

    def predict_interval(
        self, blocks: Sequence[Block], coverage: float = COVERAGE
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Ends in ms of an interval that holds a block's latency with probability `coverage`.

        That holds for blocks drawn as the training blocks were. For blocks unlike them the
        interval is wider, by `OUTSIDE_WIDENING`, without such a promise. Raises `UsageError`
        where the training blocks are too few for the coverage.
        """
        predicted = self.predict(blocks)
        outside = [bool(self.outside(block)) for block in blocks]
        half_width = self._half_width(coverage) * np.where(outside, OUTSIDE_WIDENING, 1.0)
        return predicted * np.exp(-half_width), predicted * np.exp(half_width)

    def estimate(self, block: Block) -> Estimate:
        """Latency of a block timed alone, uncalibrated; `reason` says where it is a strange one."""
        if not is_timed(block):
            return Estimate(0.0, 0.0, 0.0, "predicted", "no operation")
        (latency_ms,), ((low_ms,), (high_ms,)) = (
            self.predict([block]),
            self.predict_interval([block]),
        )
        reason = "; ".join(self.outside(block))
        return Estimate(float(latency_ms), float(low_ms), float(high_ms), "predicted", reason)

    def outside(self, block: Block) -> tuple[str, ...]:
        """In what the block is unlike the training blocks; empty where it is like them."""
        self._fitted()
        if not is_timed(block):
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

    def score(self, blocks: Sequence[Block], latency_ms: ArrayLike) -> float:
        """Minus the root mean square of the relative error, so that greater is better."""
        relative = self.predict(blocks) / np.asarray(latency_ms, dtype=np.float64) - 1
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
        trees = model.trees
        body = {
            "setup": None if self.setup is None else asdict(self.setup),
            "eviction_bytes": self.eviction_bytes,
            "channel_grid": self.channel_grid_,
            "learning_rate": self.learning_rate,
            "coefficients": dict(
                zip(model.columns.work, model.physical.coefficients.tolist(), strict=True)
            ),
            "features": list(model.columns.features),
            "trees": {
                "base": trees.base,
                "roots": trees.roots.tolist(),
                "feature": trees.feature.tolist(),
                "threshold": trees.threshold.tolist(),
                "left": trees.left.tolist(),
                "right": trees.right.tolist(),
                "value": trees.value.tolist(),
            },
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
        )
        predictor.channel_grid_ = body.channel_grid
        predictor.model_ = model
        predictor.residuals_ = np.array(body.residuals)
        predictor.ranges_ = dict(body.ranges)
        predictor.categories_ = frozenset(body.categories)
        return predictor

    def _fitted(self) -> HybridModel:
        if not hasattr(self, "model_"):
            raise UsageError("the latency predictor knows nothing yet: call fit first, or load one")
        return self.model_

    def _half_width(self, coverage: float) -> float:
        """Half of the interval's width, on the logarithm of the latency."""
        count = len(self.residuals_)
        rank = math.ceil((count + 1) * coverage) if 0 < coverage < 1 else math.inf
        if rank > count:
            raise UsageError(
                f"{count} training blocks give intervals of a coverage between 0 and "
                f"{count / (count + 1):.3f}; {coverage} was asked for"
            )
        return float(self.residuals_[int(rank) - 1])

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


_PARAMETERS = ("setup", "eviction_bytes", "channel_grid", "trees", "learning_rate")


def _samples(
    blocks: Sequence[Block], latency_ms: ArrayLike
) -> tuple[list[Block], NDArray[np.float64]]:
    """Blocks that have an operation and their latencies, checked."""
    latency = np.asarray(latency_ms, dtype=np.float64)
    if latency.shape != (len(blocks),):
        raise UsageError(f"{len(blocks)} blocks need as many latencies, not {latency.shape}")
    bad = [index for index, value in enumerate(latency) if not 0 < value < math.inf]
    if bad:
        named = "; ".join(f"{latency[index]} ms of {blocks[index]}" for index in bad[:5])
        raise UsageError(
            f"{len(bad)} of {len(blocks)} latencies are no positive numbers: {named}. Leave out "
            "blocks whose measurement failed."
        )
    timed = [index for index, block in enumerate(blocks) if is_timed(block)]
    if len(timed) < FEWEST_SAMPLES:
        raise UsageError(
            f"a predictor needs at least {FEWEST_SAMPLES} measured blocks, better 100; "
            f"{len(timed)} are given"
        )
    return [blocks[index] for index in timed], latency[timed]


def _best_grid(
    blocks: Sequence[Block], latency_ms: NDArray[np.float64], folds: NDArray[np.intp]
) -> int:
    """The channel grid whose physical model errs least on folds left out."""
    grids = COMMON_GRIDS if len(blocks) < ENOUGH_FOR_RARE else COMMON_GRIDS + RARE_GRIDS
    errors = []
    for grid in grids:
        described = [describe(block, grid) for block in blocks]
        columns = Columns.of(described)
        prepared = columns.prepare(described)
        error = np.empty(len(blocks))
        for fold in range(FOLDS):
            out, kept = folds == fold, folds != fold
            model = PhysicalModel.fit(columns.work, prepared.work[kept], latency_ms[kept])
            error[out] = np.abs(np.log(model.predict(prepared.work[out]) / latency_ms[out]))
        errors.append(float(np.minimum(error, GREATEST_GRID_ERROR).mean()))
    return grids[int(np.argmin(errors))]
