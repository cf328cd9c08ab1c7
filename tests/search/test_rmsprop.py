"""RMSProp as TensorFlow has it, and what it leaves alone."""

import pytest
import torch
from latkit.devices.errors import UsageError
from latkit.search.rmsprop import RMSProp
from latkit.search.settings import TrainingSettings

KINDS = {"momentum": 0.9, "weight_decay": 0.01}


def step(optimiser, parameters, rate):
    for parameter in parameters.values():
        parameter.grad = 3 * parameter.detach().sin()
    optimiser.step(rate)
    optimiser.clear_gradients()


def made():
    random = torch.Generator().manual_seed(0)
    return {
        "weight": torch.nn.Parameter(torch.randn(4, 3, generator=random, dtype=torch.float64)),
        "bias": torch.nn.Parameter(torch.randn(4, generator=random, dtype=torch.float64)),
    }


@pytest.mark.parametrize("constants", [{}, {"decay": 0.5, "epsilon": 1e-3}])
def test_steps_are_the_formulas(constants):
    parameters = made()
    optimiser = RMSProp(parameters, active={}, **KINDS, **constants)
    decay, epsilon = constants.get("decay", 0.9), constants.get("epsilon", 1.0)
    expected = {name: value.detach().clone() for name, value in parameters.items()}
    squares = {name: torch.ones_like(value) for name, value in expected.items()}
    velocity = {name: torch.zeros_like(value) for name, value in expected.items()}
    for rate in (0.1, 0.2, 0.05, 0.1):
        step(optimiser, parameters, rate)
        for name, value in expected.items():
            gradient = 3 * value.sin() + (0.01 * value if name == "weight" else 0)
            squares[name] = decay * squares[name] + (1 - decay) * gradient**2
            velocity[name] = 0.9 * velocity[name] + rate * gradient / torch.sqrt(
                squares[name] + epsilon
            )
            expected[name] = value - velocity[name]
    for name, parameter in parameters.items():
        torch.testing.assert_close(parameter.detach(), expected[name], rtol=1e-12, atol=0)


def test_what_a_step_did_not_use_rests():
    parameters = made()
    active = {}
    optimiser = RMSProp(parameters, active=active, **KINDS)
    step(optimiser, parameters, 0.1)
    before = {name: value.detach().clone() for name, value in parameters.items()}
    states = [
        {name: value.clone() for name, value in part.items()}
        for part in optimiser.state_dict().values()
    ]
    active["weight"] = (slice(0, 2), slice(0, 3))
    parameters["weight"].grad = parameters["weight"].detach().cos()
    optimiser.step(0.1)
    used = torch.zeros(4, 3, dtype=torch.bool)
    used[:2] = True
    assert parameters["bias"].equal(before["bias"]), "it has no gradient"
    for now, then in zip(
        [parameters["weight"], *(part["weight"] for part in optimiser.state_dict().values())],
        [before["weight"], *(part["weight"] for part in states)],
        strict=True,
    ):
        assert now[~used].equal(then[~used])
        assert (now[used] != then[used]).all()


def test_state_taken_over_goes_on_the_same():
    one, other = made(), made()
    first, second = (RMSProp(parameters, active={}, **KINDS) for parameters in (one, other))
    step(first, one, 0.1)
    for name, value in one.items():
        other[name].data.copy_(value.detach())
    second.load_state_dict(first.state_dict())
    for optimiser, parameters in ((first, one), (second, other)):
        step(optimiser, parameters, 0.1)
    assert all(one[name].equal(other[name]) for name in one)
    with pytest.raises(KeyError):
        second.load_state_dict({"squares": {}})


def test_optimiser_that_does_not_exist_is_refused():
    with pytest.raises(UsageError, match="choose one of"):
        TrainingSettings(1, optimiser="adam")
