"""Kernel predictor: the time of any single kernel, by a model for each family of kernels.

Families are apart because runtimes run them by different code; so a family of few kernels learns
nothing wrong from others, and one of thousands takes no longer than it must.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...devices.errors import UsageError
from ..counts import Kernel
from .kernel_features import categories, ranges
from .kernel_model import KernelModel, fit_kernel_model

Array = NDArray[np.float64]

FOLDS = 5
COVERAGE = 0.9

FEWEST_OF_A_FAMILY = 3
"""Distinct kernels of a family that must have been timed for it to be known."""

FEWEST_FOR_INTERVAL = 20
"""Kernels of a family from which it has an interval of its own."""

RANGE_MARGIN = 0.25
"""Share by which a kernel may leave the range of its family and still be like it."""

OUTSIDE_WIDENING = 3.0
"""How many times wider, as a ratio, the interval of a kernel unlike its family is."""


STEM_CHANNELS = 4
"""Convolutions that read no more channels than this are stems: runtimes have code for them."""


UNKNOWN_FACTOR = 4.0
"""How far off, as a ratio, the estimate of any kernel may be: even one never profiled."""


def family(kernel: Kernel) -> str:
    """The sort of a kernel: its kind, the operation that others are fused into, its layout.

    Where runtimes go by other ways or other things bound the time, families are apart:
    products with a single row or pixel, grouped convolutions, and those of the input image.
    """
    parts = [kernel.kind, kernel.operation.split("+")[0], kernel.layout]
    if kernel.kind in ("conv", "pointwise", "linear", "matmul"):
        if kernel.out_height * kernel.out_width == 1:
            parts.append("vector")
        elif kernel.kind == "conv" and kernel.groups > 1:
            parts.append("grouped")
        elif kernel.kind == "conv" and kernel.in_channels <= STEM_CHANNELS:
            parts.append("stem")
    return " ".join(filter(None, parts))


@dataclass(frozen=True)
class Family:
    """One family: its model, the kernels it was fitted to in short, and how far it errs.

    `half_width` is the conformal half width of its intervals, on the logarithm.
    """

    model: KernelModel
    kernels: int
    half_width: float
    ranges: Mapping[str, tuple[float, float]]
    categories: frozenset[str]

    def outside(self, kernel: Kernel) -> tuple[str, ...]:
        """In what a kernel is unlike the family's; empty where it is like them."""
        unseen = sorted(categories(kernel) - self.categories)
        reasons = [f"no profiled kernel has {name}" for name in unseen]
        for name, value in ranges(kernel).items():
            low, high = self.ranges[name]
            if not low / (1 + RANGE_MARGIN) <= value <= high * (1 + RANGE_MARGIN):
                reasons.append(f"{name}: {value:g}, profiled {low:g} to {high:g}")
        return tuple(reasons)


class KernelPredictor:
    """Time of single kernels inside networks, in ms.

    After `fit`, `families_` are the models by family, and `left_out_ms_` what was predicted for
    each kernel by models that knew none of its group.
    """

    def fit(
        self,
        kernels: Sequence[Kernel],
        latency_ms: Sequence[float] | Array,
        groups: Sequence[int],
        seed: int = 0,
    ) -> KernelPredictor:
        """Learn from distinct kernels; those of a group are left out together for the errors.

        Takes half a minute for 20,000. Raises `UsageError` for latencies that are no positive
        numbers.
        """
        latency = np.asarray(latency_ms, dtype=np.float64)
        if not (len(kernels) == len(latency) == len(groups)) or not len(kernels):
            raise UsageError("kernels need as many latencies and groups, and at least one")
        if not (np.isfinite(latency).all() and latency.min() > 0):
            raise UsageError("latencies of kernels must be positive numbers")
        _, numbers = np.unique(np.asarray(groups), return_inverse=True)
        folds = np.random.default_rng(seed).permutation(numbers.max() + 1)[numbers] % FOLDS
        rows_of: dict[str, list[int]] = {}
        for index, kernel in enumerate(kernels):
            rows_of.setdefault(family(kernel), []).append(index)
        self.left_out_ms_ = np.empty(len(kernels))
        models: dict[str, KernelModel] = {}
        for name, rows in sorted(rows_of.items()):
            models[name], self.left_out_ms_[rows] = fit_kernel_model(
                [kernels[row] for row in rows], latency[rows], folds[rows], seed
            )
        errors = np.abs(np.log(self.left_out_ms_ / latency))
        general = _quantile(errors)
        self.families_ = {}
        for name, rows in rows_of.items():
            mine = [kernels[row] for row in rows]
            own = len(rows) >= FEWEST_FOR_INTERVAL
            self.families_[name] = Family(
                models[name],
                len(rows),
                _quantile(errors[rows]) if own else max(general, float(errors[rows].max())),
                _spans(mine),
                frozenset[str]().union(*map(categories, mine)),
            )
        return self

    def is_known(self, kernel: Kernel) -> bool:
        """Whether enough kernels of its family were profiled."""
        found = self.families_.get(family(kernel))
        return found is not None and found.kernels >= FEWEST_OF_A_FAMILY

    def predict(self, kernels: Sequence[Kernel]) -> Array:
        """Time of each kernel in ms: (N,). Raises `UsageError` for one of an unknown family."""
        result = np.empty(len(kernels))
        rows_of: dict[str, list[int]] = {}
        for index, kernel in enumerate(kernels):
            rows_of.setdefault(family(kernel), []).append(index)
        for name, rows in rows_of.items():
            if name not in self.families_:
                raise UsageError(f"no kernel of the sort {name} was profiled")
            result[rows] = self.families_[name].model.predict([kernels[row] for row in rows])
        return result

    def outside(self, kernel: Kernel) -> tuple[str, ...]:
        """In what a kernel is unlike its family's; empty where it is like them."""
        return self.families_[family(kernel)].outside(kernel)

    def half_width(self, kernel: Kernel) -> float:
        """Half of a kernel's interval, on the logarithm, which holds it with `COVERAGE`."""
        found = self.families_[family(kernel)]
        width = found.half_width * (OUTSIDE_WIDENING if found.outside(kernel) else 1.0)
        return min(width, math.log(UNKNOWN_FACTOR))


def _quantile(errors: Array) -> float:
    ordered = np.sort(errors)
    return float(ordered[min(len(ordered), math.ceil((len(ordered) + 1) * COVERAGE)) - 1])


def _spans(kernels: Sequence[Kernel]) -> dict[str, tuple[float, float]]:
    found = [ranges(kernel) for kernel in kernels]
    return {
        name: (min(item[name] for item in found), max(item[name] for item in found))
        for name in found[0]
    }
