"""Several costs as one: means are sums, the worst is bounded and searched."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from latkit.devices.errors import UnreachableTargetError, UsageError
from latkit.latency.combined import WorstCost, mean_cost
from latkit.latency.cost import CostModel, Factor
from latkit.latency.pricing import FunctionCost

COUNTS = (3, 2, 4, 3)
EVERY = np.array(list(itertools.product(*map(range, COUNTS))))
SCOPES = ((0, 1), (1, 2), (3,), (2, 3))


def random_cost(seed, scopes=SCOPES):
    random = np.random.default_rng(seed)
    factors = [Factor(scope, random.random([COUNTS[p] for p in scope])) for scope in scopes]
    return CostModel(COUNTS, factors, 0.5)


def called(cost):
    return FunctionCost(COUNTS, cost.of)


def test_mean_is_that_of_the_costs_and_laid_out_over_the_same_choices():
    costs = [random_cost(seed) for seed in range(3)]
    mean = mean_cost(costs)
    expected = np.mean([cost.latency_ms(EVERY) for cost in costs], axis=0)
    np.testing.assert_allclose(mean.latency_ms(EVERY), expected, rtol=1e-12)
    assert mean.is_additive and len(mean.factors) == len(SCOPES)
    assert mean.minimum()[0] == pytest.approx(expected.min())
    uniform = [np.full(count, 1 / count) for count in COUNTS]
    assert mean.expected(uniform) == pytest.approx(expected.mean())


def test_mean_with_a_called_cost_is_called():
    costs = [random_cost(0), called(random_cost(1))]
    mean = mean_cost(costs)
    expected = (costs[0].latency_ms(EVERY) + costs[1].latency_ms(EVERY)) / 2
    np.testing.assert_allclose(mean.latency_ms(EVERY), expected, rtol=1e-12)
    assert not mean.is_additive


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 4))
def test_worst_is_the_largest_and_its_bound_holds(seed, count):
    costs = [random_cost(seed + number) for number in range(count)]
    worst = WorstCost(costs)
    expected = np.max([cost.latency_ms(EVERY) for cost in costs], axis=0)
    np.testing.assert_allclose(worst.latency_ms(EVERY), expected, rtol=1e-12)
    smallest, choices = worst.minimum()
    assert worst.bound.value <= expected.min() * (1 + 1e-9)
    assert expected.min() * (1 - 1e-12) <= smallest == worst.of(choices)
    assert worst.maximum()[0] == pytest.approx(expected.max())


def test_bound_is_the_best_that_any_weights_give():
    costs = [random_cost(5), random_cost(6)]
    each = np.array([cost.latency_ms(EVERY) for cost in costs])
    best = max((share * each[0] + (1 - share) * each[1]).min() for share in np.linspace(0, 1, 2001))
    assert WorstCost(costs).bound.value == pytest.approx(best, abs=1e-4)
    assert WorstCost(costs).bound.value >= best - 1e-12


def test_one_cost_is_its_own_worst_and_exact():
    worst = WorstCost([random_cost(1)])
    assert worst.minimum()[0] == pytest.approx(random_cost(1).minimum()[0])
    with pytest.raises(UnreachableTargetError) as caught:
        worst.require_reachable(0.99 * worst.minimum()[0])
    assert "search" not in str(caught.value)


def test_refusal_names_the_best_found_and_what_is_proven():
    for seed in range(50):
        worst = WorstCost([random_cost(seed), random_cost(seed + 50)])
        if worst.minimum()[0] > worst.bound.value * 1.01:
            break
    with pytest.raises(UnreachableTargetError) as caught:
        worst.require_reachable(0.9 * worst.bound.value)
    assert f"none is below {worst.bound.value:.6g} ms is proven" in str(caught.value)
    assert f"{worst.minimum()[0]:.6g} ms" in str(caught.value)


def test_called_costs_have_no_bound():
    worst = WorstCost([called(random_cost(1)), called(random_cost(2))])
    assert worst.bound.value == -np.inf
    with pytest.raises(UnreachableTargetError, match="smallest of a search"):
        worst.require_reachable(0.1)


def test_worst_of_worsts_is_the_worst_of_all():
    costs = [random_cost(seed) for seed in range(3)]
    assert WorstCost([WorstCost(costs[:2]), costs[2]]).costs == WorstCost(costs).costs


def test_mean_of_a_policy_is_refused():
    with pytest.raises(UsageError, match="mean_cost"):
        WorstCost([random_cost(0)]).expected([np.full(count, 1 / count) for count in COUNTS])


@pytest.mark.parametrize("combine", [mean_cost, WorstCost])
def test_costs_of_other_spaces_or_units_are_not_combined(combine):
    other = CostModel((2, 2), [])
    flops = CostModel(COUNTS, [], unit="FLOPs")
    for costs in ([], [random_cost(0), other], [random_cost(0), flops]):
        with pytest.raises(UsageError):
            combine(costs)
