"""ENAS's turns: an epoch for the weights, then some steps for the controller."""

import inspect
from dataclasses import replace

import numpy as np
import pytest
import torch
from latkit.devices.errors import UnreachableTargetError, UsageError
from latkit.latency.network import block_graph
from latkit.latency.ops import multiply_adds
from latkit.latency.pricing import cost_model
from latkit.search.data import load_data
from latkit.search.loading import BatchLoader
from latkit.search.recalibration import SupernetEvaluator
from latkit.search.settings import TrainingSettings
from latkit.search.spaces.enas import EnasMacroSpace
from latkit.search.spaces.enas_micro import EnasMicroSpace
from latkit.search.spaces.mobile import MobileSpace, mobile_stage
from latkit.search.spaces.scale import Scale
from latkit.search.strategies.reward import absolute_reward
from latkit.search.supernet import Supernet
from latkit.search.trainers.controlled import Controlled
from latkit.search.training import Trainer, fingerprint, set_threads

STAGES = (mobile_stage((8, 16), 2, 1), mobile_stage((16, 24), 3, 2))
SPACE = MobileSpace(10, stages=STAGES, resolution=8, stem_channels=8, hidden_channels=16)
SMALL = Scale(width=0.05, resolutions=(8,))
EPOCH_STEPS = 4


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    set_threads(1)


@pytest.fixture(scope="module")
def data():
    found = load_data(image_size=8)
    return replace(found, train=found.train.only(torch.arange(EPOCH_STEPS * 16)))


def controlled_of(data, *, space=SPACE, kind=Controlled, target_ms=None, **options):
    cost = cost_model(space, lambda block: multiply_adds(block_graph(block)) / 1e6)
    target_ms = target_ms or (cost.minimum()[0] + cost.maximum()[0]) / 2
    small = {"controller_steps": 3, "per_step": 2, "derived": 4, "hidden": 8}
    return kind(Supernet(space), data, cost, target_ms, **{**small, **options})


def trainer_of(rule, data, checkpoint=None, epochs=2):
    settings = TrainingSettings(epochs, 16, learning_rate=0.05, warmup_share=0.0)
    return Trainer(
        rule.supernet, data, settings, subject="run", checkpoint=checkpoint, checkpoint_seconds=0
    )


def test_batches_tell_where_epochs_end(data):
    loader = BatchLoader(data, 2, 16, 0, shift=0, flip=False, label_smoothing=0.0)
    ends = [batch.ends_epoch for batch in loader.batches(0)]
    assert ends == ([False] * (EPOCH_STEPS - 1) + [True]) * 2


def test_the_controller_learns_after_each_epoch_and_the_weights_in_it(data):
    rule = controlled_of(data)
    trainer = trainer_of(rule, data)
    moves = []
    for _ in range(trainer.steps):
        weights, policy = fingerprint(rule.supernet), rule.policy.controller.weights.copy()
        trainer.step(rule)
        moves.append(not np.array_equal(policy, rule.policy.controller.weights))
        assert fingerprint(rule.supernet) != weights
        if moves[-1]:
            assert len(rule.evaluations) == 6
    assert moves == ([False] * (EPOCH_STEPS - 1) + [True]) * 2
    assert rule.policy.step == 2 * rule.controller_steps
    assert all(weight.grad is None for weight in rule.supernet.parameters())


def test_each_architecture_is_scored_on_validation_images_of_its_own_by_weights_that_rest(data):
    rule = controlled_of(data)
    seen = []

    def look(module, arguments, output):
        seen.append((arguments[0].clone(), fingerprint(module), arguments[1], output))

    rule.supernet.register_forward_hook(look)
    trainer = trainer_of(rule, data)
    every = {
        name: data.inputs(part.read(range(len(part)))).flatten(1)
        for name, part in (("train", data.train), ("validation", data.validation))
    }
    for _ in range(EPOCH_STEPS):
        trainer.step(rule)
    learned, scored = seen[:EPOCH_STEPS], seen[EPOCH_STEPS:]
    assert len(scored) == len(rule.evaluations) == 6
    assert len({weights for _, weights, _, _ in scored}) == 1
    assert all(not output.requires_grad for *_, output in scored)
    assert len({architecture for _, _, architecture, _ in learned}) > 1
    drawn = set()
    for (images, _, architecture, logits), found in zip(scored, rule.evaluations, strict=True):
        assert architecture == found.architecture == SPACE.architecture(found.choices)
        same = (images.flatten(1)[:, None] == every["validation"]).all(2)
        assert same.any(1).all() and len(images) == 16
        numbers = same.int().argmax(1)
        right = logits.argmax(1) == data.validation.labels[numbers]
        assert found.accuracy == float(right.double().mean())
        (predicted,) = rule.cost.latency_ms(SPACE.encode([architecture]))
        assert found.latency_ms == predicted
        drawn.add(tuple(numbers.tolist()))
    assert len(drawn) == 6


