"""Additive Gaussian process: what each kernel takes beside its estimate, learned from sums.

A sample is the sum of its terms (kernels, and the call), each with a physical estimate e:

    log latency = log sum over terms of e * exp(f(x)) + g(whole) + noise

with a Gaussian process f for each group of terms and one more, g, for the sample as a whole, all
with Matern kernels of smoothness 5/2 and a length scale for each feature (Rasmussen & Williams
2006, sections 4.2.1 and 5.1; additive: Duvenaud et al. 2011). The sum is made linear around the
current estimate, in which a term weighs its share of the latency, and solved again (Gauss-Newton,
sections 3.4 and 5.4). Its scales are learned in latency/additive_scales.py. Above `INDUCING`
samples, that many of them stand for all (subset of regressors, section 8.3.1).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve

Array = NDArray[np.float64]
Rows = NDArray[np.intp]

INDUCING = 1000
"""Samples that stand for all where there are more; memory and time grow with its square."""

STEPS = 3
"""Gauss-Newton steps; the second changes little, the third hardly anything."""

OFFSET = 0.1
"""Standard deviation of an error that all terms of a group share."""

JITTER = 1e-8
ROWS_AT_ONCE = 64
ROOT_5 = math.sqrt(5)


@dataclass(frozen=True)
class Part:
    """The terms of one group in some samples: values (R, features), and whose they are.

    `owner` (R,) is the number of the sample, ascending; `terms` (R,) the place among all terms,
    `None` for what is of whole samples.
    """

    name: str
    features: tuple[str, ...]
    values: Array
    owner: Rows
    terms: Rows | None

    @property
    def is_whole(self) -> bool:
        """Whether its rows are samples, not terms of them."""
        return self.terms is None


@dataclass(frozen=True)
class Terms:
    """Terms of samples: `owner` (T,) says whose, `work` (T, amounts) what they do."""

    samples: int
    owner: Rows
    work: Array
    parts: tuple[Part, ...]

    def take(self, rows: Rows) -> Terms:
        """The terms of these samples, whose numbers must ascend."""
        place = np.full(self.samples, -1)
        place[rows] = np.arange(len(rows))
        kept = place[self.owner] >= 0
        moved = np.cumsum(kept) - 1
        parts = []
        for part in self.parts:
            mine = place[part.owner] >= 0
            terms = None if part.terms is None else moved[part.terms[mine]]
            parts.append(
                Part(part.name, part.features, part.values[mine], place[part.owner[mine]], terms)
            )
        return Terms(len(rows), place[self.owner[kept]], self.work[kept], tuple(parts))

    def sums(self, values: Array) -> Array:
        """Sum of a value of each term (T,) for each sample: (N,)."""
        return np.asarray(np.bincount(self.owner, values, minlength=self.samples), dtype=np.float64)


@dataclass(frozen=True)
class Scale:
    """What a group's terms are compared by: `(value - centre) / length`; and how they vary."""

    centre: Array
    length: Array
    amplitude: float

    def apply(self, values: Array) -> Array:
        """Values as distances see them."""
        return np.asarray((values - self.centre) / self.length)


@dataclass(frozen=True)
class Scales:
    """The parameters of a process: one scale a part, and the noise."""

    parts: tuple[Scale, ...]
    noise: float


@dataclass(frozen=True)
class Component:
    """The learned function of one group: a weight for each training term's similarity."""

    name: str
    features: tuple[str, ...]
    scale: Scale
    points: Array
    weights: Array
    is_whole: bool

    def correction(self, values: Array) -> tuple[Array, Array]:
        """The logarithm of the correction of each row, and the variance left by its nearest point.

        Rows do not influence each other, bit for bit.
        """
        places = self.scale.apply(values)
        mean, novelty = np.empty(len(values)), np.empty(len(values))
        offset = 0.0 if self.is_whole else OFFSET**2
        variance = self.scale.amplitude**2
        for start in range(0, len(values), ROWS_AT_ONCE):
            rows = slice(start, start + ROWS_AT_ONCE)
            # No matrix product: it would round differently for different numbers of rows.
            squared = ((places[rows, None, :] - self.points) ** 2).sum(axis=2)
            alike = _matern(squared)
            mean[rows] = ((variance * alike + offset) * self.weights).sum(axis=1)
            novelty[rows] = variance * (1 - alike.max(axis=1, initial=0.0) ** 2)
        return mean, novelty


@dataclass(frozen=True)
class Process:
    """A fitted process; `noise` is the standard deviation of a measurement's logarithm."""

    components: tuple[Component, ...]
    noise: float

    def predict(self, terms: Terms, estimate_ms: Array) -> tuple[Array, Array]:
        """Latency in ms (N,) from the estimates of the terms (T,), and how unsure it is, relative.

        The second is no calibrated error; it says which samples are harder than others.
        """
        log_factor, novelty = np.zeros(len(estimate_ms)), np.zeros(len(estimate_ms))
        whole, variance = np.zeros(terms.samples), np.full(terms.samples, self.noise**2)
        known = {component.name: component for component in self.components}
        for part in terms.parts:
            mean, unsure = known[part.name].correction(part.values)
            if part.terms is None:
                whole, variance = mean, variance + unsure
            else:
                log_factor[part.terms], novelty[part.terms] = mean, unsure
        corrected = estimate_ms * np.exp(log_factor)
        total = terms.sums(corrected)
        share = corrected / total[terms.owner]
        return total * np.exp(whole), np.sqrt(variance + terms.sums(share**2 * novelty))


