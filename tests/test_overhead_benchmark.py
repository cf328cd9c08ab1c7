"""The benchmark of overhead runs ours and others through as many evaluations."""

import numpy as np
import optuna
import pytest
from overhead import SAMPLERS, STRATEGIES, Objective, run_optuna, run_pymoo, run_strategy

COUNT = 60
"""More than a population."""


@pytest.fixture(scope="module")
def objective():
    return Objective("mobile")


def test_every_evaluation_is_timed(objective):
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    runs = {
        name: run_strategy(make(objective, COUNT, 0), objective, COUNT)
        for name, make in STRATEGIES.items()
    }
    runs |= {name: run_optuna(make(0), objective, COUNT) for name, make in SAMPLERS.items()}
    runs["pymoo"] = run_pymoo(objective, COUNT, 0)
    for name, seconds in runs.items():
        assert len(seconds) >= COUNT, name
        assert np.isfinite(seconds).all(), name


def test_half_of_a_space_meets_the_target(objective):
    drawn = objective.space.sample_choices(2000, np.random.default_rng(1))
    inside = objective.cost.latency_ms(drawn) <= objective.target_ms
    assert 0.4 < inside.mean() < 0.6
    assert 0 < objective.accuracy(drawn[0].tolist()) < 1
