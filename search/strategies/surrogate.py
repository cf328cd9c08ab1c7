"""What is to be expected of architectures not yet evaluated: a Gaussian process over choices.

Its covariance is a sum of two kernels. One falls exponentially with the share of choices that
differ: the transformed overlap kernel of Wan et al. (2021, section 3.1; recalled). The other falls
with the square of the difference in log latency, which is known of every architecture.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve, solve_triangular
from scipy.special import ndtri
from scipy.stats import rankdata

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]

SHARPNESS = (1.0, 2.0, 4.0, 8.0)
"""How often the overlap kernel falls by e from equal choices to none in common."""

LATENCY_VARIANCES = (0.0, 0.3, 1.0)
NOISES = (0.01, 0.03, 0.1, 0.3)
"""Variances that are tried, in units of the overlap kernel's."""

JUDGED_BY = 200
"""Evaluations, spread evenly over all, by whose evidence sharpness and variances are chosen."""

WINSORISED = 0.1
"""Share of the worst accuracies that are taken as one: networks that learn nothing."""

LEAST_SHARE = 0.01
"""Latencies below this share of the mean are taken as one."""

SMALLEST = 1e-9


def warped(accuracy: Floats) -> Floats:
    """Accuracies on a scale on which they are more nearly normal, in the same order.

    The mean of their normal scores by rank, which tell the best apart, and of themselves in
    units of their spread, which keep distances.
    """
    scores = ndtri((rankdata(accuracy) - 0.5) / len(accuracy))
    raised = np.maximum(accuracy, np.quantile(accuracy, WINSORISED))
    return np.asarray(0.5 * scores + 0.5 * _scaled(raised, raised))


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """What the process believes of some architectures: means, and what tells them apart.

    `explained` (n, M) has for each of M candidates what n evaluations explain: products of its
    columns are subtracted from the prior covariance.
    """

    rows: Rows
    latency: Floats
    mean: Floats
    variance: Floats
    explained: Floats


class Surrogate:
    """The process, given n evaluations: `rows` (n, L), latencies (n,) and `worth` (n,).

    Sharpness, noise and the share of latency have the highest marginal likelihood of a small grid.
    """

    def __init__(self, rows: Rows, latency_ms: Floats, worth: Floats) -> None:
        self._rows = rows
        self._least_ms = max(LEAST_SHARE * float(latency_ms.mean()), SMALLEST)
        self._centre, self._spread = 0.0, 1.0
        logarithms = self._standardised(latency_ms)
        self._centre, self._spread = float(logarithms.mean()), float(logarithms.std()) or 1.0
        self._latency = self._standardised(latency_ms)
        self._mean = float(worth.mean())
        centred = worth - self._mean
        some = np.unique(np.linspace(0, len(rows) - 1, JUDGED_BY).round().astype(np.intp))
        self._choose(rows[some], self._latency[some], centred[some])
        covariance = self._kernel(rows, self._latency, rows, self._latency)
        covariance[np.diag_indices(len(rows))] += self.noise
        factor = cho_factor(covariance, lower=True)
        self._lower = np.tril(factor[0])
        self._weights = cho_solve(factor, centred)
        self._scale = max(float(centred @ self._weights) / len(rows), SMALLEST)

    def believe(self, rows: Rows, latency_ms: Floats) -> Candidates:
        """What is believed of `rows` (M, L)."""
        latency = self._standardised(latency_ms)
        shared = self._kernel(self._rows, self._latency, rows, latency)
        explained = solve_triangular(self._lower, shared, lower=True)
        variance = 1 + self.latency_variance - np.einsum("nm,nm->m", explained, explained)
        return Candidates(rows, latency, self._mean + self._weights @ shared, variance, explained)

    def deviation(self, variance: Floats) -> Floats:
        """Standard deviation in units of `worth`, of variances as `Candidates` has them."""
        return np.sqrt(np.maximum(variance, SMALLEST) * self._scale)

    def after(self, candidates: Candidates, index: int) -> Candidates:
        """As if candidate `index` had been found to be worth what is expected of it."""
        one = slice(index, index + 1)
        shared = self._kernel(
            candidates.rows[one], candidates.latency[one], candidates.rows, candidates.latency
        )[0]
        shared -= candidates.explained[:, index] @ candidates.explained
        variance = max(float(candidates.variance[index]), SMALLEST) + self.noise
        explained = shared / np.sqrt(variance)
        return Candidates(
            candidates.rows,
            candidates.latency,
            candidates.mean,
            candidates.variance - explained**2,
            np.vstack([candidates.explained, explained]),
        )

    def _choose(self, rows: Rows, latency: Floats, worth: Floats) -> None:
        """Set sharpness, noise and the latency's share to those of the highest evidence."""
        overlap, nearness = _overlap(rows, rows), _nearness(latency, latency)
        best = -np.inf
        for sharpness in SHARPNESS:
            for latency_variance in LATENCY_VARIANCES:
                covariance = np.exp(sharpness * (overlap - 1)) + latency_variance * nearness
                values, vectors = np.linalg.eigh(covariance)
                squares = (vectors.T @ worth) ** 2
                for noise in NOISES:
                    spectrum = np.maximum(values, 0.0) + noise
                    scale = max(float((squares / spectrum).mean()), SMALLEST)
                    evidence = -len(worth) * np.log(scale) - np.log(spectrum).sum()
                    if evidence > best:
                        best = evidence
                        self.sharpness, self.noise = sharpness, noise
                        self.latency_variance = latency_variance

    def _kernel(self, these: Rows, their_latency: Floats, those: Rows, latency: Floats) -> Floats:
        values = np.exp(self.sharpness * (_overlap(these, those) - 1))
        if self.latency_variance:
            values += self.latency_variance * _nearness(their_latency, latency)
        return values

    def _standardised(self, latency_ms: Floats) -> Floats:
        logarithms = np.log(np.maximum(latency_ms, self._least_ms))
        return np.asarray((logarithms - self._centre) / self._spread)


def _overlap(these: Rows, those: Rows) -> Floats:
    """Share of choices that are equal: (N, M)."""
    options = int(max(these.max(), those.max(), 0)) + 1
    first, second = (
        (rows[:, :, None] == np.arange(options)).reshape(len(rows), -1).astype(np.float64)
        for rows in (these, those)
    )
    return np.asarray(first @ second.T / max(1, these.shape[1]))


def _nearness(these: Floats, those: Floats) -> Floats:
    return np.asarray(np.exp(-0.5 * (these[:, None] - those) ** 2))


def _scaled(values: Floats, like: Floats) -> Floats:
    return np.asarray((values - like.mean()) / (like.std() or 1.0))
