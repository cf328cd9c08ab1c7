"""Searches by a recurrent controller: how they learn, what they end with, what they keep."""

import inspect
import json

import numpy as np
import pytest
from latkit.devices.errors import UsageError
from latkit.search.choices import Choice
from latkit.search.space import SearchSpace
from latkit.search.strategies.recurrent import LstmPpo, LstmReinforce
from latkit.search.strategies.recurrent_policy import (
    ClippedPolicy,
    RecurrentPolicy,
    clipped_slopes,
    skip_pulls,
)

BOTH = pytest.mark.parametrize("kind", [LstmReinforce, LstmPpo])


def plain_space(choices=4, options=3):
    return SearchSpace(
        "plain", [Choice(f"c{n}", tuple(range(options))) for n in range(choices)], []
    )


def tree_space():
    gate = Choice("gate", ("shut", "open"))
    return SearchSpace("tree", [gate, Choice("a", (0, 1, 2), when={"gate": ("open",)})], [])


def planted(architecture):
    """1 for (0, 2, 1, 0, ...), less by what differs."""
    wanted = [(2 * n) % 3 for n in range(len(architecture.choices))]
    same = [one == other for one, other in zip(architecture.choices, wanted, strict=True)]
    return 0.4 + 0.6 * sum(same) / len(same)


def step(strategy, accuracy_of=planted, latency_of=lambda architecture: 10.0):
    asked = strategy.ask(strategy.per_step)
    strategy.tell(asked, [*map(accuracy_of, asked)], [*map(latency_of, asked)])
    return asked


def policy_of(kind=RecurrentPolicy, choices=None, **changes):
    settings = {
        "hidden": 4,
        "layers": 1,
        "tanh_constant": None,
        "temperature": 1.0,
        "learning_rate": 0.01,
        "baseline_decay": 0.9,
        "entropy_weight": 0.0,
    }
    return kind(choices or plain_space().choices, **{**settings, **changes})


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (LstmReinforce, {"steps": 400, "learning_rate": 0.01, "tanh_constant": 2.5}),
        (LstmPpo, {"steps": 40, "hidden": 16, "learning_rate": 0.01}),
    ],
)
@pytest.mark.parametrize("seed", range(2))
def test_finds_and_prefers_a_planted_optimum(kind, options, seed):
    strategy = kind(plain_space(), 10.0, seed=seed, **options)
    before = strategy.figures()["policy_entropy"]
    assert before == pytest.approx(4 * np.log(3), rel=0.02)
    while not strategy.done:
        step(strategy)
    assert strategy.best().choices == (0, 2, 1, 0)
    assert strategy.figures()["policy_entropy"] < 0.6 * before
    late = strategy.evaluations[-40:]
    assert np.mean([item.accuracy for item in late]) > 0.85


def test_learns_what_depends_on_an_earlier_choice():
    """The last option that pays is the one that equals the first: no choice pays alone."""
    space = plain_space(2, 2)
    strategy = LstmReinforce(
        space, 10.0, steps=300, per_step=4, learning_rate=0.02, tanh_constant=None, seed=1
    )
    while not strategy.done:
        step(strategy, lambda item: float(item.choices[0] == item.choices[1]))
    late = [item.accuracy for item in strategy.evaluations[-100:]]
    assert np.mean(late) > 0.9


@BOTH
def test_the_reward_joins_accuracy_and_latency(kind):
    strategy = kind(plain_space(), 7.0, steps=2, per_step=2, strength=-0.5)
    asked = strategy.ask(2)
    strategy.tell(asked, [0.8, 0.7], [14.0, 7.0])
    assert strategy.best() == asked[1]
    assert strategy.policy.average == pytest.approx(
        (1 - strategy.baseline_decay) * (0.3 + 0.7) / 2, abs=1e-3
    )
    with pytest.raises(UsageError, match="no reward"):
        kind(plain_space(), 7.0, steps=2, reward="other")


@BOTH
def test_ends_with_the_most_rewarded_evaluation_and_of_equal_ones_the_fastest(kind):
    strategy = kind(plain_space(), 10.0, steps=1, per_step=3, reward="hard")
    with pytest.raises(UsageError, match="no architecture"):
        strategy.best()
    asked = strategy.ask(3)
    strategy.tell(asked, [0.5, 0.9, 0.9], [9.0, 8.0, 7.0])
    assert strategy.done and strategy.ask(1) == []
    assert strategy.best() == asked[2]