def fit_process(
    terms: Terms, estimate_ms: Array, latency_ms: Array, scales: Scales, seed: int
) -> Process:
    """The process of these scales, given measured samples."""
    count = terms.samples
    inducing = np.arange(count)
    if count > INDUCING:
        inducing = np.sort(np.random.default_rng(seed).permutation(count)[:INDUCING])
    few = terms.take(inducing)
    among = np.isin(terms.owner, inducing)
    similar = [
        _similarities(scale, part, chosen)
        for scale, part, chosen in zip(scales.parts, terms.parts, few.parts, strict=True)
    ]
    log_factor = np.zeros(len(estimate_ms))
    alpha = np.zeros(len(inducing))
    for _ in range(STEPS):
        shares, target = linearized(terms, estimate_ms, log_factor, latency_ms)
        covariance = np.zeros((count, len(inducing)))
        for part, chosen, values in zip(terms.parts, few.parts, similar, strict=True):
            add_sums(covariance, values, (part, shares), (chosen, shares[among]))
        alpha = _solve(covariance, inducing, target, scales.noise)
        for part, chosen, values in zip(terms.parts, few.parts, similar, strict=True):
            if part.terms is not None:
                log_factor[part.terms] = values @ _weights(chosen, shares[among], alpha)
    return Process(
        tuple(
            Component(
                part.name,
                part.features,
                scale,
                scale.apply(part.values),
                _weights(part, shares[among], alpha),
                part.is_whole,
            )
            for scale, part in zip(scales.parts, few.parts, strict=True)
        ),
        scales.noise,
    )


def prior_covariance(terms: Terms, estimate_ms: Array, process: Process) -> Array:
    """Covariance (N, N) of the logarithms of samples' latencies before any was measured."""
    shares, _ = linearized(terms, estimate_ms, log_factors(terms, process), np.ones(terms.samples))
    known = {component.name: component.scale for component in process.components}
    covariance = np.zeros((terms.samples, terms.samples))
    for part in terms.parts:
        values = _similarities(known[part.name], part, part)
        add_sums(covariance, values, (part, shares), (part, shares))
    return covariance


def log_factors(terms: Terms, process: Process) -> Array:
    """The logarithm of the correction of each term: (T,)."""
    known = {component.name: component for component in process.components}
    result = np.zeros(len(terms.owner))
    for part in terms.parts:
        if part.terms is not None:
            result[part.terms] = known[part.name].correction(part.values)[0]
    return result


def linearized(
    terms: Terms, estimate_ms: Array, log_factor: Array, latency_ms: Array
) -> tuple[Array, Array]:
    """Each term's share of its sample (T,), and what their weighted corrections should come to."""
    corrected = estimate_ms * np.exp(log_factor)
    total = terms.sums(corrected)
    shares = corrected / total[terms.owner]
    return shares, np.log(latency_ms / total) + terms.sums(shares * log_factor)


def _weights(part: Part, shares: Array, alpha: Array) -> Array:
    return alpha[part.owner] if part.terms is None else shares[part.terms] * alpha[part.owner]


def _solve(covariance: Array, inducing: Rows, target: Array, noise: float) -> Array:
    """Weight of each inducing sample; exact where all are."""
    among = covariance[inducing]
    if len(inducing) == len(target):
        system, right = among + (noise**2 + JITTER) * np.eye(len(target)), target
    else:
        system = covariance.T @ covariance + noise**2 * among
        system += JITTER * np.trace(system) / len(system) * np.eye(len(system))
        right = covariance.T @ target
    return np.asarray(cho_solve(cho_factor(system, lower=True), right))


def _matern(squared: Array) -> Array:
    distance = ROOT_5 * np.sqrt(squared)
    return np.asarray((1 + distance + distance**2 / 3) * np.exp(-distance))


def squared_distances(left: Array, right: Array) -> Array:
    """Squared distance of each row of one from each row of the other."""
    squared = (left**2).sum(1)[:, None] + (right**2).sum(1) - 2 * left @ right.T
    return np.asarray(np.maximum(squared, 0.0))


def _similarities(scale: Scale, left: Part, right: Part) -> Array:
    alike = _matern(squared_distances(scale.apply(left.values), scale.apply(right.values)))
    return np.asarray(scale.amplitude**2 * alike + (0.0 if left.is_whole else OFFSET**2))


def add_sums(
    covariance: Array, values: Array, left: tuple[Part, Array], right: tuple[Part, Array]
) -> None:
    """Add to `covariance` (N, M) the sums of `values` (R, S) over each pair of samples."""
    for axis, (part, shares) in enumerate((left, right)):
        if part.terms is not None:
            weights = shares[part.terms]
            values = values * (weights[:, None] if axis == 0 else weights)
    rows, row_owners = _starts(left[0].owner)
    columns, column_owners = _starts(right[0].owner)
    if len(rows) and len(columns):
        summed = np.add.reduceat(np.add.reduceat(values, rows, axis=0), columns, axis=1)
        covariance[np.ix_(row_owners, column_owners)] += summed


def _starts(owner: Rows) -> tuple[Rows, Rows]:
    """Where the rows of each owner begin, and who that is."""
    starts = np.flatnonzero(np.diff(owner, prepend=-1))
    return starts, owner[starts]