def test_the_controller_moves_toward_what_pays(data):
    """Accuracy being next to nothing after so few steps, the reward is the latency's."""
    rule = controlled_of(
        data,
        strength=-5.0,
        controller_steps=60,
        per_step=4,
        learning_rate=0.02,
        tanh_constant=2.5,
    )
    rule.target_ms = 0.9 * rule.cost.maximum()[0]

    def mean_ms():
        rows = rule.policy.sample(200, np.random.default_rng(0))
        found = rule.cost.latency_ms(SPACE.encode([SPACE.architecture(row) for row in rows]))
        return float(found.mean())

    before = mean_ms()
    trainer_of(rule, data, epochs=1).run(rule)
    assert abs(mean_ms() - rule.target_ms) < 0.4 * abs(before - rule.target_ms)


def test_the_most_rewarded_of_some_sampled_architectures_stands(data):
    rule = controlled_of(data, derived=6)
    trainer_of(rule, data).run(rule)
    evaluator = SupernetEvaluator(rule.supernet, data)
    rows = rule.policy.sample(6, np.random.default_rng(0))
    found = [SPACE.architecture(row) for row in rows]
    rewards = absolute_reward(
        [evaluator.accuracy(architecture) for architecture in found],
        rule.cost.latency_ms(SPACE.encode(found)),
        rule.target_ms,
    )
    assert rule.best() == found[int(np.argmax(rewards))] == rule.best()
    assert len({*found}) > 1


class Interrupted(Controlled):
    """Is cut off in the middle of one of the controller's turns."""

    at = None

    def _teach(self, batch, random):
        if self.policy.step == self.at:
            raise KeyboardInterrupt
        super()._teach(batch, random)


def trained(data, checkpoint, cut=None):
    rule = controlled_of(data, kind=Interrupted)
    rule.at = cut
    trainer = trainer_of(rule, data, checkpoint)
    if cut is None:
        trainer.run(rule)
    else:
        with pytest.raises(KeyboardInterrupt):
            trainer.run(rule)
    return rule


@pytest.mark.parametrize("cut", [1, 4])
def test_a_run_that_was_cut_off_in_a_turn_goes_on_bit_for_bit(tmp_path, data, cut):
    whole = trained(data, None)
    trained(data, tmp_path / "a.checkpoint", cut)
    again = trained(data, tmp_path / "a.checkpoint")
    assert fingerprint(again.supernet) == fingerprint(whole.supernet)
    assert again.state_dict() == whole.state_dict()
    assert again.evaluations == whole.evaluations and again.best() == whole.best()
    finished = trained(data, tmp_path / "a.checkpoint")
    assert finished.best() == whole.best()


@pytest.mark.parametrize(
    "space",
    [
        EnasMicroSpace(10, SMALL, cells=3, channels=8, nodes=2),
        EnasMacroSpace(10, SMALL, layers=3),
    ],
    ids=lambda space: space.name,
)
def test_enas_spaces_are_searched(data, space):
    rule = controlled_of(data, space=space, skip_weight=0.8)
    assert len(rule.policy.pulls) == (3 if space.name == "enas_macro" else 0)
    trainer_of(rule, data, epochs=1).run(rule)
    space.validate(rule.best())
    assert len(rule.evaluations) == 6


def test_state_of_another_search_is_refused(data):
    state = controlled_of(data).state_dict()
    with pytest.raises(UsageError, match="another strength, skip_weight"):
        controlled_of(data, strength=-0.2, skip_weight=0.1).load_state_dict(state)
    controlled_of(data).load_state_dict(state)


def test_constants_are_the_papers():
    parameters = inspect.signature(Controlled).parameters
    for name, value in {
        "tanh_constant": 1.1,
        "learning_rate": 0.0035,
        "baseline_decay": 0.99,
        "entropy_weight": 1e-4,
        "skip_target": 0.4,
        "layers": 2,
    }.items():
        assert parameters[name].default == value, name


@pytest.mark.parametrize(
    "wrong",
    [
        {"controller_steps": 0},
        {"per_step": 0},
        {"derived": 0},
        {"reward": "other"},
        {"strength": 0.1},
        {"skip_target": 1.0},
        {"skip_weight": -1.0},
        {"baseline_decay": 1.0},
    ],
)
def test_impossible_arguments_are_refused(data, wrong):
    with pytest.raises(UsageError):
        controlled_of(data, **wrong)


def test_a_target_that_nothing_meets_is_refused_at_once(data):
    with pytest.raises(UnreachableTargetError, match="smallest reachable"):
        controlled_of(data, target_ms=1e-6)
