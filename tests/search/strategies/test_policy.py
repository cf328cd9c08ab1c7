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
