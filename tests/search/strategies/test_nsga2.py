import numpy as np
import pytest
from latkit.devices.errors import UsageError
from latkit.search.pareto import hypervolume
from latkit.search.strategies.nsga2 import Nsga2
from latkit.search.strategies.random_search import RandomSearch
from strategy_cases import COST, SPACE, accuracy_of


def run(strategy):
    while not strategy.done:
        asked = strategy.ask(7)
        strategy.tell(
            asked, [accuracy_of(item) for item in asked], COST.latency_ms(SPACE.encode(asked))
        )
    return strategy


def covered(strategy):
    found = strategy.evaluations
    accuracy, latency_ms = ([getattr(e, k) for e in found] for k in ("accuracy", "latency_ms"))
    return hypervolume(latency_ms, accuracy, (COST.maximum()[0], 0.0))


def test_its_front_covers_more_than_random_search_with_as_many_evaluations():
    for seed in range(3):
        found = run(Nsga2(SPACE, COST, budget=300, population=30, seed=seed))
        random = run(RandomSearch(SPACE, COST, None, budget=300, seed=seed))
        assert covered(found) > covered(random)


def test_front_is_what_no_evaluation_beats():
    strategy = run(Nsga2(SPACE, COST, budget=100, population=20))
    front = strategy.front()
    assert len(front) > 2
    for item in strategy.evaluations:
        assert any(e.accuracy >= item.accuracy and e.latency_ms <= item.latency_ms for e in front)


def test_survivors_are_whole_fronts_and_then_the_least_crowded():
    strategy = run(Nsga2(SPACE, COST, budget=60, population=20))
    strategy._select()
    ranks, _ = strategy._fitness(range(60))
    best = set(np.flatnonzero(ranks == 0).tolist())
    kept = set(strategy._members)
    assert len(kept) == 20
    assert best <= kept or kept <= best


@pytest.mark.parametrize("wrong", [{"population": 1}, {"budget": 0}])
def test_impossible_sizes_are_refused(wrong):
    with pytest.raises(UsageError):
        Nsga2(SPACE, COST, **wrong)
