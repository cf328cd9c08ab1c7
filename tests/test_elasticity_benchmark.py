"""The exact solver that elasticity-scaling is compared with: against every combination."""

import itertools

import pytest
from elasticity import UNITS, Reachable, widths_of
from hypothesis import given
from hypothesis import strategies as st
from latkit.latency.blocks import ConvBlock, MBConv

costs = st.floats(0.001, 1.0)
groups = st.lists(st.lists(costs, min_size=1, max_size=4), min_size=1, max_size=4)


@given(costs_ms=groups, fixed_ms=st.floats(0, 2), share=st.floats(0, 1.1))
def test_best_sum_within_a_target_is_that_of_all_combinations(costs_ms, fixed_ms, share):
    reachable = Reachable.of(costs_ms, fixed_ms)
    sums = sorted(fixed_ms + sum(chosen) for chosen in itertools.product(*costs_ms))
    target_ms = share * sums[-1]
    margin = 2 * len(costs_ms) * reachable.unit_ms
    found = reachable.best_ms(target_ms)
    if found is not None:
        assert found <= max((total for total in sums if total <= target_ms), default=0)
    # A sum that is no closer to the target than what rounding up may add can't be missed.
    surely = [total for total in sums if total <= target_ms - margin]
    if surely:
        assert found is not None and found >= surely[-1] - margin


def test_a_unit_is_a_millionth_of_the_largest_sum():
    assert Reachable.of([[1.0, 2.0], [3.0]], 5.0).unit_ms == pytest.approx(10.0 / UNITS)


def test_widths_are_multiples_of_the_grid_from_half_to_all_and_above_the_inputs():
    def block(expanded):
        return MBConv(
            in_channels=24, out_channels=24, height=8, width=8, expanded_channels=expanded
        )

    assert widths_of(block(72), 16) == [48, 64]
    assert widths_of(block(72), 8) == [40, 48, 56, 64, 72]
    assert widths_of(block(48), 8) == [32, 40, 48]
    assert widths_of(block(24), 8) == []
    assert widths_of(ConvBlock(in_channels=3, out_channels=8, height=8, width=8), 8) == []
    assert widths_of(None, 8) == []
