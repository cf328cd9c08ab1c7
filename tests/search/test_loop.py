"""The search loop: what is evaluated, what is not evaluated again, and where it stops."""

import math
from pathlib import Path

import numpy as np
import pytest
from latkit.devices.errors import LatkitError, UnreachableTargetError, UsageError
from latkit.latency.cost import CostModel, Factor
from latkit.latency.store import Store
from latkit.search.choices import Choice
from latkit.search.log import SearchLog, read_log
from latkit.search.loop import Budget, run_strategy
from latkit.search.space import SearchSpace
from latkit.search.strategies.evolution import Evolution
from latkit.search.strategies.random_search import RandomSearch
from latkit.search.strategies.reinforce import Reinforce
from latkit.search.trajectory import Trajectory

SPACE = SearchSpace("small", [Choice(name, (1, 2, 3, 4)) for name in "abcd"], [])
COST = CostModel(
    SPACE.option_counts,
    [Factor((position,), np.arange(1.0, 5.0)) for position in range(4)],
    describe=SPACE.describe,
)


def worth(architecture):
    return sum(architecture.choices) / 12


class Counted:
    """An evaluator that counts, and takes the seconds that it is told to by a clock of its own."""

    def __init__(self, failing_at=None, clock=None, error=None):
        self.asked = []
        self.failing_at = failing_at
        self.error = error or RuntimeError("out of memory")
        self.clock = clock

    def __call__(self, architecture):
        if len(self.asked) == self.failing_at:
            raise self.error
        self.asked.append(architecture)
        if self.clock is not None:
            self.clock.now += 10.0
        return worth(architecture)


def evolution(**options):
    settings = {"population": 10, "rounds": 4, "parents": 3, "seed": 2} | options
    return Evolution(SPACE, COST, 12.0, **settings)


def log_in(folder):
    return SearchLog(Path(folder) / "search.jsonl", {"seed": 2})


def test_every_evaluation_is_made_once_and_logged(tmp_path):
    counted, seen = Counted(), []
    log = log_in(tmp_path)
    count = run_strategy(evolution(), COST, counted, log, progress=seen.append)
    assert count == len(counted.asked) == len(set(counted.asked)) == 40
    assert [entry.architecture for entry in log.entries()] == [
        architecture.choices for architecture in counted.asked
    ]
    assert seen == list(range(1, 41))


def test_a_run_that_ended_is_answered_from_its_log(tmp_path):
    run_strategy(evolution(), COST, Counted(), log_in(tmp_path))
    before = (tmp_path / "search.jsonl").read_bytes()
    counted = Counted()
    assert run_strategy(evolution(), COST, counted, log_in(tmp_path)) == 40
    assert counted.asked == []
    assert (tmp_path / "search.jsonl").read_bytes() == before


def reinforce():
    return Reinforce(SPACE, 10.0, steps=200, learning_rate=0.1, delay=0.0, seed=1)


def test_a_repeated_architecture_is_not_evaluated_twice(tmp_path):
    counted = Counted()
    strategy, log = reinforce(), log_in(tmp_path)
    count = run_strategy(strategy, COST, counted, log)
    assert len(log.entries()) == len(strategy.evaluations) == 200
    assert count == len(counted.asked) == len(set(counted.asked)) < 150


def test_what_one_strategy_asked_for_is_not_evaluated_for_the_next(tmp_path):
    counted, log = Counted(), log_in(tmp_path)
    first = run_strategy(evolution(), COST, counted, log)
    random = RandomSearch(SPACE, COST, 12.0, budget=100, seed=3)
    assert run_strategy(random, COST, counted, log) == 100, "they count as its own all the same"
    assert first < len(counted.asked) == len(set(counted.asked)) < first + 100


# --- budgets


