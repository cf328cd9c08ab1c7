"""The additive process: its gradient, what sums teach about terms, and rows that stand alone."""

import numpy as np
import pytest
from latkit.latency import additive, additive_scales
from latkit.latency.additive import (
    Part,
    Scale,
    Scales,
    Terms,
    fit_process,
    prior_covariance,
)
from latkit.latency.additive_scales import fit_scales


def terms_of(owner, values, samples):
    """One group of terms with one feature, and the feature's mean over each sample."""
    owner = np.asarray(owner, dtype=np.intp)
    values = np.asarray(values, dtype=float)[:, None]
    means = np.bincount(owner, values[:, 0], minlength=samples) / np.bincount(owner)
    parts = (
        Part("kernel", ("size",), values, owner, np.arange(len(owner))),
        Part("whole", ("mean",), means[:, None], np.arange(samples), None),
    )
    return Terms(samples, owner, np.ones((len(owner), 1)), parts)


def sums(samples, seed):
    """Samples of one to four terms; a term takes exp(sin(x)) times its estimate."""
    random = np.random.default_rng(seed)
    owner = np.repeat(np.arange(samples), random.integers(1, 5, samples))
    values = random.uniform(0, 6, len(owner))
    estimate_ms = random.uniform(0.1, 2.0, len(owner))
    terms = terms_of(owner, values, samples)
    return terms, estimate_ms, terms.sums(estimate_ms * np.exp(0.5 * np.sin(values)))


def test_terms_are_learned_from_sums():
    terms, estimate_ms, latency_ms = sums(120, seed=0)
    scales = fit_scales(terms, estimate_ms, latency_ms, seed=0)
    process = fit_process(terms, estimate_ms, latency_ms, scales, seed=0)
    others, their_estimate_ms, truth_ms = sums(60, seed=1)
    predicted_ms, _ = process.predict(others, their_estimate_ms)
    plain = np.abs(others.sums(their_estimate_ms) / truth_ms - 1)
    assert np.median(np.abs(predicted_ms / truth_ms - 1)) < 0.1 * np.median(plain)
    one = terms_of([0], [2.0], 1)
    assert process.predict(one, np.array([3.0]))[0] == pytest.approx(
        3 * np.exp(0.5 * np.sin(2.0)), rel=0.03
    )


def test_what_is_far_from_all_samples_is_unsure():
    terms, estimate_ms, latency_ms = sums(60, seed=0)
    scales = fit_scales(terms, estimate_ms, latency_ms, seed=0)
    process = fit_process(terms, estimate_ms, latency_ms, scales, seed=0)
    spread = [process.predict(terms_of([0], [x], 1), np.ones(1))[1][0] for x in (3.0, 30.0)]
    assert spread[1] > 3 * spread[0]


def test_few_inducing_samples_come_close_to_all(monkeypatch):
    terms, estimate_ms, latency_ms = sums(150, seed=0)
    scales = fit_scales(terms, estimate_ms, latency_ms, seed=0)
    exact = fit_process(terms, estimate_ms, latency_ms, scales, seed=0)
    monkeypatch.setattr(additive, "INDUCING", 60)
    sparse = fit_process(terms, estimate_ms, latency_ms, scales, seed=0)
    assert len(sparse.components[0].points) < len(exact.components[0].points)
    others, their_estimate_ms, _ = sums(40, seed=1)
    np.testing.assert_allclose(
        sparse.predict(others, their_estimate_ms)[0],
        exact.predict(others, their_estimate_ms)[0],
        rtol=0.02,
    )


def test_the_gradient_is_that_of_the_likelihood():
    terms, estimate_ms, latency_ms = sums(25, seed=2)
    raw = [additive_scales._raw_scale(part) for part in terms.parts]
    start = additive_scales._start(raw, terms.parts, additive_scales.Priors())
    shares, target = additive.linearized(terms, estimate_ms, np.zeros(len(estimate_ms)), latency_ms)
    likelihood = additive_scales._Likelihood(terms, shares, target, raw, start, 0.3)
    theta = start + 0.1 * np.random.default_rng(0).standard_normal(len(start))
    _, gradient = likelihood(theta)
    for index, step in enumerate(1e-5 * np.eye(len(theta))):
        slope = (likelihood(theta + step)[0] - likelihood(theta - step)[0]) / 2e-5
        assert gradient[index] == pytest.approx(slope, rel=1e-4, abs=1e-5)


def test_taking_samples_keeps_their_terms():
    terms, estimate_ms, _ = sums(30, seed=3)
    rows = np.array([2, 3, 11, 29])
    taken = terms.take(rows)
    kept = np.isin(terms.owner, rows)
    assert taken.sums(estimate_ms[kept]).tolist() == terms.sums(estimate_ms)[rows].tolist()
    for before, after in zip(terms.parts, taken.parts, strict=True):
        mine = np.isin(before.owner, rows)
        assert after.values.tolist() == before.values[mine].tolist()
        assert rows[after.owner].tolist() == before.owner[mine].tolist()
    assert taken.parts[0].terms.tolist() == list(range(kept.sum()))


def test_covariance_of_sums_is_the_sum_over_pairs_of_terms():
    terms, estimate_ms, latency_ms = sums(6, seed=4)
    scale = Scale(np.zeros(1), np.ones(1), 0.3)
    process = fit_process(terms, estimate_ms, latency_ms, Scales((scale, scale), 0.01), seed=0)
    covariance = prior_covariance(terms, estimate_ms, process)
    assert np.allclose(covariance, covariance.T)
    assert np.linalg.eigvalsh(covariance).min() > -1e-9
    alone = terms.take(np.array([1, 4]))
    kept = np.isin(terms.owner, [1, 4])
    assert np.allclose(
        prior_covariance(alone, estimate_ms[kept], process), covariance[np.ix_([1, 4], [1, 4])]
    )
