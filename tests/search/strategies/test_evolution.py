import numpy as np
import pytest
from latkit.devices.errors import UsageError
from latkit.search.strategies.evolution import Evolution
from latkit.search.strategies.random_search import RandomSearch
from strategy_cases import COST, SPACE, TARGET, accuracy_of


def generations(strategy):
    """Run to the end; the architectures of each round."""
    rounds = []
    while not strategy.done:
        asked = strategy.ask(1000)
        if asked:
            latency_ms = COST.latency_ms(SPACE.encode(asked))
            strategy.tell(asked, [accuracy_of(item) for item in asked], latency_ms.tolist())
            rounds.append(asked)
    return rounds


def test_defaults_are_the_papers():
    strategy = Evolution(SPACE, COST, TARGET)
    assert (strategy.population, strategy.rounds, strategy.parents) == (50, 20, 10)
    assert (strategy.mutations, strategy.crossovers) == (25, 25)
    assert strategy.mutation_probability == 0.1


def test_each_round_has_the_population_and_later_ones_are_better():
    rounds = generations(Evolution(SPACE, COST, TARGET, population=20, rounds=8))
    assert [len(asked) for asked in rounds] == [20] * 8
    means = [np.mean([accuracy_of(item) for item in asked]) for asked in rounds]
    assert means[-1] > means[0] + 2 * np.std([accuracy_of(item) for item in rounds[0]])


def test_finds_better_architectures_than_random_search_of_the_same_budget():
    differences = []
    for seed in range(5):
        evolution = Evolution(SPACE, COST, TARGET, population=20, rounds=10, seed=seed)
        random = RandomSearch(SPACE, COST, TARGET, budget=200, seed=seed)
        generations(evolution), generations(random)
        differences.append(accuracy_of(evolution.best()) - accuracy_of(random.best()))
    assert min(differences) > 0


def test_mutants_without_mutation_are_all_visited_and_replaced_by_random_ones():
    strategy = Evolution(
        SPACE, COST, TARGET, population=10, rounds=2, mutations=10, crossovers=0,
        mutation_probability=0.0,
    )  # fmt: skip
    first, second = generations(strategy)
    assert len(second) == 10 and not set(first) & set(second)


def test_children_take_each_choice_from_one_of_the_best():
    strategy = Evolution(
        SPACE, COST, COST.maximum()[0], population=40, rounds=2, parents=2, mutations=0,
        crossovers=8,
    )  # fmt: skip
    first, second = generations(strategy)
    mother, father = sorted(first, key=accuracy_of)[-2:]
    descended = [
        child
        for child in second
        if any(
            SPACE.canonical(choices) == child.choices
            for choices in _mixtures(mother.choices, father.choices)
        )
    ]
    assert len(descended) >= 8


def _mixtures(left, right):
    mixed = [()]
    for pair in zip(left, right, strict=True):
        mixed = [(*head, choice) for head in mixed for choice in sorted(set(pair))]
    return mixed


def test_next_round_waits_for_the_whole_population():
    strategy = Evolution(SPACE, COST, TARGET, population=10, rounds=3)
    asked = strategy.ask(10)
    strategy.tell(asked[:9], [0.5] * 9, [1.0] * 9)
    assert strategy.ask(10) == []
    strategy.tell(asked[9:], [0.5], [1.0])
    assert len(strategy.ask(10)) == 10


@pytest.mark.parametrize(
    "wrong", [{"population": 0}, {"rounds": 0}, {"parents": 0}, {"mutations": 40}]
)
def test_impossible_sizes_are_refused(wrong):
    with pytest.raises(UsageError):
        Evolution(SPACE, COST, TARGET, **wrong)
