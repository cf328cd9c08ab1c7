import json

import numpy as np
import pytest
from latkit.devices.errors import UsageError
from latkit.search.choices import SKIP, Choice
from latkit.search.space import SearchSpace
from latkit.search.strategies.reinforce import Reinforce
from latkit.search.strategies.reward import absolute_reward


def plain_space(choices=2, options=3):
    return SearchSpace(
        "plain", [Choice(f"c{n}", tuple(range(options))) for n in range(choices)], []
    )


def step(strategy, accuracy_of, latency_of=lambda architecture: 10.0):
    asked = strategy.ask(strategy.per_step)
    strategy.tell(asked, [*map(accuracy_of, asked)], [*map(latency_of, asked)])
    return asked


def test_first_policy_is_uniform_and_its_mode_the_first_options():
    strategy = Reinforce(plain_space(), 10.0, steps=5)
    assert all(np.allclose(vector, 1 / 3) for vector in strategy.probabilities())
    assert strategy.best().choices == (0, 0)


def test_rate_is_zero_for_the_delay_then_rises_tenfold():
    strategy = Reinforce(plain_space(), 10.0, steps=100, learning_rate=0.02)
    rates = []
    while not strategy.done:
        rates.append(strategy.rate())
        step(strategy, lambda _: 0.5)
    assert rates[:25] == [0.0] * 25
    assert rates[25] == pytest.approx(0.02)
    assert rates[99] == pytest.approx(0.02 * 10 ** (74 / 75))
    assert np.allclose(np.diff(np.log(rates[25:])), np.log(10) / 75)


def test_policy_does_not_move_during_the_delay():
    strategy = Reinforce(plain_space(), 10.0, steps=8, learning_rate=0.5)
    for _ in range(2):
        step(strategy, lambda architecture: architecture.choices[0] / 2)
    assert all(not logits.any() for logits in strategy.logits)


