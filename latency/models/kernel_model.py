"""Kernel model: the time of single kernels of one family, as `depthwise Conv`, from measured ones.

The parts of the block predictor, for samples that are one kernel each: a non-negative combination
of amounts of work, and a Gaussian process over the kernel's features that learns the logarithm of
what that gets wrong (latency/additive.py). Far from all measured kernels the process says little,
and the physical estimate stands.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..additive import Part, Process, Terms, fit_process
from ..additive_scales import Priors, fit_scales
from ..counts import Kernel
from ..features import matrix, names_of
from ..hybrid import PhysicalModel
from .kernel_features import features, work

Array = NDArray[np.float64]

FEWEST_FOR_PROCESS = 15
"""With fewer kernels of a family the physical estimate stands alone."""

PRIORS = Priors(amplitude=0.3, noise=0.05, noise_spread=1.0)
"""Kernels are timed in whole microseconds, and inside networks that differ."""

LEAST_MS = 1e-5
"""What a kernel takes at least, so that its logarithm exists."""

GROUP = "kernels"


@dataclass(frozen=True)
class KernelModel:
    """The model of one family."""

    physical: PhysicalModel
    process: Process | None

    def predict(self, kernels: Sequence[Kernel]) -> Array:
        """Time of each kernel in ms: (N,)."""
        if self.process is None:
            return _estimate(self.physical, matrix(list(map(work, kernels)), self.physical.names))
        terms = _terms(kernels, self.physical.names, self.process.components[0].features)
        return self.process.predict(terms, _estimate(self.physical, terms.work))[0]


def fit_kernel_model(
    kernels: Sequence[Kernel], latency_ms: Array, folds: NDArray[np.intp], seed: int = 0
) -> tuple[KernelModel, Array]:
    """A model of kernels of one family, and what models said that did not know a kernel: (N,).

    `folds` (N,) numbers the fold that each kernel is left out with.
    """
    terms = _terms(kernels, names_of(map(work, kernels)), _varying(kernels))
    scales = None
    if len(kernels) >= FEWEST_FOR_PROCESS and terms.parts[0].features:
        physical = _physical(kernels, terms, latency_ms)
        scales = fit_scales(terms, _estimate(physical, terms.work), latency_ms, seed, PRIORS)

    def model(rows: NDArray[np.intp]) -> KernelModel:
        known, known_ms = terms.take(rows), latency_ms[rows]
        physical = _physical(kernels, known, known_ms)
        if scales is None or len(rows) < FEWEST_FOR_PROCESS:
            return KernelModel(physical, None)
        estimate_ms = _estimate(physical, known.work)
        return KernelModel(physical, fit_process(known, estimate_ms, known_ms, scales, seed))

    left_out = np.empty(len(kernels))
    for fold in np.unique(folds):
        out, others = np.flatnonzero(folds == fold), np.flatnonzero(folds != fold)
        found = model(others if len(others) else out)
        left_out[out] = found.predict([kernels[row] for row in out.tolist()])
    return model(np.arange(len(kernels))), left_out


def _physical(kernels: Sequence[Kernel], terms: Terms, latency_ms: Array) -> PhysicalModel:
    return PhysicalModel.fit(names_of(map(work, kernels)), terms.work, latency_ms)


def _estimate(physical: PhysicalModel, amounts: Array) -> Array:
    return np.maximum(LEAST_MS, physical.predict(amounts))


def _terms(kernels: Sequence[Kernel], amounts: tuple[str, ...], compared: tuple[str, ...]) -> Terms:
    """Each kernel as a sample of one term."""
    rows = np.arange(len(kernels))
    values = matrix(list(map(features, kernels)), compared)
    part = Part(GROUP, compared, values, rows, rows)
    return Terms(len(kernels), rows, matrix(list(map(work, kernels)), amounts), (part,))


def _varying(kernels: Sequence[Kernel]) -> tuple[str, ...]:
    """Features that are not the same for all kernels."""
    values = list(map(features, kernels))
    names = names_of(values)
    varies = np.ptp(matrix(values, names), axis=0) > 0
    return tuple(name for name, kept in zip(names, varies, strict=True) if kept)
