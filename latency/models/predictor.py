"""Model predictor: what any model file would take, from the kernels that the runtime makes of it.

A kernel predictor is fitted to kernels timed inside probe networks. The profiler adds to each
kernel, and the calls between them cost time too, so a whole is

    constant + sum over its kernels of (scale * time + overhead)

with coefficients fitted to the probe networks as wholes, each predicted from kernels of other
networks. The interval is conformal, from the errors that are left on those networks (Vovk et al.
2005, section 4; by folds as in Barber et al. 2021).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...devices.device import Setup
from ...devices.errors import UsageError
from ..calibration import PredictionError, prediction_error
from ..counts import Kernel
from ..splitting.model_split import NamedKernel, Split, split
from .calibration import fit_calibration, fit_rough
from .kernel_predictor import UNKNOWN_FACTOR, KernelPredictor
from .prediction import KernelPrediction, ModelPrediction

if TYPE_CHECKING:
    import torch

FEWEST_NETWORKS = 20
"""Probe networks that a model predictor needs; a conformal interval of 90 % needs 9."""

FOLDS = 5
COVERAGE = 0.9

LEAST_MS = 0.0005
"""Kernels are taken to last at least this long: profilers tell whole microseconds."""


def is_view(kernel: Kernel) -> bool:
    """Whether a kernel moves nothing: all such take the same time, that of a call."""
    return kernel.layout == "view"


@dataclass(frozen=True, slots=True)
class _Profiled:
    """What the profiler would say of a kernel, in ms, with an interval; why it is a strange one."""

    latency_ms: float
    low_ms: float
    high_ms: float
    reason: str


class ModelPredictor:
    """Latency of model files on one setup, learned from `latkit profile --kernels`.

    After `fit`: `kernels_` is the predictor of single kernels, `calibration_` makes wholes of
    them, `view_ms_` is what kernels take that move nothing, `rough_` is for kernels of unknown
    families, `residuals_` are |log(measured / predicted)| of the probe networks, sorted,
    `left_out_` what was predicted for each of them from kernels of others, with its error in
    `error_`.
    """

    def __init__(self, setup: Setup | None = None) -> None:
        self.setup = setup

    def fit(self, splits: Sequence[Split], seed: int = 0) -> ModelPredictor:
        """Learn from timed probe networks; takes half a minute for some hundred.

        Raises `UsageError` for fewer than `FEWEST_NETWORKS` or one without times.
        """
        if len(splits) < FEWEST_NETWORKS:
            raise UsageError(
                f"a model predictor needs {FEWEST_NETWORKS} timed probe networks, better 300; "
                f"{len(splits)} are given. Run `latkit profile --kernels` for longer."
            )
        found = _Timed.of(splits)
        self.kernels_ = KernelPredictor().fit(found.kernels, found.latency_ms, found.networks, seed)
        self.view_ms_ = found.view_ms
        known = zip(found.kernels, map(float, self.kernels_.left_out_ms_), strict=True)
        left_out = dict(known)
        sums = np.array(
            [
                sum(left_out.get(item.kernel, found.view_ms) for item in network.kernels)
                for network in splits
            ]
        )
        counts = np.array([len(item.kernels) for item in splits], dtype=np.float64)
        self.calibration_ = fit_calibration(sums, counts, found.whole_ms)
        self.left_out_ = _left_out_wholes(sums, counts, found.whole_ms, seed)
        self.error_: PredictionError = prediction_error(self.left_out_, found.whole_ms)
        self.residuals_ = np.sort(np.abs(np.log(found.whole_ms / self.left_out_)))
        self.rough_ = fit_rough(found.kernels, found.latency_ms)
        return self

    def predict(self, model: Split) -> ModelPrediction:
        """What a model takes whose kernels are known; see `predict_model` for files."""
        self._fitted()
        profiled = self._profiled([item.kernel for item in model.kernels])
        rows = [self._added(item, profiled[item.kernel]) for item in model.kernels]
        total = sum(item.latency_ms for item in rows)
        sums = sum(profiled[item.kernel].latency_ms for item in model.kernels)
        latency_ms = self.calibration_.whole_ms(sums, len(rows))
        # A kernel adds nothing negative, so that a whole takes as long as the longest at least.
        latency_ms = max(latency_ms, max((item.latency_ms for item in rows), default=0.0))
        half_width = self._half_width()
        strange = [item for item in rows if not item.known or item.reason]
        low = latency_ms * math.exp(-half_width) - sum(r.latency_ms - r.low_ms for r in strange)
        high = latency_ms * math.exp(half_width) + sum(r.high_ms - r.latency_ms for r in strange)
        rows = [replace(item, share=item.latency_ms / latency_ms) for item in rows]
        unknown = [item for item in rows if not item.known]
        prediction = ModelPrediction(
            setup=self._known_setup(),
            latency_ms=latency_ms,
            low_ms=max(low, 0.0),
            high_ms=high,
            remainder_ms=latency_ms - total,
            unknown_share=sum(item.share for item in unknown),
            source=model.source,
            reason="",
            kernels=tuple(rows),
        )
        return replace(prediction, reason=_reason(prediction))

    def _profiled(self, kernels: Sequence[Kernel]) -> dict[Kernel, _Profiled]:
        """What the profiler would say of each kernel."""
        found: dict[Kernel, _Profiled] = {}
        learned = []
        for kernel in dict.fromkeys(kernels):
            if is_view(kernel):
                found[kernel] = _Profiled(self.view_ms_, self.view_ms_, self.view_ms_, "")
            elif self.is_known(kernel):
                learned.append(kernel)
            else:
                rough = self.rough_.latency_ms(kernel)
                found[kernel] = _Profiled(
                    rough,
                    rough / UNKNOWN_FACTOR,
                    rough * UNKNOWN_FACTOR,
                    f"{kernel.operation} was never profiled: a rough estimate by its work",
                )
        for kernel, latency in zip(learned, self.kernels_.predict(learned), strict=True):
            ratio = math.exp(self.kernels_.half_width(kernel))
            found[kernel] = _Profiled(
                float(latency),
                float(latency) / ratio,
                float(latency) * ratio,
                "; ".join(self.kernels_.outside(kernel)),
            )
        return found

    def _added(self, item: NamedKernel, profiled: _Profiled) -> KernelPrediction:
        """What a kernel adds to the whole; its share is still to be set."""
        added_ms = self.calibration_.kernel_ms
        return KernelPrediction(
            name=item.name,
            kernel=item.kernel,
            latency_ms=added_ms(profiled.latency_ms),
            low_ms=added_ms(profiled.low_ms),
            high_ms=added_ms(profiled.high_ms),
            share=0.0,
            known=self.is_known(item.kernel),
            reason=profiled.reason,
        )

    def is_known(self, kernel: Kernel) -> bool:
        """Whether enough kernels of its family were profiled."""
        return is_view(kernel) or self.kernels_.is_known(kernel)

    def check_setup(self, setup: Setup) -> None:
        """Raise `UsageError` where `setup` is not the one that the predictor was fitted on."""
        if setup != self.setup:
            raise UsageError(
                f"the model predictor is of {self._known_setup().key}, and does not hold for "
                f"{setup.key}. Run `latkit profile --kernels` there, and fit a predictor to it."
            )

    def save(self, path: Path) -> None:
        """Write the fitted predictor as a latkit document: numbers and names, no code."""
        from .predictor_file import write_model_predictor

        self._fitted()
        write_model_predictor(path, self, self._known_setup())

    @classmethod
    def load(cls, path: Path) -> ModelPredictor:
        """Read a predictor; `DamagedFileError` where it is damaged or newer than this latkit."""
        from .predictor_file import read_model_predictor

        return read_model_predictor(path)

    def _fitted(self) -> None:
        if not hasattr(self, "kernels_"):
            raise UsageError("the model predictor knows nothing yet: call fit first, or load one")

    def _known_setup(self) -> Setup:
        if self.setup is None:
            raise UsageError("the model predictor does not say what device it is of")
        return self.setup

    def _half_width(self) -> float:
        """Half of the interval's width, on the logarithm of the latency."""
        count = len(self.residuals_)
        rank = min(count, math.ceil((count + 1) * COVERAGE))
        return float(self.residuals_[rank - 1])


