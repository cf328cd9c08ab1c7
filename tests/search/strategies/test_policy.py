"""A policy of its own: what it samples, what it learns from, what it keeps."""

import json

import numpy as np
import pytest
from latkit.devices.errors import UsageError
from latkit.search.strategies.policy import Policy


def moved():
    policy = Policy((2, 3), learning_rate=0.3, delay=0.0)
    policy.update([(0, 2), (1, 1)], [(True, True)] * 2, np.array([1.0, 0.0]), 0.5)
    return policy


def test_samples_are_as_frequent_as_they_are_probable():
    policy = moved()
    rows = np.array(policy.sample(4000, np.random.default_rng(0)))
    for position, probability in enumerate(policy.probabilities()):
        found = np.bincount(rows[:, position], minlength=len(probability)) / len(rows)
        np.testing.assert_allclose(found, probability, atol=0.03)


def test_what_was_rewarded_becomes_the_mode():
    assert moved().mode() == (0, 2)


def test_choices_that_do_not_count_stay_as_they_are():
    policy = Policy((2, 3), learning_rate=0.3, delay=0.0)
    counted = [(True, False), (True, False)]
    policy.update([(0, 2), (1, 1)], counted, np.array([1.0, 0.0]), 0.5)
    assert policy.logits[0].any() and not policy.logits[1].any()


def test_state_goes_on_the_same_and_is_refused_by_other_choices():
    policy, other = moved(), Policy((2, 3), learning_rate=0.3, delay=0.0)
    other.load_state(json.loads(json.dumps(policy.state())))
    for one in (policy, other):
        one.update([(1, 0)], [(True, True)], np.array([0.3]), 0.7)
    assert policy.state() == other.state()
    with pytest.raises(UsageError, match="other options"):
        Policy((3, 3)).load_state(policy.state())


def test_only_the_best_of_a_step_are_learned_from():
    policy = Policy((2, 3), learning_rate=0.3, delay=0.0, best_share=0.25)
    rows = [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (0, 0), (0, 1)]
    rewards = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.9, 0.2, 0.3])
    policy.update(rows, [(True, True)] * 8, rewards, 0.5)
    # The two best are (1, 2) and (1, 1), .5 and .1 above the best of the others.
    expected = -0.5 / 8 * np.array([-1 / 3, -1 / 3, 2 / 3]) - 0.1 / 8 * np.array([-1, 2, -1]) / 3
    assert policy.mode() == (1, 2)
    np.testing.assert_allclose(policy._squares[1], 0.001 * expected**2, rtol=1e-9)


@pytest.mark.parametrize("share", [0.0, -0.5, 1.5])
def test_shares_that_are_none_are_refused(share):
    with pytest.raises(UsageError, match="best share"):
        Policy((2, 3), best_share=share)


def test_share_of_a_step_that_is_all_of_it_is_refused():
    policy = Policy((2, 3), delay=0.0, best_share=0.9)
    with pytest.raises(UsageError, match="all of them"):
        policy.update([(0, 0)], [(True, True)], np.array([0.5]), 0.5)


def test_gradient_is_that_of_the_log_probability():
    """By finite differences of the mean of -advantage * log p, over choices of unequal length."""
    policy = Policy((2, 4, 3))
    random = np.random.default_rng(1)
    rows = policy.sample(5, random)
    counted = random.random((5, 3)) < 0.7
    advantages = random.normal(size=5)
    start = [random.normal(size=count) for count in (2, 4, 3)]

    def loss(logits):
        logp = [vector - np.log(np.exp(vector).sum()) for vector in logits]
        return -np.mean(
            [
                advantage * sum(logp[i][row[i]] for i in range(3) if on[i])
                for advantage, row, on in zip(advantages, rows, counted, strict=True)
            ]
        )

    state = {**policy.state(), "logits": [vector.tolist() for vector in start]}
    policy.load_state(state)
    found = policy.gradients(rows, counted, advantages)
    for position, vector in enumerate(start):
        for option in range(len(vector)):
            moved = [item.copy() for item in start]
            moved[position][option] += 1e-6
            assert found[position][option] == pytest.approx(
                (loss(moved) - loss(start)) / 1e-6, abs=1e-5
            )
