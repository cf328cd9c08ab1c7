"""Limits on several costs: found to be kept, or proven to contradict each other."""

import itertools
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from latkit.devices.errors import UnreachableTargetError, UsageError
from latkit.latency.combined import WorstCost
from latkit.latency.cost import CostModel, Factor
from latkit.latency.limits import Limit, fits, require_feasible
from latkit.latency.pricing import FunctionCost

COUNTS = (3, 2, 4, 3)
EVERY = np.array(list(itertools.product(*map(range, COUNTS))))


def random_cost(seed, unit="ms"):
    random = np.random.default_rng(seed)
    factors = [
        Factor(scope, random.random([COUNTS[p] for p in scope])) for scope in ((0, 1), (1, 2), (3,))
    ]
    return CostModel(COUNTS, factors, 0.5, unit=unit)


def every_share(limits):
    """The largest share of a limit that each architecture takes."""
    return np.max([limit.cost.latency_ms(EVERY) / limit.most for limit in limits], axis=0)


def opposed(most):
    """Two costs whose sum is always 3: below `most` each only where that is 1.5 or more."""
    rising = np.array([1.0, 1.5, 2.0])
    return [
        Limit(CostModel((3,), [Factor((0,), rising)]), most, "latency"),
        Limit(CostModel((3,), [Factor((0,), 3 - rising)], unit="FLOPs"), most, "FLOPs"),
    ]


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 4), st.floats(0.0, 0.6))
def test_what_is_found_keeps_all_limits_and_contradictions_are_real(seed, count, tightness):
    limits = []
    for number in range(count):
        cost = random_cost(seed + number)
        costs = cost.latency_ms(EVERY)
        limits.append(Limit(cost, float(np.quantile(costs, tightness)), f"cost{number}"))
    shares = every_share(limits)
    try:
        found = require_feasible(limits)
    except UnreachableTargetError as error:
        message = str(error)
        if "contradict" in message:
            over = float(re.search(r"by at least ([\d.]+)%", message)[1]) / 100
            assert shares.min() >= 1 + over - 1e-5
            assert shares.min() > 1
        else:
            assert "not proven" in message
    else:
        assert fits(limits, np.array([found]))[0]
        assert shares.min() <= 1


def test_contradiction_names_the_limits_and_by_how_much():
    bystander = Limit(CostModel((3,), [Factor((0,), np.ones(3))]), 2.0, "memory")
    assert require_feasible([*opposed(1.5), bystander]) == (1,)
    with pytest.raises(UnreachableTargetError) as caught:
        require_feasible([*opposed(1.2), bystander])
    message = str(caught.value)
    assert "latency of at most 1.2 ms, FLOPs of at most 1.2 FLOPs" in message
    assert "by at least 25.000%" in message  # 3 / 2.4 - 1
    assert "latency of at least 1.8 ms or FLOPs of at least 1.8 FLOPs" in message
    assert "memory" not in message


def test_contradiction_within_the_worst_of_two_devices_is_proven_too():
    first, second = (limit.cost for limit in opposed(1.0))
    second = CostModel((3,), second.factors)
    worst = WorstCost([first, second])
    flat = Limit(CostModel((3,), [Factor((0,), np.array([1.0, 3.0, 1.0]))], unit="F"), 2.0, "F")
    assert require_feasible([Limit(worst, 2.0, "latency"), flat]) in ((0,), (2,))
    with pytest.raises(UnreachableTargetError, match=r"latency: .*smallest reachable latency"):
        require_feasible([Limit(worst, 1.4, "latency"), flat])


def test_gap_between_proof_and_example_is_told_plainly():
    """Only mixtures of the two architectures would keep both limits, and there are none."""
    limits = [
        Limit(CostModel((2,), [Factor((0,), np.array([1.0, 4.0]))]), 2.9, "a"),
        Limit(CostModel((2,), [Factor((0,), np.array([4.0, 1.0]))]), 2.9, "b"),
    ]
    with pytest.raises(UnreachableTargetError, match=r"none is not proven.*nearest one found"):
        require_feasible(limits)


def test_limit_that_alone_cannot_be_kept_is_named_with_the_smallest_cost():
    cost = random_cost(1, unit="FLOPs")
    limits = [Limit(random_cost(0), 100.0, "latency"), Limit(cost, 0.5, "FLOPs")]
    with pytest.raises(UnreachableTargetError, match="FLOPs: ") as caught:
        require_feasible(limits)
    assert f"smallest reachable cost is {cost.minimum()[0]:.6g} FLOPs" in str(caught.value)


def test_dear_costs_are_asked_only_about_what_cheap_ones_leave():
    asked = []

    def price(choices):
        asked.append(choices)
        return float(sum(choices))

    dear = Limit(FunctionCost(COUNTS, price), 5.0, "called")
    table = random_cost(3)
    cheap = Limit(table, float(np.median(table.latency_ms(EVERY))), "table")
    kept = fits([dear, cheap], EVERY)
    inside = table.latency_ms(EVERY) <= cheap.most
    assert sorted(asked) == sorted(map(tuple, EVERY[inside].tolist()))
    assert (kept == (inside & (EVERY.sum(axis=1) <= 5))).all()


def test_called_and_laid_out_limits_are_kept_together():
    table, counted = random_cost(4), FunctionCost(COUNTS, lambda row: 1.0 + sum(row), unit="bytes")
    limits = [
        Limit(table, float(np.quantile(table.latency_ms(EVERY), 0.3)), "latency"),
        Limit(counted, 5.0, "memory"),
    ]
    assert every_share(limits).min() <= 1
    assert fits(limits, np.array([require_feasible(limits)]))[0]


def test_limits_that_are_none_are_refused():
    with pytest.raises(UsageError):
        require_feasible([])
    for most in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(UsageError, match="positive"):
            require_feasible([Limit(random_cost(0), most, "latency")])