def test_a_budget_counts_architectures_and_repeats_are_free(tmp_path):
    counted = Counted()
    strategy, log = reinforce(), log_in(tmp_path)
    assert run_strategy(strategy, COST, counted, log, budget=Budget(evaluations=30)) == 30
    assert len(set(counted.asked)) == len(counted.asked) == 30
    assert len(strategy.evaluations) == len(log.entries()) > 30
    again = reinforce()
    count = run_strategy(again, COST, counted, log_in(tmp_path), budget=Budget(evaluations=30))
    assert count == len(counted.asked) == 30
    assert again.state() == strategy.state()


def test_a_strategy_that_was_stopped_has_been_told_of_all_that_was_evaluated(tmp_path):
    strategy = evolution()
    run_strategy(strategy, COST, Counted(), log_in(tmp_path), budget=Budget(evaluations=13))
    assert len(strategy.evaluations) == 13
    assert worth(strategy.best()) == max(worth(item.architecture) for item in strategy.evaluations)


class Clock:
    now = 0.0

    def perf_counter(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    found = Clock()
    monkeypatch.setattr("latkit.search.loop.time.perf_counter", found.perf_counter)
    return found


def timed(folder, counted, seconds, **options):
    """One run of two strategies with a budget of time, into the folder's log and store."""
    log = log_in(folder)
    with Store(folder / "store.sqlite") as store:
        trajectory = Trajectory(store, log)
        strategies = [evolution(**options), RandomSearch(SPACE, COST, 12.0, budget=9, seed=3)]
        for strategy in strategies:
            run_strategy(
                strategy, COST, counted, log, budget=Budget(seconds=seconds), trajectory=trajectory
            )
        return strategies, trajectory.frame()


def test_a_budget_of_time_ends_with_the_evaluation_that_exceeds_it(tmp_path, clock):
    counted = Counted(clock=clock)
    (first, _), frame = timed(tmp_path, counted, 95.0)
    assert len(first.evaluations) == 10
    assert frame.seconds[frame.strategy == "evolution"].tolist() == [10.0] * 10


def test_a_budget_of_time_holds_over_runs_that_broke_off(tmp_path, clock):
    (tmp_path / "one").mkdir(), (tmp_path / "other").mkdir()
    timed(tmp_path / "one", Counted(clock=clock), 95.0)
    expected = (tmp_path / "one" / "search.jsonl").read_bytes()
    total = 0
    for stop in (0, 3, 1, 4, 5, None):
        counted = Counted(clock=clock, failing_at=stop, error=KeyboardInterrupt())
        if stop is None:
            timed(tmp_path / "other", counted, 95.0)
        else:
            with pytest.raises(KeyboardInterrupt):
                timed(tmp_path / "other", counted, 95.0)
        total += len(counted.asked)
    assert (tmp_path / "other" / "search.jsonl").read_bytes() == expected
    counted = Counted()
    _, frame = timed(tmp_path / "other", counted, 95.0)
    assert counted.asked == []
    assert len(frame) == len(read_log(tmp_path / "one" / "search.jsonl")[1])
    assert total == (frame.seconds > 0).sum()


def test_an_earlier_runs_end_stands_even_where_its_times_were_lost(tmp_path, clock):
    timed(tmp_path, Counted(clock=clock), 95.0)
    before = (tmp_path / "search.jsonl").read_bytes()
    (tmp_path / "store.sqlite").unlink()
    counted = Counted(clock=clock)
    (first, _), frame = timed(tmp_path, counted, 95.0)
    assert len(first.evaluations) == 10 and counted.asked == []
    assert (tmp_path / "search.jsonl").read_bytes() == before
    assert frame.seconds[frame.strategy == "evolution"].isna().all()


def test_more_time_goes_on_where_less_had_ended(tmp_path, clock):
    log = log_in(tmp_path)
    with Store(tmp_path / "store.sqlite") as store:
        for seconds, expected in ((45.0, 5), (95.0, 10), (10_000.0, 40)):
            strategy, log, counted = evolution(), log_in(tmp_path), Counted(clock=clock)
            budget = Budget(seconds=seconds)
            run_strategy(
                strategy, COST, counted, log, budget=budget, trajectory=Trajectory(store, log)
            )
            assert len(strategy.evaluations) == expected


def test_a_budget_of_time_without_a_trajectory_is_refused(tmp_path):
    with pytest.raises(UsageError, match="needs a trajectory"):
        run_strategy(evolution(), COST, worth, log_in(tmp_path), budget=Budget(seconds=1.0))


@pytest.mark.parametrize("budget", [{"evaluations": 0}, {"seconds": 0.0}, {"seconds": math.nan}])
def test_a_budget_of_nothing_is_refused(budget):
    with pytest.raises(UsageError, match="a budget is"):
        Budget(**budget)


# --- what goes wrong


def test_an_evaluator_that_raises_loses_nothing_that_was_found(tmp_path):
    log, strategy = log_in(tmp_path), evolution()
    with Store(tmp_path / "store.sqlite") as store:
        trajectory = Trajectory(store, log)
        with pytest.raises(LatkitError, match=r"a \d, b \d, c \d, d \d.*out of memory") as caught:
            run_strategy(strategy, COST, Counted(failing_at=17), log, trajectory=trajectory)
        assert isinstance(caught.value.__cause__, RuntimeError)
        assert len(trajectory.frame()) == 17
    assert len(read_log(log.path)[1]) == len(strategy.evaluations) == 17
    assert worth(strategy.best()) > 0
    counted = Counted()
    assert run_strategy(evolution(), COST, counted, log_in(tmp_path)) == 40
    assert len(counted.asked) == 23
    run_strategy(evolution(), COST, Counted(), log_in(tmp_path / "whole"))
    assert log.path.read_bytes() == (tmp_path / "whole" / "search.jsonl").read_bytes()


@pytest.mark.parametrize("accuracy", [math.nan, math.inf, -0.5, 72.0, None])
def test_what_is_no_accuracy_stops_the_search_and_is_not_logged(tmp_path, accuracy):
    log = log_in(tmp_path)
    with pytest.raises(LatkitError, match=r"a \d, b \d, c \d, d \d"):
        run_strategy(evolution(), COST, lambda _: accuracy, log)
    assert log.entries() == []


def test_an_interrupt_passes(tmp_path):
    counted = Counted(failing_at=3, error=KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        run_strategy(evolution(), COST, counted, log_in(tmp_path))
    assert len(read_log(tmp_path / "search.jsonl")[1]) == 3


@pytest.mark.parametrize("strategy", [Evolution, RandomSearch])
def test_an_unreachable_target_ends_before_any_evaluation(tmp_path, strategy):
    counted = Counted()
    with pytest.raises(UnreachableTargetError, match="smallest reachable latency is 4 ms"):
        run_strategy(strategy(SPACE, COST, 3.9), COST, counted, log_in(tmp_path))
    assert counted.asked == []
    assert not (tmp_path / "search.jsonl").exists()


def test_a_full_disk_is_named_and_what_was_found_is_told(tmp_path):
    path = tmp_path / "search.jsonl"
    path.symlink_to("/dev/full")
    with pytest.raises(LatkitError, match="No space left on device"):
        SearchLog(path, {})
    path.unlink()
    log, strategy = log_in(tmp_path), evolution()
    counted = Counted()

    def filling(architecture):
        if len(counted.asked) == 5:
            path.rename(tmp_path / "kept")
            path.symlink_to("/dev/full")
        return counted(architecture)

    with pytest.raises(LatkitError, match="No space left on device"):
        run_strategy(strategy, COST, filling, log)
    assert len(log.entries()) == len(strategy.evaluations) == 5
    path.unlink()
    (tmp_path / "kept").rename(path)
    again = Counted()
    assert run_strategy(evolution(), COST, again, log_in(tmp_path)) == 40
    assert len(again.asked) == 35