@BOTH
def test_a_step_waits_for_all_of_its_architectures(kind):
    strategy = kind(plain_space(), 10.0, steps=3, per_step=4)
    start = strategy.policy.controller.weights.copy()
    first = strategy.ask(3)
    assert len(first) == 3 and len(strategy.ask(10)) == 1 and strategy.ask(1) == []
    strategy.tell(first, [0.1, 0.5, 0.9], [10.0] * 3)
    assert strategy.step == 0 and not strategy.ask(1)
    assert np.array_equal(strategy.policy.controller.weights, start)


@BOTH
@pytest.mark.parametrize("told", [0, 5, 9])
def test_goes_on_bit_for_bit_from_a_state_in_the_middle_of_a_step(kind, told):
    def made():
        return kind(tree_space(), 10.0, steps=6, per_step=3, hidden=8, seed=5)

    whole, cut = made(), made()
    for strategy in (whole, cut):
        for _ in range(told):
            asked = strategy.ask(1)
            strategy.tell(asked, [0.1 * sum(asked[0].choices)], [10.0 + asked[0].choices[0]])
    cut.ask(1)
    again = made()
    again.load_state(json.loads(json.dumps(cut.state())))
    for strategy in (whole, again):
        while not strategy.done:
            asked = strategy.ask(1)
            strategy.tell(asked, [0.1 * sum(asked[0].choices)], [10.0 + asked[0].choices[0]])
    assert again.evaluations == whole.evaluations
    assert again.state() == whole.state()
    assert again.best() == whole.best() and again.figures() == whole.figures()


@BOTH
def test_states_of_others_are_refused(kind):
    state = kind(plain_space(), 10.0, steps=2, hidden=4).state()
    with pytest.raises(UsageError, match="another size of controller"):
        kind(plain_space(), 10.0, steps=2, hidden=5).load_state(state)
    with pytest.raises(UsageError, match="not tree"):
        kind(tree_space(), 10.0, steps=2, hidden=4).load_state(state)


@BOTH
def test_the_seed_decides_all_that_is_drawn(kind):
    found = []
    for seed in (1, 1, 2):
        strategy = kind(plain_space(), 10.0, steps=3, per_step=5, seed=seed)
        while not strategy.done:
            step(strategy)
        found.append([item.choices for item in strategy.evaluations])
    assert found[0] == found[1] != found[2]


@BOTH
def test_what_is_off_is_sampled_as_option_0_and_never_moves(kind):
    strategy = kind(tree_space(), 10.0, steps=8, per_step=2, hidden=4)
    while not strategy.done:
        step(strategy, lambda item: 0.1 + 0.2 * item.choices[1])
    assert all(gate or a == 0 for gate, a in (item.choices for item in strategy.evaluations))
    policy = strategy.policy
    before = policy.controller.weights.copy()
    policy.update([(0, 0), (0, 0)], np.array([1.0, 0.0]))
    moved = policy.controller.weights != before
    # Of weights, those of the choice that was off: its outputs, embeddings and biases.
    hidden, layers = 4, policy.controller.layers
    start = hidden + layers * 8 * hidden * hidden + 2 * hidden
    assert moved.any() and not moved[start : start + 3 * hidden].any()
    assert not moved[-3:].any()


def test_reinforce_updates_are_the_papers():
    """Three updates against the formulas, with the controller's own log-probabilities."""
    policy = policy_of(entropy_weight=0.05)
    controller = policy.controller
    weights, squares, average = controller.weights.copy(), 0.0, 0.0
    random = np.random.default_rng(0)
    for number in range(1, 4):
        rows, rewards = policy.sample(4, random), random.random(4)
        followed = controller.follow(rows)
        earned = rewards + 0.05 * followed.entropy()
        average = 0.9 * average + 0.1 * earned.mean()
        baseline = average / (1 - 0.9**number)
        gradient = controller.gradient(followed, -(earned - baseline) / 4)
        squares = 0.999 * squares + 0.001 * gradient**2
        weights = weights - 0.01 * gradient / (np.sqrt(squares / (1 - 0.999**number)) + 1e-3)
        policy.update(rows, rewards)
        assert policy.baseline == pytest.approx(baseline)
        np.testing.assert_allclose(controller.weights, weights, atol=1e-12)


