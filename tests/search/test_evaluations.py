"""Evaluations as a frame: what the logs hold, joined with what the store tells of them."""

import numpy as np
import pytest
from latkit.latency.cost import CostModel, Factor
from latkit.latency.store import Store
from latkit.search.choices import Choice
from latkit.search.evaluations import evaluations
from latkit.search.log import SearchLog
from latkit.search.loop import run_strategy
from latkit.search.space import Architecture, SearchSpace
from latkit.search.strategies.random_search import RandomSearch
from latkit.search.strategies.reinforce import Reinforce
from latkit.search.trajectory import Trajectory

SPACE = SearchSpace("small", [Choice(name, (1, 2, 3, 4)) for name in "abc"], [])
COST = CostModel(
    SPACE.option_counts, [Factor((place,), np.arange(1.0, 5.0) / 3) for place in range(3)]
)


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path / "store.sqlite") as opened:
        yield opened


def searched(store, path, seed):
    """Entries of the log and the trajectory of two strategies, one after the other."""
    log = SearchLog(path, {"seed": seed})
    trajectory = Trajectory(store, log)
    for strategy in (
        Reinforce(SPACE, 3.0, steps=6, seed=seed),
        RandomSearch(SPACE, COST, 10.0, budget=8, seed=seed),
    ):
        run_strategy(strategy, COST, lambda item: sum(item.choices) / 9, log, trajectory=trajectory)
    return log.entries(), trajectory


def test_evaluations_get_their_times_and_figures_from_the_store(store, tmp_path):
    path = tmp_path / "search" / "search.jsonl"
    searched(store, tmp_path / "other" / "search.jsonl", 3)
    entries, trajectory = searched(store, path, 3)
    measured = Architecture(entries[0].architecture)
    trajectory.add_finalist("reinforce", measured, predicted_ms=1.0, measured_ms=1.5)
    found = evaluations([path], 2.0, store)
    own = trajectory.frame()
    assert found["architecture"].tolist() == [entry.architecture for entry in entries]
    assert found["accuracy"].tolist() == [entry.accuracy for entry in entries]
    assert found["seconds"].tolist() == own["seconds"].tolist()
    assert found["policy_entropy"].notna().sum() == 6
    assert found["measured_ms"][0] == 1.5
    assert found["feasible"].tolist() == [entry.predicted_ms <= 2.0 for entry in entries]


def test_of_several_searches_in_a_folder_the_one_that_left_the_log_counts(store, tmp_path):
    path = tmp_path / "search.jsonl"
    for _ in range(2):
        path.unlink(missing_ok=True)
        _, trajectory = searched(store, path, 4)
    _, later = searched(store, tmp_path / "another.jsonl", 5)
    later.add_finalist("random", Architecture((0, 0, 0)), predicted_ms=1.0, measured_ms=1.0)
    found = evaluations([path], store=store)
    assert found["seconds"].tolist() == trajectory.frame()["seconds"].tolist()
    assert found["feasible"].all()


def test_without_rows_in_the_store_nothing_but_the_log_is_known(store, tmp_path):
    path = tmp_path / "search" / "search.jsonl"
    entries, _ = searched(store, path, 3)
    path.parent.rename(tmp_path / "moved")
    moved = evaluations([tmp_path / "moved" / "search.jsonl"], store=store)
    assert len(moved) == len(entries)
    assert moved["seconds"].isna().all()


def test_index_counts_on_over_logs_that_follow_each_other(store, tmp_path):
    paths = [tmp_path / "search.jsonl", tmp_path / "search-1.jsonl"]
    entries = [entry for seed, path in enumerate(paths) for entry in searched(store, path, seed)[0]]
    found = evaluations(paths, store=store)
    assert found["accuracy"].tolist() == [entry.accuracy for entry in entries]
    assert found["seconds"].notna().all()
    for strategy, count in (("reinforce", 12), ("random", 16)):
        own = found[found["strategy"] == strategy]
        assert own["index"].tolist() == list(range(count))