def predict_model(
    model: Path | torch.nn.Module,
    predictor: ModelPredictor,
    example_input: Any = None,
) -> ModelPrediction:
    """Predict what a model takes: an .onnx or .tflite file, or a torch module.

    A module is exported with `example_input`, a tensor or a tuple of them, whose shapes it will
    be predicted for. Raises `UsageError` where the file can't be read or its runtime is not this
    host's, `DeviceError` where it can't be converted.

    With a predictor that `latkit fit --kernels` wrote::

        prediction = predict_model(Path("model.onnx"), ModelPredictor.load(Path("models.json")))
        print(prediction.latency_ms, prediction.low_ms, prediction.high_ms)
        print(prediction.frame())
    """
    setup = predictor._known_setup()
    if isinstance(model, Path):
        return predictor.predict(split(model, setup))
    from .torch_export import exported

    if example_input is None:
        raise UsageError("a torch module needs an example_input, of the shape it will be run with")
    with exported(model, example_input) as path:
        return predictor.predict(split(path, setup))


@dataclass(frozen=True, slots=True)
class _Timed:
    """Distinct kernels with their median latencies, views apart, and the networks as wholes.

    `networks` is the first network that has each kernel: the group that is left out as a whole,
    so that a network is never predicted from its own kernels.
    """

    kernels: list[Kernel]
    latency_ms: list[float]
    networks: list[int]
    view_ms: float
    whole_ms: NDArray[np.float64]

    @classmethod
    def of(cls, splits: Sequence[Split]) -> _Timed:
        times: dict[Kernel, list[float]] = {}
        first: dict[Kernel, int] = {}
        views: list[float] = []
        wholes = []
        for index, item in enumerate(splits):
            if item.whole_ms is None or any(k.median_ms is None for k in item.kernels):
                raise UsageError(f"probe network {index} has no times; it was split, not timed")
            wholes.append(item.whole_ms)
            for kernel in item.kernels:
                assert kernel.median_ms is not None
                if is_view(kernel.kernel):
                    views.append(kernel.median_ms)
                    continue
                times.setdefault(kernel.kernel, []).append(max(LEAST_MS, kernel.median_ms))
                first.setdefault(kernel.kernel, index)
        return cls(
            list(times),
            [statistics.median(found) for found in times.values()],
            list(first.values()),
            statistics.median(views or [0.0]),
            np.array(wholes),
        )


