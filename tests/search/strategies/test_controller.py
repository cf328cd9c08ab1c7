"""The recurrent controller: what it samples, how probable that was, and its gradients."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from latkit.devices.errors import UsageError
from latkit.search.choices import Choice
from latkit.search.strategies.controller import Controller

PLAIN = [Choice("a", (0, 1, 2)), Choice("b", (0, 1)), Choice("c", (0, 1, 2, 3))]
TREE = [
    Choice("late", (0, 1, 2), when={"gate": ("open",)}),
    Choice("gate", ("shut", "open")),
    Choice("free", (0, 1, 2)),
    Choice("deep", (0, 1), when={"gate": ("open",), "late": (1, 2)}),
]


def controller_of(choices, *, scale=5.0, **options):
    """Its weights are larger than at the beginning, so that every path through it shows."""
    made = Controller(choices, **{"hidden": 4, "seed": 3, **options})
    made.weights = scale * np.random.default_rng(1).uniform(-0.2, 0.2, len(made.weights))
    return made


def rows_of(controller, count=12, seed=0):
    return controller.sample(count, np.random.default_rng(seed))


def numeric_gradient(controller, value):
    found = np.zeros_like(controller.weights)
    for index in range(len(found)):
        own = controller.weights[index]
        sides = []
        for moved in (own + 1e-5, own - 1e-5):
            controller.weights[index] = moved
            sides.append(value())
        controller.weights[index] = own
        found[index] = (sides[0] - sides[1]) / 2e-5
    return found


@pytest.mark.parametrize(
    "options", [{}, {"tanh_constant": 1.5, "temperature": 2.0}, {"layers": 1}, {"layers": 3}]
)
@pytest.mark.parametrize("choices", [PLAIN, TREE], ids=["plain", "tree"])
def test_gradients_are_those_of_finite_differences(choices, options):
    controller = controller_of(choices, **options)
    rows = rows_of(controller, 5)
    advantages = np.random.default_rng(2).normal(size=5)
    pulls = {
        len(choices) - 1: (np.linspace(0.1, 0.5, len(choices[-1].options)), 0.3),
        0: (np.array([0.2, 0.3, 0.5]), 0.8),
    }

    def value():
        followed = controller.follow(rows)
        own = (advantages * followed.log_probability()).sum() + 0.7 * followed.entropy().sum()
        return own + followed.divergence(pulls)

    found = controller.gradient(controller.follow(rows), advantages, entropy=0.7, pulls=pulls)
    np.testing.assert_allclose(found, numeric_gradient(controller, value), atol=1e-8)
    assert np.count_nonzero(found) > len(found) / 3


def test_probabilities_and_gradients_are_those_of_torchs_lstm():
    """With gates in torch's order, which has the candidate before the output gate."""
    controller = controller_of(PLAIN, tanh_constant=1.5, temperature=2.0)
    rows = rows_of(controller, 6)
    advantages = np.random.default_rng(4).normal(size=6)
    flat = torch.tensor(controller.weights, requires_grad=True)
    sizes = [4, 128, 128, *(4 * count for count in (3, 2, 4) * 2), 3, 2, 4]
    start, *rest = flat.split(sizes)
    gates = [part.view(8, 4, 4)[:, [0, 1, 3, 2]].reshape(8, 16).T for part in rest[:2]]
    outputs = [part.view(4, -1) for part in rest[2:5]]
    embeddings = [part.view(-1, 4) for part in rest[5:8]]
    biases = rest[8:]
    inputs, states = start.expand(6, 4), [torch.zeros(2, 6, 4, dtype=torch.float64)] * 2
    total = torch.zeros(6, dtype=torch.float64)
    for position in range(3):
        value = inputs
        for layer, weights in enumerate(gates):
            states[layer] = torch.stack(
                torch.lstm_cell(value, [*states[layer]], weights[:, :4], weights[:, 4:])
            )
            value = states[layer][0]
        logits = 1.5 * ((value @ outputs[position] + biases[position]) / 2.0).tanh()
        chosen = torch.tensor([row[position] for row in rows])
        total = total + logits.log_softmax(1)[torch.arange(6), chosen]
        inputs = embeddings[position][chosen]
    (total * torch.tensor(advantages)).sum().backward()
    followed = controller.follow(rows)
    np.testing.assert_allclose(followed.log_probability(), total.detach().numpy(), atol=1e-12)
    found = controller.gradient(followed, advantages)
    np.testing.assert_allclose(found, flat.grad.numpy(), atol=1e-12)


