"""What the comparison of ways of sharing weights rests on."""

import math
from dataclasses import replace

import numpy as np
import pytest
from latkit.latency.cost import lay_out
from latkit.latency.network import block_graph
from latkit.latency.ops import multiply_adds
from latkit.search.data import load_data
from latkit.search.settings import TrainingSettings
from latkit.search.training import set_threads
from sharing.alone import Alone
from sharing.correlation import between_seeds, correlations
from sharing.spaces import SPACES, small_operations

SETTINGS = TrainingSettings(1, 64)


def test_correlation_is_kendalls_with_an_interval_around_it():
    first = np.arange(12.0)
    second = first.copy()
    second[[3, 4]] = second[[4, 3]]
    found = correlations(first, second)
    pairs = 12 * 11 / 2
    assert found["kendall"] == pytest.approx((pairs - 2) / pairs)
    assert found["low"] <= found["kendall"] <= found["high"]
    assert correlations(first, -first)["kendall"] == pytest.approx(-1)


def test_scores_that_are_all_equal_have_no_correlation():
    assert math.isnan(correlations(np.arange(5.0), np.ones(5))["kendall"])


def test_seeds_are_compared_in_pairs():
    rows = np.array([[1.0, 2, 3, 4], [1, 2, 3, 4], [4, 3, 2, 1]])
    assert between_seeds(rows)["kendall"] == pytest.approx((1 - 1 - 1) / 3)


def test_a_network_is_trained_once_for_its_settings_and_seed(tmp_path, monkeypatch):
    set_threads(1)
    space = small_operations()
    architecture = space.sample(np.random.default_rng(0))
    alone = Alone(space, load_data(), SETTINGS, tmp_path, "cpu")
    found = alone.accuracies([architecture], range(2))
    assert found.shape == (2, 1)
    assert len(list(tmp_path.iterdir())) == 2
    with monkeypatch.context() as patched:
        patched.setattr("sharing.alone.retrain", None)
        assert (alone.accuracies([architecture], range(2)) == found).all()
        other = replace(alone, settings=replace(SETTINGS, learning_rate=0.05))
        with pytest.raises(TypeError):
            other.accuracy(architecture, 0)


def test_small_networks_are_small():
    for make in SPACES["small"].values():
        space = make()
        cost = lay_out(space, lambda block: float(multiply_adds(block_graph(block))))
        drawn = cost.latency_ms(space.sample_choices(1000, np.random.default_rng(0)))
        assert np.quantile(drawn, 0.99) <= 3e6
