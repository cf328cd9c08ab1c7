"""What the comparisons of searches with random ones rest on."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from against import spos, tunas
from against.pairs import paired
from against.settings import SposSetting, TunasSetting
from against.terms import Terms
from against_random import summary
from counting_phone import table_of
from latkit.devices.device import Setup
from latkit.devices.errors import UsageError
from latkit.search.data import load_data
from latkit.search.training import set_threads
from sharing.alone import Alone
from sharing.costs import MULTIPLY_ADDS, BlockCosts
from sharing.spaces import SPACES

SPOS = SposSetting(seeds=1, supernet_epochs=1, population=4, rounds=2, parents=2)
TUNAS = TunasSetting(seeds=1, supernet_epochs=1, policy_rate=1e-2, candidates=2, candidate_epochs=1)


def terms(folder, name):
    set_threads(1)
    space = SPACES["small"][name]()
    return Terms(f"tiny-{name}", space, few_images(), MULTIPLY_ADDS, 64, 0.1, folder, "cpu")


def few_images():
    data = load_data()
    few = {"train": 192, "validation": 96, "test": 100}
    parts = {name: getattr(data, name).only(torch.arange(count)) for name, count in few.items()}
    return replace(data, **parts)


def test_interval_is_students_over_seeds():
    found = paired([0.5, 0.7, 0.6], [0.4, 0.5, 0.6])
    # Differences .1, .2, 0: mean .1, deviation .1; t(.975, 2) = 4.303.
    half = 4.30265 * 0.1 / math.sqrt(3)
    assert found["seeds"] == 3
    assert found["difference"] == pytest.approx(0.1)
    assert found["low"] == pytest.approx(0.1 - half, abs=1e-5)
    assert found["high"] == pytest.approx(0.1 + half, abs=1e-5)
    assert (found["wins"], found["ties"], found["losses"]) == (2, 1, 0)


def test_results_are_compared_seed_by_seed():
    """What all of a seed's results have in common is no part of the interval's width."""
    common = np.array([0.1, 0.5, 0.9])
    found = paired((common + 0.02).tolist(), common.tolist())
    assert found["high"] - found["low"] < 1e-9
    assert paired([0.1, 0.5, 0.9], [0.9, 0.1, 0.5])["losses"] == 1
    with pytest.raises(ValueError):
        paired([0.1, 0.2], [0.1])


def test_one_seed_has_no_interval():
    found = paired([0.5], [0.4])
    assert math.isnan(found["low"]) and math.isnan(found["high"])


def test_evolution_and_random_search_score_as_many_with_one_supernet(tmp_path, monkeypatch):
    given = terms(tmp_path, "operations")
    row = spos.compare(given, SPOS, 1, seed=0)
    assert row["evaluations"] == row["random_evaluations"] == 8
    assert max(row["cost_evolution"], row["cost_random"]) <= 1
    (line,) = [item for item in summary({"spos": [row]}) if "score" in item["measure"]]
    assert line["difference"] == row["score_evolution"] - row["score_random"]
    # What was trained and scored is not trained and scored again.
    monkeypatch.setattr("sharing.alone.retrain", None)
    monkeypatch.setattr("latkit.search.trainers.single_path.SinglePath.__call__", None)
    monkeypatch.setattr("latkit.search.log.SearchLog.append", None)
    assert spos.compare(given, SPOS, 1, seed=0) == row


def test_random_search_is_at_the_cost_that_tunas_ended_with(tmp_path, monkeypatch):
    given = terms(tmp_path, "widths")
    row = tunas.compare(given, TUNAS, 1, seed=0)
    assert row["random_to_tunas"] == pytest.approx(1, abs=tunas.TOLERANCE)
    assert (row["trained_random"], row["epochs_random"]) == (2, 2)
    monkeypatch.setattr("sharing.alone.retrain", None)
    monkeypatch.setattr("latkit.search.trainers.joint.Joint.__call__", None)
    assert tunas.compare(given, TUNAS, 1, seed=0) == row


def test_random_architectures_of_one_cost_are_distinct_and_the_seeds_own(tmp_path):
    given = terms(tmp_path, "widths")
    found = tunas.of_cost(given, given.target, 20, seed=3)
    assert len({item.key for item in found}) == 20
    assert np.abs(given.costs_of(found) / given.target - 1).max() <= tunas.TOLERANCE
    assert tunas.of_cost(given, given.target, 20, seed=3) == found
    assert tunas.of_cost(given, given.target, 20, seed=4) != found
    with pytest.raises(UsageError, match="nothing to compare"):
        tunas.of_cost(given, 2 * given.cost.maximum()[0], 1, seed=0)


def test_a_table_gives_costs_with_its_constant(tmp_path):
    space = SPACES["small"]["widths"]()
    table = table_of(space, Setup("phone", "onnxruntime", "1"))
    table = replace(table, calibration=replace(table.calibration, constant_ms=0.5))
    table.save(tmp_path / "table.json")
    given = replace(terms(tmp_path, "widths"), costs=BlockCosts.by_table(tmp_path / "table.json"))
    architecture = space.sample(np.random.default_rng(0))
    (found,) = given.costs_of([architecture])
    assert found == pytest.approx(table.network(space.network(architecture)).latency_ms)


def test_what_candidates_are_chosen_by_reads_no_test_images(tmp_path):
    given = terms(tmp_path, "operations")
    alone = given.alone(1)
    blind = Alone(given.space, replace(given.data, test=None), alone.settings, tmp_path, "cpu")
    architecture = given.space.sample(np.random.default_rng(0))
    score = blind.validation_accuracy(architecture, 0)
    assert alone.validation_accuracy(architecture, 0) == score
    alone.accuracy(architecture, 0)
    assert len(list(tmp_path.iterdir())) == 2
