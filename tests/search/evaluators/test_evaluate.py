"""Evaluators of users: what goes wrong in them is said with the architecture that it is about."""

import numpy as np
import pytest
import torch
from latkit.devices.errors import DeviceError, LatkitError
from latkit.search.choices import Choice
from latkit.search.evaluators.evaluate import evaluate
from latkit.search.space import Architecture, SearchSpace

SPACE = SearchSpace("small", [Choice("op", ("skip", "conv")), Choice("width", (8, 16))], [])
ARCHITECTURE = Architecture((1, 0))


@pytest.mark.parametrize(
    "value", [0.25, np.float32(0.25), torch.tensor(0.25), np.array(0.25), np.float64(0.25)]
)
def test_any_number_is_an_accuracy(value):
    found = evaluate(lambda _: value, SPACE, ARCHITECTURE)
    assert found == 0.25
    assert type(found) is float


@pytest.mark.parametrize("value", [0, 1, True])
def test_the_ends_are_accuracies(value):
    assert evaluate(lambda _: value, SPACE, ARCHITECTURE) == float(value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -0.1, 1.5])
def test_a_number_that_is_no_accuracy_names_the_architecture(value):
    with pytest.raises(LatkitError, match=rf"returned {value:g} for .*op conv, width 8"):
        evaluate(lambda _: value, SPACE, ARCHITECTURE)


def test_percentages_are_recognised():
    with pytest.raises(LatkitError, match="divided by 100"):
        evaluate(lambda _: 75.0, SPACE, ARCHITECTURE)


@pytest.mark.parametrize("value", [None, "good", [0.5, 0.6]])
def test_what_is_no_number_names_the_architecture(value):
    with pytest.raises(LatkitError, match="op conv, width 8") as caught:
        evaluate(lambda _: value, SPACE, ARCHITECTURE)
    assert isinstance(caught.value.__cause__, (TypeError, ValueError))


def raising(error):
    def evaluator(_):
        raise error

    return evaluator


def test_an_evaluator_that_raises_names_the_architecture_and_keeps_the_cause():
    error = ZeroDivisionError("by zero")
    with pytest.raises(LatkitError, match=r"op conv, width 8.*ZeroDivisionError: by zero") as found:
        evaluate(raising(error), SPACE, ARCHITECTURE)
    assert found.value.__cause__ is error


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3), DeviceError("it is gone")])
def test_interrupts_and_the_kits_own_errors_pass(error):
    with pytest.raises(type(error)) as found:
        evaluate(raising(error), SPACE, ARCHITECTURE)
    assert found.value is error
