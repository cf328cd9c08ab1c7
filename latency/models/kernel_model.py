"""Kernel model: the time of single kernels of one family, as `depthwise Conv`, from measured ones.

A non-negative combination of amounts of work comes first, fitted by relative error; a Gaussian
process over the kernel's features learns the logarithm of what that gets wrong (Rasmussen &
Williams 2006: Matern kernel of smoothness 5/2 with a length scale for each feature, section 4.2.1;
above `INDUCING` kernels a subset of regressors, section 8.3.1). Far from all measured kernels the
process says nothing, and the physical estimate stands.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve, cholesky, solve_triangular
from scipy.optimize import Bounds, minimize, nnls

from ..counts import Kernel
from ..features import matrix, names_of
from .kernel_features import features, work

Array = NDArray[np.float64]

FEWEST_FOR_PROCESS = 15
"""With fewer kernels of a family the physical estimate stands alone."""

INDUCING = 800
LIKELIHOOD_KERNELS = 250
"""Kernels that length scales are learned from at most."""

ITERATIONS = 40
LENGTH, AMPLITUDE, NOISE = 4.0, 0.3, 0.05
"""Middles of the priors: length in standard deviations of a feature, error of the physical
estimate, scatter of the measurements; the last two on logarithms."""

PRIOR_SPREAD = 1.0
LEAST_NOISE = 0.01
SHRINKAGE = 0.1
JITTER = 1e-6
_ROOT_5 = math.sqrt(5)


@dataclass(frozen=True)
class Process:
    """A fitted process: `points` (M, features) already scaled, and the weight of each."""

    names: tuple[str, ...]
    centre: Array
    length: Array
    amplitude: float
    points: Array
    weights: Array

    def log_factor(self, kernels: Sequence[Kernel]) -> Array:
        """What is added to the logarithm of each physical estimate: (N,)."""
        values = matrix([features(kernel) for kernel in kernels], self.names)
        alike = _matern(_squared_distances((values - self.centre) / self.length, self.points))
        return np.asarray(self.amplitude**2 * alike @ self.weights)


@dataclass(frozen=True)
class KernelModel:
    """The model of one family. `coefficients` are ms for one unit of each amount of work."""

    coefficients: dict[str, float]
    process: Process | None

    def predict(self, kernels: Sequence[Kernel]) -> Array:
        """Time of each kernel in ms: (N,)."""
        names = tuple(self.coefficients)
        amounts = matrix([work(kernel) for kernel in kernels], names)
        estimate_ms = amounts @ np.array(list(self.coefficients.values()))
        if self.process is None:
            return np.asarray(estimate_ms)
        return np.asarray(estimate_ms * np.exp(self.process.log_factor(kernels)))


def fit_kernel_model(
    kernels: Sequence[Kernel], latency_ms: Array, folds: NDArray[np.intp], seed: int = 0
) -> tuple[KernelModel, Array]:
    """A model of kernels of one family, and what models said that did not know a kernel: (N,).

    `folds` (N,) numbers the fold that each kernel is left out with.
    """
    amounts = [work(kernel) for kernel in kernels]
    names = names_of(amounts)
    columns = matrix(amounts, names)
    values = [features(kernel) for kernel in kernels]
    feature_names = names_of(values)
    points = matrix(values, feature_names)
    varies = np.ptp(points, axis=0) > 0
    feature_names = tuple(name for name, kept in zip(feature_names, varies, strict=True) if kept)
    points = points[:, varies]
    centre, spread = points.mean(axis=0), points.std(axis=0)
    points = (points - centre) / spread
    usable = len(kernels) >= FEWEST_FOR_PROCESS and points.shape[1] > 0

    def physical(rows: NDArray[np.bool_]) -> Array:
        return _non_negative(columns[rows], latency_ms[rows])

    everyone = np.ones(len(kernels), dtype=bool)
    coefficients = physical(everyone)
    left_out = np.empty(len(kernels))
    scales = _Scales(np.full(points.shape[1], LENGTH), AMPLITUDE, NOISE)
    if usable:
        scales = _learned(points, np.log(latency_ms / (columns @ coefficients)), seed)
    for fold in np.unique(folds):
        out = folds == fold
        if out.all():
            left_out[out] = columns @ coefficients
            continue
        found = physical(~out)
        estimate_ms = columns @ found
        left_out[out] = estimate_ms[out]
        if usable and (~out).sum() >= FEWEST_FOR_PROCESS:
            errors = np.log(latency_ms[~out] / estimate_ms[~out])
            chosen, weights = _weights(points[~out], errors, scales, seed)
            alike = _matern(_squared_distances(points[out] / scales.length, chosen))
            left_out[out] *= np.exp(scales.amplitude**2 * alike @ weights)
    process = None
    if usable:
        errors = np.log(latency_ms / (columns @ coefficients))
        chosen, weights = _weights(points, errors, scales, seed)
        length = spread * scales.length
        process = Process(feature_names, centre, length, scales.amplitude, chosen, weights)
    named = dict(zip(names, map(float, coefficients), strict=True))
    return KernelModel(named, process), left_out


@dataclass(frozen=True)
class _Scales:
    length: Array
    amplitude: float
    noise: float


def _non_negative(columns: Array, latency_ms: Array) -> Array:
    """Coefficients that minimise the squared relative error, drawn a little to zero."""
    relative = columns / latency_ms[:, None]
    size = np.sqrt((relative**2).mean(axis=0))
    size[size == 0] = 1.0
    rows = np.vstack([relative / size, math.sqrt(SHRINKAGE) * np.eye(columns.shape[1])])
    found, _ = nnls(rows, np.concatenate([np.ones(len(columns)), np.zeros(columns.shape[1])]))
    # Every kernel has an amount that costs something, so that its logarithm exists.
    found[0] = max(found[0], 1e-3 / size[0])
    return np.asarray(found / size)


def _learned(points: Array, errors: Array, seed: int) -> _Scales:
    """Length scales, amplitude and noise of the greatest posterior density."""
    chosen = np.random.default_rng(seed).permutation(len(points))[:LIKELIHOOD_KERNELS]
    points, errors = points[chosen], errors[chosen]
    dimensions = points.shape[1]
    start = np.log([*[LENGTH] * dimensions, AMPLITUDE, NOISE])
    squared = (points[:, None, :] - points[None, :, :]) ** 2

    def cost(theta: Any) -> tuple[float, Any]:
        length, amplitude, noise = np.exp(theta[:-2]), math.exp(theta[-2]), math.exp(theta[-1])
        distance = _ROOT_5 * np.sqrt(squared @ length**-2)
        decay = np.exp(-distance)
        alike = amplitude**2 * (1 + distance + distance**2 / 3) * decay
        covariance = alike + (noise**2 + LEAST_NOISE**2) * np.eye(len(points))
        lower = cholesky(covariance, lower=True)
        alpha = cho_solve((lower, True), errors)
        inverse = cho_solve((lower, True), np.eye(len(points)))
        outer = np.outer(alpha, alpha) - inverse
        value = 0.5 * errors @ alpha + np.log(np.diag(lower)).sum()
        # d alike / d log length_k = amplitude^2 * 5/3 * (1 + distance) * decay * squared_k / l_k^2
        common = outer * (amplitude**2 * 5 / 3 * (1 + distance) * decay)
        by_length = -0.5 * np.einsum("ij,ijk->k", common, squared) / length**2
        by_amplitude = -(outer * alike).sum()
        by_noise = -(noise**2) * np.trace(outer)
        away = (theta - start) / PRIOR_SPREAD
        gradient = np.array([*by_length, by_amplitude, by_noise]) + away / PRIOR_SPREAD
        return float(value + 0.5 * away @ away), gradient

    least, most = (
        [-3.0] * dimensions + [math.log(0.01)] * 2,
        [6.0] * dimensions + [math.log(3.0)] * 2,
    )
    found = minimize(
        cost,
        start.tolist(),
        jac=True,
        method="L-BFGS-B",
        bounds=Bounds(least, most),
        options={"maxiter": ITERATIONS},
    ).x
    noise = math.sqrt(math.exp(2 * found[-1]) + LEAST_NOISE**2)
    return _Scales(np.exp(found[:-2]), math.exp(found[-2]), noise)


def _weights(points: Array, errors: Array, scales: _Scales, seed: int) -> tuple[Array, Array]:
    """Scaled points that stand for all, and the weight of each."""
    scaled = points / scales.length
    chosen = scaled
    if len(points) > INDUCING:
        chosen = scaled[np.random.default_rng(seed).permutation(len(points))[:INDUCING]]
    variance = scales.amplitude**2
    among = variance * (_matern(_squared_distances(chosen, chosen)) + JITTER * np.eye(len(chosen)))
    across = variance * _matern(_squared_distances(scaled, chosen))
    lower = cholesky(among, lower=True)
    projected = solve_triangular(lower, across.T, lower=True)
    system = np.eye(len(chosen)) + projected @ projected.T / scales.noise**2
    inner = cho_solve((cholesky(system, lower=True), True), projected @ errors) / scales.noise**2
    weights = solve_triangular(lower, inner, lower=True, trans="T")
    # A matrix product rounds differently for arrays that lie differently in memory.
    return np.ascontiguousarray(chosen), np.ascontiguousarray(weights)


def _squared_distances(left: Array, right: Array) -> Array:
    squared = (left**2).sum(1)[:, None] + (right**2).sum(1) - 2 * left @ right.T
    return np.asarray(np.maximum(squared, 0.0))


def _matern(squared: Array) -> Array:
    distance = _ROOT_5 * np.sqrt(squared)
    return np.asarray((1 + distance + distance**2 / 3) * np.exp(-distance))