def test_probabilities_of_all_rows_sum_to_one_and_their_entropies_to_the_policys():
    controller = controller_of(PLAIN)
    rows = list(np.ndindex(3, 2, 4))
    followed = controller.follow(rows)
    logs = followed.log_probability()
    assert np.exp(logs).sum() == pytest.approx(1)
    entropy = -(np.exp(logs) * logs).sum()
    assert (np.exp(logs) * followed.entropy()).sum() == pytest.approx(entropy)


def test_samples_are_as_frequent_as_they_are_probable():
    controller = controller_of(PLAIN, scale=8.0)
    rows = list(np.ndindex(3, 2, 4))
    probable = np.exp(controller.follow(rows).log_probability())
    drawn = rows_of(controller, 6000)
    found = [drawn.count(row) / len(drawn) for row in rows]
    np.testing.assert_allclose(found, probable, atol=0.025)
    assert probable.max() > 3 * probable.min()


def test_later_decisions_depend_on_earlier_ones():
    controller = controller_of(PLAIN, scale=8.0)
    rows = [(first, 0, option) for first in range(3) for option in range(4)]
    logs = controller.follow(rows).log_probability().reshape(3, 4)
    conditional = np.exp(logs) / np.exp(logs).sum(1, keepdims=True)
    assert np.abs(conditional[0] - conditional[1]).max() > 0.01


def test_choices_that_are_off_are_option_0_and_leave_no_trace():
    controller = controller_of(TREE)
    rows = rows_of(controller, 200)
    assert {row[1] for row in rows} == {0, 1}
    for late, gate, _, deep in rows:
        assert gate or (late, deep) == (0, 0)
        assert late or deep == 0
    # The same whatever stands where a choice is off, and whatever decides about it.
    off = [(0, 0, 2, 0), (2, 0, 2, 1)]
    advantages = np.array([1.0, -1.0])
    followed = controller.follow(off)
    assert len({*followed.log_probability()}) == len({*followed.entropy()}) == 1
    assert not controller.gradient(followed, advantages).any()
    before = followed.log_probability()[0], followed.entropy()[0]
    only = controller.gradient(controller.follow(off[:1]), np.ones(1), entropy=1.0)
    unused = [index for index, value in enumerate(only) if value == 0]
    controller.weights[unused] += 1.0
    again = controller.follow(off[:1])
    assert (again.log_probability()[0], again.entropy()[0]) == before


def test_entropy_is_of_the_choices_that_are_on():
    controller = Controller(TREE, hidden=4)
    controller.weights[:] = 0
    shut, opened, deep = controller.follow([(0, 0, 0, 0), (0, 1, 0, 0), (1, 1, 0, 0)]).entropy()
    assert shut == pytest.approx(np.log(2) + np.log(3))
    assert opened == pytest.approx(shut + np.log(3))
    assert deep == pytest.approx(opened + np.log(2))


def test_the_seed_decides_the_weights_which_begin_small():
    one, same, other = (Controller(PLAIN, seed=seed) for seed in (0, 0, 1))
    assert np.array_equal(one.weights, same.weights)
    assert not np.array_equal(one.weights, other.weights)
    assert np.abs(one.weights).max() <= 0.1
    assert one.follow([(0, 0, 0)]).log_probability()[0] == pytest.approx(-np.log(24), abs=0.1)


def test_threads_change_no_bit():
    code = (
        "import hashlib, numpy as np\n"
        "from latkit.search.choices import Choice\n"
        "from latkit.search.strategies.controller import Controller\n"
        "made = Controller([Choice(str(n), tuple(range(5))) for n in range(3)], hidden=64)\n"
        "followed = made.follow(made.sample(40, np.random.default_rng(0)))\n"
        "found = made.gradient(followed, np.ones(40))\n"
        "print(hashlib.sha256(found.tobytes()).hexdigest())"
    )
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            env={**os.environ, "OPENBLAS_NUM_THREADS": threads},
            stdout=subprocess.PIPE,
            text=True,
        )
        for threads in ("1", "2")
    ]
    one, two = (process.communicate(timeout=120)[0] for process in started)
    assert one == two and len(one) == 65


@pytest.mark.parametrize("wrong", [{"hidden": 0}, {"layers": 0}, {"temperature": 0.0}])
def test_impossible_controllers_are_refused(wrong):
    with pytest.raises(UsageError):
        Controller(PLAIN, **wrong)
