import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from latkit.search import closest_sum as module
from latkit.search.closest_sum import closest_sum

numbers = st.integers(-20, 20).map(float)
groups = st.lists(st.lists(numbers, min_size=1, max_size=5), min_size=1, max_size=4)


@given(
    costs=groups, most=st.integers(-30, 30), window=st.integers(0, 5), seed=st.integers(0, 2**32)
)
def test_choice_is_the_least_change_within_the_window_or_the_largest_sum(costs, most, window, seed):
    random = np.random.default_rng(seed)
    arrays = [np.array(group) for group in costs]
    changes = [random.integers(0, 5, len(group)).astype(float) for group in costs]
    found = closest_sum(arrays, changes, most - window, most)

    def cost(options):
        return sum(group[option] for group, option in zip(costs, options, strict=True))

    def change(options):
        return sum(group[option] for group, option in zip(changes, options, strict=True))

    every = list(itertools.product(*(range(len(group)) for group in costs)))
    allowed = [options for options in every if cost(options) <= most]
    if not allowed:
        assert found is None
        return
    inside = [options for options in allowed if cost(options) >= most - window]
    assert found in allowed
    if inside:
        assert found in inside and change(found) == min(map(change, inside))
    else:
        assert cost(found) == max(map(cost, allowed))


def test_thinned_sums_still_come_close(monkeypatch):
    monkeypatch.setattr(module, "LARGEST_SET", 64)
    random = np.random.default_rng(0)
    costs = [random.random(8) for _ in range(10)]
    changes = [np.zeros(8) for _ in range(10)]
    for most in (3.0, 5.0, 7.0):
        found = closest_sum(costs, changes, most, most)
        total = sum(group[option] for group, option in zip(costs, found, strict=True))
        assert most - 0.01 < total <= most


@pytest.mark.parametrize("count", [1, 5000])
def test_equal_sums_are_one(count):
    found = closest_sum([np.ones(count)] * 3, [np.arange(count, dtype=float)] * 3, 3.0, 3.0)
    assert found == (0, 0, 0)
