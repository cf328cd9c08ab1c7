"""Gaussian process over a list of items whose kernel is a sum of named parts.

Every part is `basis @ gram @ basis.T`, scaled so that an item's prior variance is 1 on average.
What is learned is one variance for each part, and the noise's. Latencies are given centred and in
units of their spread, so that the same variances mean the same on every device (Rasmussen and
Williams 2006, sections 2.2 and 5.4.1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import minimize

Floats = NDArray[np.float64]
Rows = NDArray[np.intp]

CONSTANT_VARIANCE = 100.0
"""Prior variance of the mean, in units of the spread: practically free."""

LOG_VARIANCE_RANGE = (-16.0, 4.0)
STEPS = 100
NEAR_ZERO = 1e-9


@dataclass(frozen=True, eq=False)
class Part:
    """One part of the kernel over N items: `basis` (N, D), `gram` (D, D), or `None`: the identity.

    `variance` is where its variance is looked for first: the middle of a wide prior; `unlike` the
    same for a device that is like no source, where it differs. `moments` are
    `second_moments(basis)`, where they are at hand.
    """

    name: str
    basis: Floats
    variance: float
    gram: Floats | None = None
    moments: Floats | None = None
    unlike: float | None = None
    scale: float = field(init=False)

    def __post_init__(self) -> None:
        moments = second_moments(self.basis) if self.moments is None else self.moments
        size = float(np.trace(moments) if self.gram is None else (moments * self.gram).sum())
        object.__setattr__(self, "scale", 1 / size if size > NEAR_ZERO else 0.0)

    def gram_matrix(self) -> Floats:
        """The scaled gram matrix: (D, D)."""
        gram = np.eye(self.basis.shape[1]) if self.gram is None else self.gram
        return self.scale * gram

    def between(self, these: Rows, those: Rows) -> Floats:
        """Prior covariance of items at variance 1: (these, those)."""
        return self.basis[these] @ self.gram_matrix() @ self.basis[those].T


def second_moments(basis: Floats) -> Floats:
    """Mean products of the columns of a basis: (D, D)."""
    return np.asarray(basis.T @ basis / len(basis))


@dataclass(frozen=True)
class Task:
    """Measured items of one device: what each part says of them, latencies (M,), known noise."""

    covariances: Floats
    latency: Floats
    known_noise: float = 0.0

    @classmethod
    def of(
        cls, parts: Sequence[Part], rows: Rows, latency: Floats, known_noise: float = 0.0
    ) -> Task:
        """The task of items `rows`, whose latencies are `latency`, centred and scaled."""
        covariances = np.array([part.between(rows, rows) for part in parts])
        return cls(covariances, latency, known_noise)

    def covariance(self, variances: Floats) -> Floats:
        """Covariance of the measured latencies, noise included: (M, M)."""
        noise = variances[-1] + self.known_noise
        total = np.tensordot(variances[:-1], self.covariances, 1) + CONSTANT_VARIANCE
        return np.asarray(total + noise * np.eye(len(self.latency)))

    def surprise(self, log_variances: Floats) -> tuple[float, Floats]:
        """Minus the log evidence, up to a constant, and its gradient."""
        variances = np.exp(log_variances)
        factor = cho_factor(self.covariance(variances), lower=True)
        weights = cho_solve(factor, self.latency)
        inverse = cho_solve(factor, np.eye(len(self.latency)))
        value = 0.5 * self.latency @ weights + np.log(np.diag(factor[0])).sum()
        slope = 0.5 * (inverse - np.outer(weights, weights))
        gradient = np.tensordot(self.covariances, slope, ([1, 2], [0, 1]))
        return float(value), variances * np.append(gradient, np.trace(slope))


def left_out(task: Task, log_variances: Floats) -> tuple[float, float]:
    """Mean squared error of each measured item from the others; in units of what is expected, too.

    In closed form (Rasmussen and Williams 2006, section 5.4.2).
    """
    inverse = np.linalg.inv(task.covariance(np.exp(log_variances)))
    told, precision = inverse @ task.latency, np.diag(inverse)
    return float(np.mean((told / precision) ** 2)), float(np.mean(told**2 / precision))


def most_likely(
    tasks: Sequence[Task], centre: Floats, spread: Floats | float, weight: float = 1.0
) -> Floats:
    """Log variances that explain the tasks best, under a normal prior around `centre`."""

    def objective(log_variances: Floats) -> tuple[float, Floats]:
        away = (log_variances - centre) / spread
        value, gradient = 0.5 * float(away @ away), away / spread
        for task in tasks:
            surprise, slope = task.surprise(log_variances)
            value, gradient = value + weight * surprise, gradient + weight * slope
        return value, gradient

    found = minimize(
        objective,
        centre,
        jac=True,
        method="L-BFGS-B",
        bounds=[LOG_VARIANCE_RANGE] * len(centre),
        options={"maxiter": STEPS},
    )
    return np.asarray(found.x, dtype=np.float64)


def posterior(
    parts: Sequence[Part], rows: Rows, task: Task, log_variances: Floats, wanted: Rows
) -> tuple[Floats, Floats]:
    """Mean and variance, noise included, of a measurement of each of the items `wanted`.

    `task` holds the latencies of the items `rows`.
    """
    variances = np.exp(log_variances)
    factor = cho_factor(task.covariance(variances), lower=True)
    shared = np.full((len(wanted), len(rows)), CONSTANT_VARIANCE)
    prior = np.full(len(wanted), CONSTANT_VARIANCE)
    for basis, gram in _by_basis(parts, variances):
        weighted = basis[wanted] @ gram
        shared += weighted @ basis[rows].T
        prior += np.einsum("nd,nd->n", weighted, basis[wanted])
    mean = shared @ cho_solve(factor, task.latency)
    told = np.einsum("nm,mn->n", shared, cho_solve(factor, shared.T))
    noise = float(variances[-1]) + task.known_noise
    return mean, np.maximum(prior - told, 0.0) + noise


def most_telling(
    parts: Sequence[Part], log_variances: Floats, candidates: Rows, wanted: Rows, count: int
) -> Rows:
    """The `count` candidates after whose measurement the items `wanted` are known best.

    Greedy: each time the one that takes most of their mean posterior variance (I-optimal design;
    Krause et al. 2008, section 3, with this criterion in place of theirs).
    """
    variances = np.exp(log_variances)
    columns = [np.full((len(parts[0].basis), 1), np.sqrt(CONSTANT_VARIANCE))]
    for basis, gram in _by_basis(parts, variances):
        values, vectors = np.linalg.eigh(gram)
        columns.append(basis @ (vectors * np.sqrt(values.clip(0.0))))
    these = np.hstack([column[candidates] for column in columns])
    those = np.hstack([column[wanted] for column in columns])
    # Covariance between candidates and wanted items, and the candidates' own, are kept as the
    # prior's minus what each chosen one told.
    shared, own = these @ those.T, np.einsum("nd,nd->n", these, these)
    among, chosen = np.empty((0, len(these))), list[int]()
    for _ in range(count):
        gain = (shared**2).sum(1) / (np.maximum(own, 0.0) + variances[-1])
        gain[chosen] = -1.0
        best = int(np.argmax(gain))
        column = these @ these[best] - among.T @ among[:, best]
        column /= np.sqrt(max(own[best], 0.0) + variances[-1])
        shared = shared - np.outer(column, shared[best] / np.sqrt(own[best] + variances[-1]))
        own, among = own - column**2, np.vstack([among, column])
        chosen.append(best)
    return candidates[chosen]


def _by_basis(parts: Sequence[Part], variances: Floats) -> list[tuple[Floats, Floats]]:
    """Each basis once, with the weighted sum of the gram matrices over it."""
    sums: dict[int, tuple[Floats, Floats]] = {}
    for part, variance in zip(parts, variances[:-1], strict=True):
        gram = variance * part.gram_matrix()
        if id(part.basis) in sums:
            gram = gram + sums[id(part.basis)][1]
        sums[id(part.basis)] = (part.basis, gram)
    return list(sums.values())