def _left_out_wholes(
    sums: NDArray[np.float64],
    counts: NDArray[np.float64],
    whole_ms: NDArray[np.float64],
    seed: int,
) -> NDArray[np.float64]:
    """Each network by a calibration that was fitted to the networks of other folds."""
    predicted = np.empty_like(whole_ms)
    folds = np.random.default_rng(seed).permutation(len(whole_ms)) % FOLDS
    for fold in range(FOLDS):
        out = folds == fold
        found = fit_calibration(sums[~out], counts[~out], whole_ms[~out])
        predicted[out] = [
            found.whole_ms(*pair) for pair in zip(sums[out], counts[out], strict=True)
        ]
    return predicted


def _reason(prediction: ModelPrediction) -> str:
    """What is strange about a model: unknown operations by share, and kernels unlike all seen."""
    parts = [
        f"{operation} ({share:.1%}) was never profiled"
        for operation, share in sorted(
            prediction.unknown_operations().items(), key=lambda item: -item[1]
        )
    ]
    unlike = [item for item in prediction.kernels if item.known and item.reason]
    if unlike:
        share = sum(item.share for item in unlike)
        parts.append(f"{len(unlike)} kernels ({share:.1%}) are unlike all that were profiled")
    if prediction.source == "rules":
        parts.append("split by rules, not by the runtime itself")
    return "; ".join(parts)
