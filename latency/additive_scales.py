"""Length scales, amplitudes and noise of an additive process: the most likely ones.

They are those of the greatest marginal likelihood, with priors that keep them sane where samples
are few (Rasmussen & Williams 2006, section 5.4.1).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import minimize

from .additive import (
    JITTER,
    OFFSET,
    ROOT_5,
    Array,
    Part,
    Scale,
    Scales,
    Terms,
    add_sums,
    fit_process,
    linearized,
    log_factors,
    squared_distances,
)

LIKELIHOOD_SAMPLES = 200
"""Samples that length scales are learned from at most."""

PRIOR_SPREAD = 1.0
"""Standard deviation of the priors, on logarithms; the noise has its own."""

PRIOR_REACH = 4.0
"""How many standard deviations of its prior a parameter may leave the middle: a step of the
optimiser may else go where nothing can be computed."""


@dataclass(frozen=True)
class Priors:
    """Middles of the priors of a process's parameters.

    By what share estimates err, of terms and of wholes; how measurements scatter, and how sure
    that is; and over how many standard deviations of a feature an error stays alike.
    """

    amplitude: float = 0.15
    whole_amplitude: float = 0.05
    noise: float = 0.015
    noise_spread: float = 0.3
    length: float = math.exp(1.5)


def fit_scales(
    terms: Terms,
    estimate_ms: Array,
    latency_ms: Array,
    seed: int,
    priors: Priors = Priors(),
) -> Scales:
    """Length scales, amplitudes and noise of the greatest posterior density."""
    random = np.random.default_rng(seed)
    chosen = np.sort(random.permutation(terms.samples)[:LIKELIHOOD_SAMPLES])
    kept = np.isin(terms.owner, chosen)
    terms, estimate_ms, latency_ms = terms.take(chosen), estimate_ms[kept], latency_ms[chosen]
    raw = [_raw_scale(part) for part in terms.parts]
    start = _start(raw, terms.parts, priors)
    log_factor = np.zeros(len(estimate_ms))
    theta = start
    for _ in range(2):
        shares, target = linearized(terms, estimate_ms, log_factor, latency_ms)
        likelihood = _Likelihood(terms, shares, target, raw, start, priors.noise_spread)
        found = minimize(
            likelihood,
            theta,
            jac=True,
            method="L-BFGS-B",
            bounds=likelihood.bounds(),
            options={"maxiter": 20},
        )
        theta = found.x
        scales = _scales(theta, raw)
        process = fit_process(terms, estimate_ms, latency_ms, scales, seed)
        log_factor = log_factors(terms, process)
    return scales


def _raw_scale(part: Part) -> Scale:
    """Centre and spread of a part's features, before lengths are learned."""
    if not len(part.values):
        width = len(part.features)
        return Scale(np.zeros(width), np.ones(width), 1.0)
    spread = part.values.std(axis=0)
    return Scale(part.values.mean(axis=0), np.where(spread > 0, spread, 1.0), 1.0)


def _start(raw: Sequence[Scale], parts: Sequence[Part], priors: Priors) -> Array:
    """The middles of the priors, in the order in which `_scales` reads them."""
    theta: list[float] = []
    for scale, part in zip(raw, parts, strict=True):
        theta.append(math.log(priors.whole_amplitude if part.is_whole else priors.amplitude))
        theta += [math.log(priors.length)] * len(scale.length)
    return np.array([*theta, math.log(priors.noise)])


def _scales(theta: Array, raw: Sequence[Scale]) -> Scales:
    place, found = 0, []
    for scale in raw:
        width = len(scale.length)
        lengths = scale.length * np.exp(theta[place + 1 : place + 1 + width])
        found.append(Scale(scale.centre, lengths, math.exp(theta[place])))
        place += 1 + width
    return Scales(tuple(found), math.exp(theta[-1]))


class _Likelihood:
    """Minus the log posterior of the scales, with its gradient (section 5.4.1)."""

    def __init__(
        self,
        terms: Terms,
        shares: Array,
        target: Array,
        raw: Sequence[Scale],
        middle: Array,
        noise_spread: float,
    ) -> None:
        self._terms, self._shares, self._target = terms, shares, target
        self._raw, self._middle = raw, middle
        self._spread = np.full(len(middle), PRIOR_SPREAD)
        self._spread[-1] = noise_spread

    def bounds(self) -> list[tuple[float, float]]:
        """Where each parameter is looked for."""
        reach = PRIOR_REACH * self._spread
        return list(zip(self._middle - reach, self._middle + reach, strict=True))

    def __call__(self, theta: Array) -> tuple[float, Array]:
        scales = _scales(theta, self._raw)
        count = len(self._target)
        covariance = (scales.noise**2 + JITTER) * np.eye(count)
        kept = []
        for scale, part in zip(scales.parts, self._terms.parts, strict=True):
            places = scale.apply(part.values)
            distance = ROOT_5 * np.sqrt(squared_distances(places, places))
            decay = scale.amplitude**2 * np.exp(-distance)
            alike = (1 + distance + distance**2 / 3) * decay
            values = alike + (0.0 if part.is_whole else OFFSET**2)
            add_sums(covariance, values, (part, self._shares), (part, self._shares))
            kept.append((part, places, alike, 5 / 3 * (1 + distance) * decay))
        factor = cho_factor(covariance, lower=True)
        alpha = cho_solve(factor, self._target)
        inverse = cho_solve(factor, np.eye(count))
        value = self._target @ alpha / 2 + np.log(np.diag(factor[0])).sum()
        slope = inverse - np.outer(alpha, alpha)
        gradient: list[float] = []
        for part, places, alike, steep in kept:
            weights = np.ones(count) if part.terms is None else self._shares[part.terms]
            outer = slope[np.ix_(part.owner, part.owner)] * weights[:, None] * weights
            gradient.append(float((outer * alike).sum()))
            outer *= steep
            along = (places**2 * outer.sum(axis=1)[:, None]).sum(axis=0)
            gradient += (along - (places * (outer @ places)).sum(axis=0)).tolist()
        gradient.append(scales.noise**2 * float(np.trace(slope)))
        pull = (theta - self._middle) / self._spread
        return float(value + pull @ pull / 2), np.array(gradient) + pull / self._spread