def test_updates_are_the_papers():
    """Three steps against the formulas, written out for one choice of two options."""
    strategy = Reinforce(
        plain_space(1, 2), 10.0, steps=3, per_step=2, learning_rate=0.3, delay=0.0, seed=1
    )
    logits, squares, average, base = np.zeros(2), np.zeros(2), 0.0, 0.95
    for number in range(1, 4):
        asked = strategy.ask(2)
        accuracies = [0.2 + 0.5 * item.choices[0] + 0.01 * number for item in asked]
        latencies = [8.0 + 3 * item.choices[0] for item in asked]
        strategy.tell(asked, accuracies, latencies)
        rewards = [q - 0.10 * abs(t / 10.0 - 1) for q, t in zip(accuracies, latencies, strict=True)]
        average = base * average + (1 - base) * np.mean(rewards)
        baseline = average / (1 - base**number)
        probability = np.exp(logits) / np.exp(logits).sum()
        gradient = np.mean(
            [
                -(reward - baseline) * (np.eye(2)[item.choices[0]] - probability)
                for reward, item in zip(rewards, asked, strict=True)
            ],
            axis=0,
        )
        squares = 0.999 * squares + 0.001 * gradient**2
        rate = 0.3 * 10 ** ((number - 1) / 3)
        logits = logits - rate * gradient / (np.sqrt(squares / (1 - 0.999**number)) + 1e-8)
        np.testing.assert_allclose(strategy.logits[0], logits, rtol=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_converges_to_the_best_architecture_at_the_target(seed):
    space = plain_space(4, 3)
    strategy = Reinforce(
        space, 7.0, steps=400, per_step=4, learning_rate=0.01, strength=-0.5, seed=seed
    )
    # Accuracy rises with every option, latency too; 7 ms is met by a sum of options of 4.
    while not strategy.done:
        step(
            strategy,
            lambda architecture: 0.5 + 0.02 * sum(architecture.choices),
            lambda architecture: 3.0 + sum(architecture.choices),
        )
    assert sum(strategy.best().choices) == 4
    assert min(vector.max() for vector in strategy.probabilities()) > 0.5


def test_choices_that_are_off_are_not_learned():
    space = SearchSpace(
        "tree", [Choice("on", ("no", "yes")), Choice("a", (0, 1), when={"on": ("yes",)})], []
    )
    strategy = Reinforce(space, 10.0, steps=40, delay=0.0, learning_rate=0.1, seed=2)
    for number in range(20):
        asked = strategy.ask(1)
        before = strategy.logits[1].copy()
        strategy.tell(asked, [0.1 * (number % 7)], [10.0])
        off = not strategy.evaluations[-1].architecture.choices[0]
        # A zero gradient leaves the logits, whatever Adam remembers.
        assert np.array_equal(before, strategy.logits[1]) == (off or number == 0)


def test_log_probability_is_of_the_choices_as_sampled_not_of_their_canonical_form():
    """(skip, 3) and (3, skip) are one network; rewarding it must not favour one sampling of it."""
    names = ("a", "b")
    space = SearchSpace("run", [Choice(name, (3, SKIP)) for name in names], [], [names])
    strategy = Reinforce(space, 10.0, steps=50, delay=0.0, learning_rate=0.01, seed=0)
    seen = set()
    for _ in range(30):
        before = [logits.copy() for logits in strategy.logits]
        (architecture,) = step(strategy, lambda item: 0.9 if item.choices == (0, 1) else 0.1)
        sampled = strategy.evaluations[-1].choices
        assert architecture.choices == space.canonical(sampled)
        reward, average = strategy.evaluations[-1].accuracy, strategy.policy.average
        sign = np.sign(reward - average / (1 - 0.95**strategy.step))
        for logits, old, choice in zip(strategy.logits, before, sampled, strict=True):
            if sign:
                assert np.sign(logits[choice] - old[choice]) == sign
        seen.add(sampled)
    assert (1, 0) in seen


def test_step_waits_for_all_of_its_architectures():
    strategy = Reinforce(plain_space(), 10.0, steps=3, per_step=4, delay=0.0, learning_rate=0.1)
    first = strategy.ask(3)
    assert len(first) == 3 and len(strategy.ask(10)) == 1 and strategy.ask(1) == []
    strategy.tell(first, [0.1, 0.5, 0.9], [10.0] * 3)
    assert strategy.step == 0 and not strategy.ask(1)


def test_changed_strength_recomputes_the_baseline_from_all_evaluations():
    strategies = [
        Reinforce(plain_space(), 10.0, steps=20, per_step=2, strength=strength)
        for strength in (-0.10, -0.7)
    ]
    random = np.random.default_rng(0)
    for _ in range(4):
        worth = random.random(2).tolist(), random.uniform(5, 15, 2).tolist()
        for strategy in strategies:
            strategy.tell(strategy.ask(2), *worth)
    changed, always = strategies
    assert changed.policy.average != pytest.approx(always.policy.average)
    changed.change_strength(-0.7)
    assert changed.policy.average == pytest.approx(always.policy.average)


@pytest.mark.parametrize(("strength", "warns"), [(-0.05, True), (-5.0, False)])
def test_strength_below_the_fronts_slope_is_warned_of(strength, warns):
    strategy = Reinforce(plain_space(3), 10.0, steps=30, per_step=2, strength=strength)
    assert strategy.warning() is None
    while not strategy.done:
        step(
            strategy,
            lambda architecture: 0.5 + 0.05 * sum(architecture.choices),
            lambda architecture: 7.0 + sum(architecture.choices),
        )
    warning = strategy.warning()
    assert (warning is not None) == warns
    if warning:
        assert "strength below -0.5" in warning  # .05 for 1 ms, so .5 for the target's 10 ms


def rise(strategy):
    """A step; accuracy rises by .5 for each target's worth of latency, of 7 to 13 ms."""
    step(
        strategy,
        lambda architecture: 0.5 + 0.05 * sum(architecture.choices),
        lambda architecture: 7.0 + sum(architecture.choices),
    )


def rising(strategy, steps=None):
    while not strategy.done and (steps is None or strategy.step < steps):
        rise(strategy)
    return strategy


def adaptive(**options):
    options = {"steps": 200, "per_step": 8, "strength": -0.05, "learning_rate": 0.05, **options}
    return Reinforce(plain_space(3), 10.0, **options)


@pytest.mark.parametrize("seed", range(3))
def test_adapted_strength_holds_the_target_where_a_fixed_one_does_not(seed):
    fixed, adapted = rising(adaptive(seed=seed)), rising(adaptive(seed=seed, hold_within=0.01))
    assert sum(fixed.best().choices) == 6
    assert sum(adapted.best().choices) == 3
    assert adapted.strength == pytest.approx(-(0.5 + 0.0025 / 0.01))
    assert adapted.figures()["strength"] == adapted.strength
    assert adapted.warning() is None


def test_strength_adapts_after_the_delay_and_never_falls():
    strategy = adaptive(hold_within=0.01, steps=40)
    strengths = []
    while not strategy.done:
        rise(strategy)
        strengths.append(strategy.strength)
    assert strengths[:9] == [-0.05] * 9
    assert strengths[-1] < -0.5
    assert (np.diff(strengths) <= 0).all()
    assert strengths[10::2] == strengths[9:-1:2]  # looked at every second step of forty


def test_strength_that_holds_already_is_left_alone():
    assert rising(adaptive(hold_within=0.01, strength=-5.0)).strength == -5.0


def test_baseline_of_an_adapted_strength_is_as_if_it_had_always_been():
    adapted = rising(adaptive(hold_within=0.01, steps=20))
    always = adaptive(strength=adapted.strength, steps=20)
    always.evaluations = adapted.evaluations
    always.policy.step = adapted.step
    always.change_strength(adapted.strength)
    assert adapted.policy.average == pytest.approx(always.policy.average)


def test_adapted_search_goes_on_from_its_state():
    whole, cut_off, resumed = (adaptive(hold_within=0.01, steps=40) for _ in range(3))
    resumed.load_state(json.loads(json.dumps(rising(cut_off, 17).state())))
    assert rising(resumed).state() == rising(whole).state()


def test_target_that_nothing_evaluated_is_near_to_is_warned_of():
    strategy = rising(adaptive(steps=20))
    far = adaptive(steps=20)
    far.target_ms = 10.4
    assert "misses it by" in rising(far).warning()
    assert "misses it by" not in strategy.warning()


@pytest.mark.parametrize("reward", ["soft", "hard", "absolute"])
def test_reward_is_the_one_asked_for(reward):
    strategy = Reinforce(plain_space(), 10.0, steps=2, per_step=1, reward=reward, strength=-0.2)
    step(strategy, lambda _: 0.5, lambda _: 12.0)
    expected = {"soft": 0.5 * 1.2**-0.2, "hard": 0.5 * 1.2**-0.2, "absolute": 0.46}[reward]
    assert strategy.policy.average / 0.05 == pytest.approx(expected)
    assert absolute_reward(0.5, 12.0, 10.0, -0.2) == pytest.approx(0.46)


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 0},
        {"per_step": 0},
        {"delay": 1.0},
        {"reward": "other"},
        {"strength": 0.1},
        {"hold_within": 0.0},
        {"hold_within": 0.01, "reward": "soft"},
        {"best_share": 0.0},
    ],
)
def test_impossible_arguments_are_refused(wrong):
    with pytest.raises(UsageError):
        Reinforce(plain_space(), 10.0, **{"steps": 5, **wrong})


def test_entropy_falls_from_that_of_uniform_draws():
    strategy = Reinforce(plain_space(), 10.0, steps=40, learning_rate=0.2, delay=0)
    assert strategy.figures()["policy_entropy"] == pytest.approx(2 * np.log(3))
    while not strategy.done:
        step(strategy, lambda architecture: float(architecture.choices == (1, 1)))
    assert strategy.figures()["policy_entropy"] < 2
