"""Trajectories: rows of evaluations in the store, each once, as long as the search is the same."""

import math
import sqlite3

import numpy as np
import pandas as pd
import pytest
from latkit.devices.errors import DamagedFileError
from latkit.latency.cost import CostModel, Factor
from latkit.latency.store import Store
from latkit.search.choices import Choice
from latkit.search.log import SearchLog
from latkit.search.loop import run_strategy
from latkit.search.space import Architecture, SearchSpace
from latkit.search.strategies.random_search import RandomSearch
from latkit.search.strategies.reinforce import Reinforce
from latkit.search.trajectory import COLUMNS, Trajectory, trajectories

SPACE = SearchSpace("small", [Choice(name, (1, 2, 3, 4)) for name in "abc"], [])
COST = CostModel(
    SPACE.option_counts, [Factor((place,), np.arange(1.0, 5.0) / 3) for place in range(3)]
)


def worth(architecture):
    return sum(architecture.choices) / 11


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path / "store.sqlite") as opened:
        yield opened


def searched(store, folder, evaluator=worth, budget=12, seed=5):
    log = SearchLog(folder / "search.jsonl", {"seed": seed})
    trajectory = Trajectory(store, log)
    strategies = [
        RandomSearch(SPACE, COST, 10.0, budget=budget, seed=seed),
        Reinforce(SPACE, 3.0, steps=8, seed=seed + 1),
    ]
    for strategy in strategies:
        run_strategy(strategy, COST, evaluator, log, trajectory=trajectory)
    return log, trajectory


def test_a_frame_has_a_row_for_each_evaluation_and_a_column_for_each_figure(store, tmp_path):
    log, trajectory = searched(store, tmp_path / "a")
    frame = trajectory.frame()
    assert frame.columns.tolist() == [*COLUMNS, "policy_entropy", "strength"]
    assert len(frame) == len(log.entries()) == 20
    for row, entry in zip(frame.itertuples(index=False), log.entries(), strict=True):
        assert (row.strategy, row.accuracy) == (entry.strategy, entry.accuracy)
        assert row.predicted_ms == entry.predicted_ms
        assert Architecture.from_key(row.architecture).choices == entry.architecture
    assert frame["index"].tolist() == [*range(12), *range(8)]
    assert frame.seed.tolist() == [5] * 12 + [6] * 8
    assert frame.search.unique().tolist() == [trajectory.search]
    assert str(tmp_path / "a") in trajectory.search
    assert (frame.seconds >= 0).all() and frame.measured_ms.isna().all()
    assert frame.policy_entropy[:12].isna().all()
    assert frame.policy_entropy[12] == pytest.approx(3 * math.log(4))


def test_repeats_have_rows_that_took_no_time(store, tmp_path):
    _, trajectory = searched(store, tmp_path, budget=64)
    frame = trajectory.frame()
    assert (frame.seconds[:64] > 0).all()
    assert (frame.seconds[64:] == 0).all()


def test_a_resumed_search_writes_no_row_twice(store, tmp_path):
    class StopError(BaseException):
        pass

    asked = []

    def failing(architecture):
        asked.append(architecture)
        if len(asked) in (4, 9):
            raise StopError
        return worth(architecture)

    for _ in range(2):
        with pytest.raises(StopError):
            searched(store, tmp_path, failing)
    _, trajectory = searched(store, tmp_path, failing)
    before = trajectory.frame()
    assert not before.duplicated(["strategy", "index"]).any()
    assert len(before) == 20
    _, again = searched(store, tmp_path, failing)
    pd.testing.assert_frame_equal(again.frame(), before)
    pd.testing.assert_frame_equal(trajectories(store), before)


def cut(path, lines):
    """Take the last lines off a log."""
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-lines]))


def test_rows_that_a_kill_left_unwritten_are_added_without_their_times(store, tmp_path):
    _, trajectory = searched(store, tmp_path)
    before = trajectory.frame()
    with store.database.writing() as connection:
        connection.exec_driver_sql("DELETE FROM evaluations WHERE id > 17")

    def unasked(_):
        raise AssertionError("was evaluated again")

    _, again = searched(store, tmp_path, unasked)
    found = again.frame()
    assert found.seconds[17:].isna().all() and found.seconds[:17].notna().all()
    rest = [name for name in before if name != "seconds"]
    pd.testing.assert_frame_equal(found[rest], before[rest])