def test_ppos_objective_stops_where_a_row_went_far_enough():
    ratios = np.array([1.0, 1.3, 0.7, 1.3, 0.7, 1.1, 0.9])
    advantages = np.array([2.0, 2.0, 2.0, -2.0, -2.0, 2.0, -2.0])
    found = clipped_slopes(ratios, advantages, 0.2)
    assert found == pytest.approx([2.0, 0.0, 1.4, -2.6, 0.0, 2.2, -1.8])
    # They are the slopes of min(r A, clip(r) A) by log r.
    for ratio, advantage, slope in zip(ratios, advantages, found, strict=True):

        def objective(log, advantage=advantage):
            moved = np.exp(log)
            return min(moved * advantage, np.clip(moved, 0.8, 1.2) * advantage)

        middle = np.log(ratio)
        numeric = (objective(middle + 1e-6) - objective(middle - 1e-6)) / 2e-6
        assert slope == pytest.approx(numeric, abs=1e-6)


def test_ppo_keeps_a_row_near_the_clip_where_no_other_pushes_it():
    rows, rewards = [(0, 0, 0, 0), (1, 1, 1, 1)], np.array([1.0, 0.0])
    ratios = []
    for passes in (1, 4, 100):
        policy = policy_of(ClippedPolicy, clip=0.2, passes=passes, learning_rate=0.003)
        before = policy.controller.follow(rows).log_probability()
        policy.update(rows, rewards)
        ratios.append(np.exp(policy.controller.follow(rows).log_probability() - before))
        assert policy.step == 1
    (once, _), (some, _), (many, less) = ratios
    assert 1 < once < some < many < 1.3
    assert 0.7 < less < 1


def test_entropy_weight_keeps_ppos_policy_wide():
    found = []
    for weight in (0.0, 0.3):
        policy = policy_of(ClippedPolicy, entropy_weight=weight, learning_rate=0.02)
        policy.controller.weights *= 20
        random = np.random.default_rng(0)
        start = policy.entropy()
        for _ in range(30):
            policy.update(policy.sample(8, random), np.zeros(8))
        found.append((start, policy.entropy()))
    assert found[0][0] == found[0][1]
    assert found[1][1] > found[1][0] + 0.1


def test_skips_are_drawn_towards_their_target():
    """ENAS's divergence: summed over the skips of a layer, a mean over layers that have any."""
    choices = [
        Choice("layer1", ("a", "b")),
        Choice("layer2.from1", ("no", "yes")),
        Choice("layer3.from1", ("no", "yes")),
        Choice("layer3.from2", ("no", "yes")),
    ]
    assert skip_pulls(choices, 0.4, 0.0) == {}
    pulls = skip_pulls(choices, 0.4, 0.8)
    assert {position: weight for position, (_, weight) in pulls.items()} == {1: 0.4, 2: 0.4, 3: 0.4}
    assert all(np.array_equal(wanted, [0.6, 0.4]) for wanted, _ in pulls.values())
    policy = policy_of(choices=choices, skip_weight=0.8, skip_target=0.1)
    random = np.random.default_rng(0)
    for _ in range(150):
        policy.update(policy.sample(4, random), np.zeros(4))
    shares = np.mean(policy.sample(800, random), axis=0)
    assert shares[1:] == pytest.approx([0.1] * 3, abs=0.05)
    assert shares[0] == pytest.approx(0.5, abs=0.1)


def test_constants_are_the_papers():
    def defaults(kind):
        parameters = inspect.signature(kind).parameters
        return {name: parameter.default for name, parameter in parameters.items()}

    enas, nasnet = defaults(LstmReinforce), defaults(LstmPpo)
    assert (enas["layers"], enas["hidden"], enas["tanh_constant"]) == (2, 32, 1.1)
    assert (enas["learning_rate"], enas["baseline_decay"]) == (0.0035, 0.99)
    assert enas["entropy_weight"] == 1e-4
    assert (nasnet["layers"], nasnet["hidden"], nasnet["tanh_constant"]) == (1, 100, None)
    assert (nasnet["learning_rate"], nasnet["baseline_decay"]) == (3.5e-4, 0.95)
    assert nasnet["entropy_weight"] == 1e-5 and nasnet["per_step"] == 20


@BOTH
@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 0},
        {"per_step": 0},
        {"learning_rate": 0.0},
        {"baseline_decay": 1.0},
        {"entropy_weight": -1.0},
        {"hidden": 0},
    ],
)
def test_impossible_arguments_are_refused(kind, wrong):
    with pytest.raises(UsageError):
        kind(plain_space(), 10.0, **{"steps": 3, **wrong})
    if kind is LstmPpo:
        with pytest.raises(UsageError, match="clips"):
            kind(plain_space(), 10.0, steps=3, passes=0)
