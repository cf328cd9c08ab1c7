import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from latkit.devices.errors import UsageError
from latkit.search.strategies.reward import (
    REWARDS,
    absolute_reward,
    hard_reward,
    holding_strength,
    soft_reward,
)


def test_rewards_are_the_papers_formulas():
    assert absolute_reward(0.7, 12.0, 10.0) == pytest.approx(0.7 - 0.10 * 0.2)
    assert absolute_reward(0.7, 8.0, 10.0, -0.5) == pytest.approx(0.7 - 0.5 * 0.2)
    assert soft_reward(0.7, 12.0, 10.0) == pytest.approx(0.7 * 1.2**-0.07)
    assert hard_reward(0.7, 12.0, 10.0, -1.0) == pytest.approx(0.7 / 1.2)
    assert hard_reward(0.7, 8.0, 10.0, -1.0) == pytest.approx(0.7)
    assert soft_reward(0.7, 8.0, 10.0) > 0.7


@pytest.mark.parametrize("reward", REWARDS.values(), ids=REWARDS.keys())
def test_rewards_take_arrays_and_are_the_accuracy_at_the_target(reward):
    result = reward([0.5, 0.6], [10.0, 10.0], 10.0)
    np.testing.assert_allclose(result, [0.5, 0.6])


@pytest.mark.parametrize("reward", REWARDS.values(), ids=REWARDS.keys())
@pytest.mark.parametrize(
    ("target", "strength"), [(0.0, -1.0), (float("nan"), -1.0), (5.0, 0.0), (5.0, 0.1)]
)
def test_targets_and_strengths_of_the_wrong_sign_are_refused(reward, target, strength):
    with pytest.raises(UsageError):
        reward(0.5, 5.0, target, strength)


def test_holding_strength_is_the_slope_of_the_front_and_not_of_the_population():
    # Front: Q = .5 + .3 (T/T0 - .5) up to T0, + .05 above; below it a cloud that falls with T.
    ratio = np.linspace(0.5, 1.5, 11)
    front = np.where(ratio <= 1, 0.5 + 0.3 * (ratio - 0.5), 0.65 + 0.05 * (ratio - 1))
    cloud = 0.3 - 0.1 * ratio
    accuracy, latency = np.concatenate([front, cloud]), np.tile(ratio * 20, 2)
    assert holding_strength(accuracy, latency, 20.0) == pytest.approx(0.05)
    assert holding_strength(accuracy, latency, 16.0) == pytest.approx(0.3 * 16 / 20)


def test_what_is_more_accurate_below_the_target_has_to_be_held_off_too():
    assert holding_strength([0.6, 0.7], [10.0, 8.0], 10.0) == pytest.approx(0.5)
    assert holding_strength([0.6, 0.7], [10.0, 12.0], 10.0) == pytest.approx(0.5)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([0.0, 0.01, 0.1]))
def test_the_rewards_maximum_is_at_the_target_exactly_from_that_strength_on(seed, within):
    random = np.random.default_rng(seed)
    latency, accuracy = random.uniform(5, 15, 60), random.random(60)
    least = holding_strength(accuracy, latency, 10.0, within)
    miss = np.abs(latency / 10.0 - 1)
    held = max(within, miss.min())
    for strength in (0.999 * least, 1.001 * least + 1e-9):
        if strength > 0:
            best = miss[np.argmax(absolute_reward(accuracy, latency, 10.0, -strength))]
            assert (best <= held) == (strength > least)


def test_front_that_falls_away_from_the_target_holds_by_itself():
    assert holding_strength([0.9, 0.8, 0.7], [2.0, 1.0, 3.0], 2.0) == 0.0
    assert holding_strength([0.9, 0.8], [1.0, 1.0], 1.0) == 0.0
    with pytest.raises(UsageError, match="evaluated architectures"):
        holding_strength([], [], 1.0)
