import numpy as np
import pytest
from latkit.search.strategies.surrogate import Surrogate, warped

RANDOM = np.random.default_rng(0)
ROWS = RANDOM.permutation(np.unique(RANDOM.integers(0, 4, size=(400, 6)), axis=0))
EFFECTS = RANDOM.normal(size=(6, 4))
WORTH = EFFECTS[np.arange(6), ROWS].sum(axis=1) + 0.5 * (ROWS[:, 0] == ROWS[:, 1])
WORTH += 0.5 * RANDOM.normal(size=len(ROWS))
LATENCY = RANDOM.random(len(ROWS)) + ROWS.sum(axis=1)
KNOWN, NEW = np.arange(0, 150), np.arange(150, len(ROWS))


def fitted(count=150):
    return Surrogate(ROWS[:count], LATENCY[:count], WORTH[:count])


def test_predicts_architectures_that_it_has_not_seen():
    believed = fitted().believe(ROWS[NEW], LATENCY[NEW])
    assert np.corrcoef(believed.mean, WORTH[NEW])[0, 1] > 0.9


def test_says_how_far_off_it_may_be():
    surrogate = fitted()
    believed = surrogate.believe(ROWS[NEW], LATENCY[NEW])
    misses = (WORTH[NEW] - believed.mean) / surrogate.deviation(believed.variance + surrogate.noise)
    assert 0.6 < np.sqrt((misses**2).mean()) < 1.6


def test_is_surer_of_what_it_knows():
    surrogate = fitted()
    known, new = (surrogate.believe(ROWS[rows], LATENCY[rows]).variance for rows in (KNOWN, NEW))
    assert known.mean() < 0.5 * new.mean() and (new > 0).all()


def test_believing_a_candidate_is_as_fitting_with_it():
    surrogate = fitted()
    offered = NEW[:20]
    believed = surrogate.after(surrogate.believe(ROWS[offered], LATENCY[offered]), 3)
    believed = surrogate.after(believed, 7)
    taken = [*KNOWN, offered[3], offered[7]]
    again = Surrogate.__new__(Surrogate)
    again.__dict__.update(surrogate.__dict__)
    latency = surrogate._standardised(LATENCY)
    kernel = surrogate._kernel(ROWS, latency, ROWS, latency)
    covariance = kernel[np.ix_(taken, taken)] + surrogate.noise * np.eye(len(taken))
    shared = kernel[np.ix_(taken, offered)]
    left = np.diag(kernel)[offered] - np.einsum(
        "nm,nm->m", shared, np.linalg.solve(covariance, shared)
    )
    assert believed.variance == pytest.approx(left, abs=1e-8)


def test_warping_keeps_the_order_and_draws_the_worst_in():
    accuracy = np.concatenate([[0.1] * 5, np.linspace(0.5, 0.7, 45)])
    worth = warped(accuracy)
    assert (np.diff(worth) >= 0).all() and (np.diff(worth[5:]) > 0).all()
    assert worth.max() - np.median(worth) > 0.5 * (np.median(worth) - worth.min())
    assert np.isfinite(warped(np.full(10, 0.5))).all()
