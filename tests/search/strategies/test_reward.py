import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from latkit.devices.errors import UsageError
from latkit.search.strategies.reward import (
    REWARDS,
    absolute_reward,
    front_slope,
    hard_reward,
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


def test_slope_is_that_of_the_front_and_not_of_the_population():
    # Front: Q = .5 + .3 (T/T0 - .5) up to T0, + .05 above; below it a cloud that falls with T.
    ratio = np.linspace(0.5, 1.5, 11)
    front = np.where(ratio <= 1, 0.5 + 0.3 * (ratio - 0.5), 0.65 + 0.05 * (ratio - 1))
    cloud = 0.3 - 0.1 * ratio
    accuracy, latency = np.concatenate([front, cloud]), np.tile(ratio * 20, 2)
    assert front_slope(accuracy, latency, 20.0) == pytest.approx(0.3)
    assert front_slope(accuracy, latency, 25.0) == pytest.approx(0.05 * 25 / 20)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 1000), st.floats(0.8, 1.2))
def test_absolute_reward_has_its_maximum_at_the_target_exactly_when_stronger_than_the_slope(
    seed, factor
):
    random = np.random.default_rng(seed)
    latency = np.concatenate([random.uniform(5, 15, 200), [10.0]])
    accuracy = 1 - np.exp(-latency / 8)  # a concave front, every point on it
    slope = front_slope(accuracy, latency, 10.0)
    # What tempts the search away is the front's next point above the target.
    above = latency[latency > 10.0].min()
    right = float((np.exp(-10.0 / 8) - np.exp(-above / 8)) / (above / 10.0 - 1))
    assert right <= slope * (1 + 1e-9)
    strength = factor * slope
    if abs(strength / right - 1) < 1e-3:
        return
    best = latency[np.argmax(absolute_reward(accuracy, latency, 10.0, -strength))]
    assert (best == 10.0) == (strength > right)


def test_slope_of_a_falling_front_is_zero_and_of_one_latency_refused():
    assert front_slope([0.9, 0.8, 0.7], [1.0, 2.0, 3.0], 2.0) == 0.0
    with pytest.raises(UsageError, match="at least two latencies"):
        front_slope([0.9, 0.8], [1.0, 1.0], 1.0)