def test_long_evaluations_are_saved_as_they_come(store, tmp_path):
    trajectory = Trajectory(store, SearchLog(tmp_path / "log", {}))
    lengths = []
    for index, seconds in enumerate((0.4, 0.4, 0.4, 0.4, 30.0)):
        trajectory.add(
            "random", index, Architecture((index,)), seed=0, predicted_ms=1.0, accuracy=0.5,
            seconds=seconds,
        )  # fmt: skip
        lengths.append(len(trajectories(store)))
    assert lengths == [0, 0, 3, 3, 5]
    assert trajectory.seconds("random") == pytest.approx(31.6)


def test_other_searches_have_rows_of_their_own(store, tmp_path):
    names = [
        searched(store, tmp_path / folder, seed=seed)[1].search
        for folder, seed in (("a", 5), ("a2", 5), ("b", 6))
    ]
    frame = trajectories(store)
    assert frame.groupby("search", sort=False).size().to_dict() == dict.fromkeys(names, 20)


def test_a_search_whose_log_was_deleted_begins_anew(store, tmp_path):
    log, first = searched(store, tmp_path)
    log.path.unlink()
    _, second = searched(store, tmp_path, lambda architecture: worth(architecture) / 2)
    assert second.search == f"{first.search}#2"
    assert (second.frame().accuracy == first.frame().accuracy / 2).all()
    assert len(trajectories(store)) == 40
    _, third = searched(store, tmp_path)
    assert third.search == second.search, "the last one is gone on with"


def test_a_log_that_rows_do_not_agree_with_begins_anew(store, tmp_path):
    log, first = searched(store, tmp_path)
    cut(log.path, 2)
    _, second = searched(store, tmp_path)
    assert second.search != first.search
    frame = second.frame()
    assert len(frame) == 20
    assert frame.seconds[:18].isna().all(), "what an earlier run took is not known"


def test_what_finalists_measured_is_added_later(store, tmp_path):
    _, trajectory = searched(store, tmp_path)
    frame = trajectory.frame()
    evaluated = Architecture.from_key(frame.architecture[3])
    scaled = Architecture(evaluated.choices, (8, 16))
    for measured_ms in (1.5, 1.25):
        trajectory.add_finalist("random", evaluated, predicted_ms=1.0, measured_ms=measured_ms)
    trajectory.add_finalist("random", scaled, predicted_ms=0.5, measured_ms=0.75, accuracy=0.5)
    found = trajectory.frame()
    same = found.architecture[:20] == evaluated.key
    assert (found.measured_ms[:20][same] == 1.25).all()
    assert found.measured_ms[:20][~same].isna().all()
    assert len(found) == 21
    last = found.iloc[-1]
    assert (last.architecture, last.measured_ms, last.accuracy) == (scaled.key, 0.75, 0.5)
    assert last.strategy == "random" and last.predicted_ms == 0.5
    assert pd.isna(last["index"]) and pd.isna(last.seed) and pd.isna(last.seconds)
    pd.testing.assert_frame_equal(found[COLUMNS[:6]][:20], frame[COLUMNS[:6]])


def test_an_empty_trajectory_has_columns(store, tmp_path):
    log = SearchLog(tmp_path / "log", {})
    assert Trajectory(store, log).frame().columns.tolist() == COLUMNS
    assert trajectories(store).empty


def test_a_changed_row_is_damage(tmp_path):
    with Store(tmp_path / "store.sqlite") as store:
        searched(store, tmp_path)
    with sqlite3.connect(tmp_path / "store.sqlite") as raw:
        raw.execute("UPDATE evaluations SET accuracy = 1.0 WHERE number = 3")
    raw.close()
    with Store(tmp_path / "store.sqlite") as store:
        with pytest.raises(DamagedFileError, match="checksum"):
            trajectories(store)
        with pytest.raises(DamagedFileError, match="checksum"):
            searched(store, tmp_path)


def test_a_store_of_an_older_version_takes_trajectories(tmp_path):
    Store(tmp_path / "store.sqlite").close()
    with sqlite3.connect(tmp_path / "store.sqlite") as raw:
        for table in ("evaluations", "finalists", "searches"):
            raw.execute(f"DROP TABLE {table}")
        raw.execute("UPDATE meta SET version = 3")
    raw.close()
    with Store(tmp_path / "store.sqlite") as store:
        assert len(searched(store, tmp_path)[1].frame()) == 20
