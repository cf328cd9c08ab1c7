import math

import numpy as np
import pytest
from latkit.devices.errors import UsageError
from latkit.latency.cost import lay_out
from latkit.latency.network import block_graph
from latkit.latency.ops import multiply_adds
from latkit.search.spaces import bignas
from latkit.search.spaces.mobile import mobile_space
from latkit.search.strategies.coarse_to_fine import CoarseToFine
from latkit.search.strategies.random_search import RandomSearch


def flops(block):
    return multiply_adds(block_graph(block)) / 1e6


SPACE = bignas(10)
COST = lay_out(SPACE, flops)
TARGET = 0.5 * (COST.minimum()[0] + COST.maximum()[0])
WORTH = [np.random.default_rng([9, count]).random(count) for count in SPACE.option_counts]


def accuracy_of(architecture):
    """Additive over choices, so that changes of single ones add up."""
    pairs = zip(WORTH, architecture.choices, strict=True)
    return float(np.mean([worth[choice] for worth, choice in pairs]))


def run(strategy, cost=COST, accuracy=accuracy_of):
    """Run to the end; the architectures of each request."""
    rounds = []
    while not strategy.done:
        asked = strategy.ask(1000)
        if asked:
            latency_ms = cost.latency_ms(strategy.space.encode(asked)).tolist()
            strategy.tell(asked, [accuracy(item) for item in asked], latency_ms)
            rounds.append(asked)
    return rounds


def without(position, architecture):
    return (*architecture.choices[:position], *architecture.choices[position + 1 :])


def options_of(kind, point):
    return [
        index / (len(choice.options) - 1)
        for choice, index in zip(SPACE.choices, point, strict=True)
        if choice.kind == kind
    ]


def test_the_grid_is_the_papers_and_goes_from_the_smallest_to_the_largest():
    grid = CoarseToFine(SPACE, COST, TARGET).grid()
    assert len(grid) == len(set(grid)) == 5 * 4 * 2 * 4
    assert grid[0] == tuple(0 for _ in SPACE.choices)
    assert grid[-1] == tuple(count - 1 for count in SPACE.option_counts)
    assert {tuple(options_of("width", point)) for point in grid} == {
        (0.0,) * 9, (1.0,) * 9,
    }  # fmt: skip


def test_between_the_levels_later_stages_take_the_larger_kernels():
    grid = CoarseToFine(SPACE, COST, TARGET).grid()
    kernels = sorted({tuple(options_of("operation", point)) for point in grid})
    assert len(kernels) == 4
    assert all(list(level) == sorted(level) for level in kernels)
    assert [sum(level) for level in kernels] == [0, 2, 3, 5]


def test_first_the_grid_within_the_target_then_one_choice_at_a_time():
    strategy = CoarseToFine(SPACE, COST, TARGET)
    coarse, *fine = run(strategy)
    grid = strategy.grid()
    latency_ms = COST.latency_ms(np.array(grid))
    inside = {point for point, cost in zip(grid, latency_ms, strict=True) if cost <= TARGET}
    assert {item.choices for item in coarse} == inside
    assert 0 < len(inside) < len(grid)
    told = list(coarse)
    for number, asked in enumerate(fine):
        parents = [max(told, key=accuracy_of)] if number == 0 else told
        changed = {
            position
            for position in range(len(SPACE.choices))
            if all(
                any(without(position, other) == without(position, parent) for parent in parents)
                for other in asked
            )
        }
        assert changed and len({item.choices for item in asked}) == len(asked)
        told += asked
    assert fine and all(COST.latency_ms(SPACE.encode(told)) <= TARGET)


def test_no_single_choice_makes_the_best_one_better():
    strategy = CoarseToFine(SPACE, COST, TARGET)
    coarse, *_ = run(strategy)
    best = strategy.best()
    assert accuracy_of(best) > max(map(accuracy_of, coarse))
    for position, count in enumerate(SPACE.option_counts):
        for option in range(count):
            other = SPACE.architecture(
                [*best.choices[:position], option, *best.choices[position + 1 :]]
            )
            fits = COST.latency_ms(SPACE.encode([other]))[0] <= TARGET
            assert not fits or accuracy_of(other) <= accuracy_of(best)


def test_finds_better_architectures_than_random_search_of_the_same_budget():
    strategy = CoarseToFine(SPACE, COST, TARGET)
    run(strategy)
    count = len(strategy.evaluations)
    for seed in range(3):
        random = RandomSearch(SPACE, COST, TARGET, budget=count, seed=seed)
        run(random)
        assert accuracy_of(strategy.best()) > accuracy_of(random.best())


@pytest.mark.parametrize("budget", [1, 40, 170])
def test_budget_bounds_grid_and_refinement(budget):
    strategy = CoarseToFine(SPACE, COST, TARGET, budget=budget)
    run(strategy)
    inside = COST.latency_ms(np.array(strategy.grid())) <= TARGET
    assert len(strategy.evaluations) <= budget
    assert len(strategy.evaluations) >= min(budget, inside.sum())


def test_a_grid_without_a_point_in_the_target_starts_from_the_fastest():
    """The grid is only at full resolution and width, which are above the target."""
    target = COST.minimum()[0] * 1.01
    strategy = CoarseToFine(SPACE, COST, target, resolutions=1, widths=1, budget=50)
    first, *_ = run(strategy)
    assert [item.choices for item in first] == [COST.minimum()[1]]


def test_a_space_of_layers_that_may_be_skipped_is_searched_too():
    space = mobile_space()
    cost = lay_out(space, flops)
    target = 0.5 * (cost.minimum()[0] + cost.maximum()[0])
    strategy = CoarseToFine(space, cost, target)
    assert len(strategy.grid()) > 4
    run(strategy, cost, lambda item: float(np.mean(item.choices)))
    latency_ms = cost.latency_ms(space.encode([strategy.best()]))[0]
    assert math.isfinite(latency_ms) and latency_ms <= target


def test_next_perturbation_waits_for_the_whole_one_before():
    strategy = CoarseToFine(SPACE, COST, TARGET)
    asked = strategy.ask(1000)
    strategy.tell(asked[:-1], [0.5] * (len(asked) - 1), [1.0] * (len(asked) - 1))
    assert strategy.ask(10) == []
    strategy.tell(asked[-1:], [0.5], [1.0])
    assert strategy.ask(10)


@pytest.mark.parametrize(
    "wrong",
    [{name: 0} for name in ("resolutions", "depths", "widths", "operations", "budget")],
)
def test_impossible_levels_are_refused(wrong):
    with pytest.raises(UsageError):
        CoarseToFine(SPACE, COST, TARGET, **wrong)
