import numpy as np
import pytest
from latkit.devices.errors import UsageError
from latkit.search.pareto import hypervolume
from latkit.search.strategies.bayesian import Bayesian, _Front, expected_improvement
from latkit.search.strategies.random_search import RandomSearch
from strategy_cases import COST, SPACE, TARGET, accuracy_of


def run(strategy, count=16):
    while not strategy.done:
        asked = strategy.ask(count)
        strategy.tell(
            asked, [accuracy_of(item) for item in asked], COST.latency_ms(SPACE.encode(asked))
        )
    return strategy


def covered(strategy):
    found = strategy.evaluations
    accuracy, latency_ms = ([getattr(e, k) for e in found] for k in ("accuracy", "latency_ms"))
    return hypervolume(latency_ms, accuracy, (COST.maximum()[0], 0.0))


def test_finds_better_architectures_than_random_search_with_five_times_the_evaluations():
    for seed in range(3):
        found = run(Bayesian(SPACE, COST, TARGET, budget=80, seed=seed)).best()
        random = run(RandomSearch(SPACE, COST, TARGET, budget=400, seed=seed)).best()
        assert accuracy_of(found) > accuracy_of(random)


def test_its_front_covers_more_than_random_search_with_five_times_the_evaluations():
    for seed in range(3):
        found = run(Bayesian(SPACE, COST, budget=80, seed=seed))
        assert covered(found) > covered(run(RandomSearch(SPACE, COST, None, 400, seed=seed)))


def test_what_it_asks_does_not_depend_on_how_many_are_asked_at_a_time():
    one, many = (run(Bayesian(SPACE, COST, TARGET, budget=60), count) for count in (1, 60))
    assert one.evaluations == many.evaluations


def test_longer_search_begins_as_a_shorter_one():
    short, long = (run(Bayesian(SPACE, COST, TARGET, budget=budget)) for budget in (40, 80))
    assert long.evaluations[:40] == short.evaluations


def test_equal_accuracies_and_latencies_are_no_trouble():
    strategy = Bayesian(SPACE, COST, budget=50)
    while not strategy.done:
        asked = strategy.ask(10)
        strategy.tell(asked, [0.5] * len(asked), [1.0] * len(asked))
    assert len(strategy.evaluations) == 50


def test_expected_improvement_is_the_mean_of_what_exceeds_the_level():
    normal = np.random.default_rng(0).normal(size=1_000_000)
    for mean, deviation, level in ((0.0, 1.0, 0.5), (2.0, 0.3, 0.0), (-1.0, 0.5, 0.2)):
        drawn = np.maximum(mean + deviation * normal - level, 0).mean()
        got = expected_improvement(np.array([mean]), np.array([deviation]), level)[0]
        assert got == pytest.approx(drawn, abs=2e-3)


def test_expected_gain_of_the_front_is_the_mean_gain_in_hypervolume():
    random = np.random.default_rng(1)
    latency_ms, worth = random.random(30) * 10, random.random(30)
    front = _Front(latency_ms, worth, 12.0)
    before = hypervolume(latency_ms, worth, (12.0, front.floor))
    for at, mean, deviation in ((0.1, 0.5, 0.2), (5.0, 0.9, 0.1), (9.5, 0.7, 0.3)):
        gains = [
            hypervolume([*latency_ms, at], [*worth, value], (12.0, front.floor)) - before
            for value in mean + deviation * random.normal(size=4000)
        ]
        got = front.expected_gain(np.array([at]), np.array([mean]), np.array([deviation]))[0]
        assert got == pytest.approx(np.mean(gains), abs=4 * np.std(gains) / np.sqrt(4000) + 1e-9)


def test_front_with_one_more_is_the_front_of_all():
    random = np.random.default_rng(2)
    latency_ms, worth = random.integers(1, 9, 40) / 2, random.integers(0, 9, 40) / 9
    front = _Front(latency_ms[:5], worth[:5], 5.0)
    for at, value in zip(latency_ms[5:], worth[5:], strict=True):
        front.add(float(at), float(value))
    whole = _Front(latency_ms, worth, 5.0)
    assert front.latency_ms.tolist() == whole.latency_ms.tolist()
    assert front.worth.tolist() == whole.worth.tolist() and front.highest == whole.highest


@pytest.mark.parametrize("wrong", [{"first": 1}, {"budget": 0}])
def test_impossible_sizes_are_refused(wrong):
    with pytest.raises(UsageError):
        Bayesian(SPACE, COST, TARGET, **wrong)
