import numpy as np
import pytest
from latkit.devices.errors import UsageError
from latkit.search.strategies.regularised_evolution import RegularisedEvolution
from strategy_cases import COST, SPACE, TARGET, accuracy_of


def run(strategy, count=1):
    while not strategy.done:
        asked = strategy.ask(count)
        strategy.tell(
            asked, [accuracy_of(item) for item in asked], COST.latency_ms(SPACE.encode(asked))
        )
    return strategy


def test_defaults_are_the_papers_and_shrink_with_the_budget():
    paper = RegularisedEvolution(SPACE, COST, TARGET)
    assert (paper.budget, paper.population, paper.sample) == (1000, 100, 25)
    small = RegularisedEvolution(SPACE, COST, TARGET, budget=300)
    assert (small.population, small.sample) == (30, 8)


def test_children_differ_from_a_living_parent_in_one_choice():
    strategy = run(RegularisedEvolution(SPACE, COST, TARGET, budget=60, population=12, sample=4))
    choices = np.array([item.choices for item in strategy.evaluations])
    found = 0
    for number in range(12, 60):
        living = choices[number - 12 : number]
        found += any(
            SPACE.canonical([*parent[:p], option, *parent[p + 1 :]]) == tuple(choices[number])
            for parent in living.tolist()
            for p, count in enumerate(SPACE.option_counts)
            for option in range(count)
        )
    assert found == 48


def test_sample_of_the_whole_population_takes_its_best_alone():
    strategy = RegularisedEvolution(SPACE, COST, TARGET, budget=20, population=10, sample=10)
    asked = strategy.ask(10)
    strategy.tell(asked, [accuracy_of(a) for a in asked], COST.latency_ms(SPACE.encode(asked)))
    best = np.array(max(asked, key=accuracy_of).choices)
    assert ((strategy._children(200) != best).sum(axis=1) == 1).all()


def test_first_children_wait_for_the_whole_population():
    strategy = RegularisedEvolution(SPACE, COST, TARGET, budget=40, population=10)
    asked = strategy.ask(40)
    assert len(asked) == 10 and strategy.ask(1) == []


def test_later_ones_are_better():
    strategy = run(RegularisedEvolution(SPACE, COST, TARGET, budget=200, population=20), 4)
    accuracy = [item.accuracy for item in strategy.evaluations]
    assert np.mean(accuracy[-20:]) > np.mean(accuracy[:20]) + 2 * np.std(accuracy[:20])


@pytest.mark.parametrize(
    "wrong", [{"population": 0}, {"budget": 0}, {"population": 4, "sample": 5}]
)
def test_impossible_sizes_are_refused(wrong):
    with pytest.raises(UsageError):
        RegularisedEvolution(SPACE, COST, TARGET, **wrong)
