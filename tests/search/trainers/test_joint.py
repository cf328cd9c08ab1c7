"""TuNAS's joint step: weights learn, then the policy, from images of their own."""

import inspect
import threading
from collections import Counter
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch
from latkit.devices.errors import UnreachableTargetError, UsageError
from latkit.latency.cost import lay_out
from latkit.latency.network import block_graph
from latkit.latency.ops import multiply_adds
from latkit.search.choices import SKIP
from latkit.search.data import Part, load_data
from latkit.search.images.source import HeldImages
from latkit.search.loading import BatchLoader, ValidationLoader
from latkit.search.rmsprop import RMSProp
from latkit.search.settings import TrainingSettings
from latkit.search.spaces import (
    SMALL_IMAGES,
    Scale,
    mobilenet_v3_like,
    proxylessnas,
    proxylessnas_enlarged,
)
from latkit.search.spaces.mobile import MobileSpace, mobile_stage
from latkit.search.supernet import Supernet
from latkit.search.trainers.joint import Joint, train_jointly, tunas_settings
from latkit.search.training import Trainer, fingerprint, set_threads

STAGES = (mobile_stage((8, 16), 2, 1), mobile_stage((16, 24), 3, 2))
SPACE = MobileSpace(10, stages=STAGES, resolution=8, stem_channels=8, hidden_channels=16)
LARGE = mobilenet_v3_like(10, SMALL_IMAGES)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    set_threads(1)


@pytest.fixture(scope="module")
def data():
    return load_data(image_size=8)


def cost_of(space):
    return lay_out(space, lambda block: multiply_adds(block_graph(block)) / 1e6)


def joint_of(data, *, space=SPACE, target_ms=None, **options):
    cost = cost_of(space)
    target_ms = target_ms or (cost.minimum()[0] + cost.maximum()[0]) / 2
    return Joint(Supernet(space), data, cost, target_ms, **options)


def batch_of(data, size=16, progress=0.5, seed=0):
    loader = BatchLoader(data, 1, size, seed, shift=0, flip=False, label_smoothing=0.1)
    return replace(loader.batch(0), progress=progress)


def draws(joint, progress, count=400):
    random = np.random.default_rng(1)
    return [draw for _ in range(count) for draw in joint.draw(progress, random)]


@pytest.mark.parametrize("space", [SPACE, LARGE], ids=lambda space: space.name)
def test_policy_gradient_is_autograds_with_warm_up_on(data, space):
    """Of -(R - b) * log p, where a replaced choice gives log q and another log(1 - q) + its own."""
    joint = joint_of(data, space=space, per_step=9)
    random = np.random.default_rng(0)
    for logits in joint.policy.logits:
        logits[:] = random.normal(size=len(logits))
    drawn = joint.draw(0.1, random)
    chance = 1 - 0.1 / 0.25
    advantages = random.normal(size=9)
    leaves = [torch.tensor(logits, requires_grad=True) for logits in joint.policy.logits]
    loss = torch.zeros((), dtype=torch.float64)
    for draw, advantage in zip(drawn, advantages, strict=True):
        run = [
            0 if taken and choice.kind == "operation" else option
            for choice, taken, option in zip(
                space.choices, draw.replaced, draw.sampled, strict=True
            )
        ]  # the first option is none that skips
        for position, on in enumerate(space.active(run)):
            if on and draw.replaced[position]:
                loss = loss - advantage * np.log(chance)
            elif on:
                own = leaves[position].log_softmax(0)[draw.sampled[position]]
                loss = loss - advantage * (np.log(1 - chance) + own)
    (loss / 9).backward()
    found = joint.policy.gradients(
        [draw.sampled for draw in drawn], [draw.counted for draw in drawn], advantages
    )
    assert any(any(draw.replaced) for draw in drawn)
    for one, leaf in zip(found, leaves, strict=True):
        expected = np.zeros(len(one)) if leaf.grad is None else leaf.grad.numpy()
        np.testing.assert_allclose(one, expected, atol=1e-12)


@pytest.mark.parametrize("progress", [0.0, 0.1, 0.25, 0.9])
def test_chance_of_warm_up_falls_linearly_for_each_choice(data, progress):
    drawn = draws(joint_of(data), progress)
    found = np.mean([draw.replaced for draw in drawn], axis=0)
    assert found == pytest.approx(np.full(len(SPACE.choices), max(0, 1 - 4 * progress)), abs=0.08)


@pytest.mark.parametrize("kind", ["operation", "width"])
def test_each_warm_up_can_be_switched_off(data, kind):
    off = {"operation": "operation_warmup", "width": "filter_warmup"}[kind]
    for draw in draws(joint_of(data, **{off: 0.0}), 0.0, 20):
        for choice, taken in zip(SPACE.choices, draw.replaced, strict=True):
            assert taken == (choice.kind != kind)


@pytest.mark.parametrize("space", [SPACE, LARGE], ids=lambda space: space.name)
def test_what_runs_is_the_sample_but_for_what_warm_up_replaced(data, space):
    for draw in draws(joint_of(data, space=space), 0.12, 100):
        space.validate(draw.architecture)
        origins = space.origins(
            [
                0 if taken and choice.kind == "operation" else option
                for choice, taken, option in zip(
                    space.choices, draw.replaced, draw.sampled, strict=True
                )
            ]
        )
        active = space.active(draw.architecture.choices)
        for position, origin in enumerate(origins):
            choice, option = space.choices[position], draw.architecture.choices[position]
            taken = draw.replaced[origin]
            assert (position in draw.averaged) == (taken and choice.kind == "operation")
            if not active[position]:
                continue
            if taken and choice.kind == "width":
                assert choice.options[option] == max(choice.options)
            elif taken:
                assert choice.options[option] != SKIP
            else:
                assert option == draw.sampled[origin]


def coded(data):
    """The data with images that tell which they are, and without any test images."""
    parts, codes = [], iter(range(256))
    for part, count in ((data.train, 120), (data.validation, 100)):
        pixels = torch.stack([torch.full((3, 8, 8), next(codes)) for _ in range(count)])
        random = torch.randint(0, 256, (count, 1, 7, 8), generator=torch.Generator().manual_seed(0))
        pixels[:, 1:, 1:] = random
        images = HeldImages(pixels.to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy())
        parts.append(Part(images, np.arange(count), part.labels[:count]))
    train, validation = parts
    return replace(data, train=train, validation=validation, test=None, mean=(0.0,) * 3)


def test_weights_learn_from_training_images_before_validation_images_score_them(data):
    data = coded(data)
    joint = joint_of(data, operation_warmup=0.0, filter_warmup=0.0)
    supernet, seen = joint.supernet, []

    def look(module, arguments, keywords, output):
        pixels = arguments[0][:, 0, 0, 0] * data.deviation[0]
        seen.append((pixels.round().int().tolist(), fingerprint(supernet), arguments[1], output))

    supernet.register_forward_hook(look, with_kwargs=True)
    settings = TrainingSettings(2, 8, learning_rate=0.1, warmup_share=0.0, shift=0)
    trainer = Trainer(supernet, data, settings, subject="run")
    trained, scored = Counter(), Counter()
    for _ in range(trainer.steps):
        before = fingerprint(supernet)
        seen.clear()
        trainer.step(joint)
        (images, with_weights, one, _), (others, moved, other, logits) = seen
        assert (before, fingerprint(supernet)) == (with_weights, moved)
        assert before != moved
        assert one == other == joint.draws[0].architecture
        trained.update(images)
        scored.update(others)
        assert len(images) == 8 and len(others) == len(set(others)) == 32
        labels = data.validation.labels[torch.tensor(others) - 120]
        assert joint.evaluations[0].accuracy == float((logits.argmax(1) == labels).double().mean())
        assert not logits.requires_grad
    assert trained == dict.fromkeys(range(120), 2)
    assert set(scored) == set(range(120, 220))


@pytest.mark.parametrize("make", [proxylessnas, proxylessnas_enlarged, mobilenet_v3_like])
def test_papers_spaces_are_searched_with_all_filters_and_operations_on(data, make):
    space = make(10, Scale(0.125, (8,)))
    joint = joint_of(data, space=space)
    batch = batch_of(data, size=4, progress=0.0)
    joint(batch)
    joint.after_step(batch)
    (draw,) = joint.draws
    assert all(draw.replaced) and not any(draw.counted)
    for name, weight in joint.supernet.named_parameters():
        assert weight.grad is not None, name
        assert weight[joint.supernet.active[name]].shape == weight.shape, name


def test_scoring_leaves_no_gradients(data):
    joint = joint_of(data)
    batch = batch_of(data, progress=0.0)
    joint(batch)
    joint.supernet.zero_grad()
    joint.after_step(batch)
    assert all(weight.grad is None for weight in joint.supernet.parameters())


def test_images_to_score_on_are_read_ahead_and_depend_on_seed_step_and_process(data, monkeypatch):
    threads = set()
    read = Part.read

    def noted(part, chosen, crops=None):
        threads.add(threading.current_thread().name.split("_")[0])
        return read(part, chosen, crops)

    joint = joint_of(data)
    plain = batch_of(data)
    steps = [replace(plain, step=step) for step in range(3)]
    monkeypatch.setattr(Part, "read", noted)
    joint.draws = joint.draw(0.5, np.random.default_rng(0))
    for batch in steps:
        joint.after_step(batch)
    assert threads == {"latkit-batches"}
    loaders = [
        ValidationLoader(data, 64, seed, workers, rank)
        for seed, workers, rank in ((0, 1, 0), (0, 3, 0), (1, 1, 0), (0, 1, 1))
    ]
    first, again, other_seed, other_rank = (
        [batch.inputs for batch in islice(loader.batches(0), 3)] for loader in loaders
    )
    assert all(map(torch.equal, first, again))
    assert torch.equal(loaders[0].batch(2).inputs, first[2])
    for other in (first[1:], other_seed, other_rank):
        assert not any(map(torch.equal, first, other))
    few = replace(data, validation=data.validation.only(torch.arange(50)))
    every = ValidationLoader(few, 64, 0).batch(7)
    assert len(every.labels) == 50
    assert sorted(every.labels.tolist()) == sorted(few.validation.labels.tolist())


def test_warm_up_is_the_same_when_scored(data):
    joint = joint_of(data)
    calls = []
    joint.supernet.register_forward_hook(
        lambda module, arguments, keywords, output: calls.append((arguments[1], keywords)),
        with_kwargs=True,
    )
    batch = batch_of(data, progress=0.0)
    joint(batch)
    joint.after_step(batch)
    assert calls[0] == calls[1]
    operations = [i for i, choice in enumerate(SPACE.choices) if choice.kind == "operation"]
    assert calls[0][1] == {"averaged": frozenset(operations)}


def test_latency_is_of_the_sample_not_of_what_warm_up_runs(data):
    joint = joint_of(data, per_step=3)
    batch = batch_of(data, progress=0.0)
    joint(batch)
    joint.after_step(batch)
    sampled = [SPACE.architecture(draw.sampled) for draw in joint.draws]
    expected = joint.cost.latency_ms(SPACE.encode(sampled))
    assert [item.latency_ms for item in joint.evaluations] == expected.tolist()
    assert len({draw.architecture for draw in joint.draws}) == 1


def test_architectures_of_a_step_share_its_images(data):
    joint = joint_of(data, per_step=2)
    batch = batch_of(data, size=9, progress=0.3)
    found = joint(batch)
    gradients = {name: weight.grad for name, weight in joint.supernet.named_parameters()}
    joint.supernet.zero_grad()
    total = 0.0
    for draw, part in zip(joint.draws, (slice(0, 4), slice(4, 9)), strict=True):
        own = replace(batch, inputs=batch.inputs[part], labels=batch.labels[part])
        loss = own.loss(joint.supernet(own.inputs, draw.architecture)) * len(own.labels) / 9
        loss.backward()
        total += loss.item()
    assert found == pytest.approx(total)
    for name, weight in joint.supernet.named_parameters():
        if weight.grad is not None:
            torch.testing.assert_close(gradients[name], weight.grad)
    with pytest.raises(UsageError, match="too few"):
        joint(batch_of(data, size=3))
    with pytest.raises(UsageError, match="2 validation images are too few"):
        joint_of(replace(data, validation=data.validation.only(torch.arange(2))), per_step=2)


def test_policy_moves_toward_what_pays(data):
    """Accuracy being next to nothing after so few steps, the reward is the latency's."""
    cost = cost_of(SPACE)
    target_ms = 0.9 * cost.maximum()[0]
    joint = joint_of(
        data,
        target_ms=target_ms,
        strength=-5.0,
        learning_rate=0.05,
        operation_warmup=0.0,
        scoring_batches=1,
    )
    uniform = cost.expected(joint.policy.probabilities())
    few = replace(data, train=data.train.only(torch.arange(480)))
    joint.data = few
    best = train_jointly(joint, replace(tunas_settings(1, 8), learning_rate=1e-3))
    found = cost.expected(joint.policy.probabilities())
    assert abs(found - target_ms) < 0.35 * abs(uniform - target_ms)
    assert best == joint.best() == SPACE.architecture(joint.policy.mode())
    (predicted,) = cost.latency_ms(SPACE.encode([best]))
    assert predicted == pytest.approx(target_ms, rel=0.15)


def test_policy_rests_until_its_delay_while_the_baseline_follows(data):
    joint = joint_of(data, learning_rate=0.5)
    for seed, progress in enumerate((0.0, 0.24)):
        batch = batch_of(data, progress=progress, seed=seed)
        joint(batch)
        joint.after_step(batch)
    assert not any(logits.any() for logits in joint.policy.logits)
    assert joint.policy.average != 0 and joint.policy.step == 2
    batch = batch_of(data, progress=0.25, seed=2)
    joint(batch)
    joint.after_step(batch)
    assert any(logits.any() for logits in joint.policy.logits)


class Interrupted(Joint):
    """Is cut off in one step after the weights have moved and before the policy has."""

    at = 0

    def after_step(self, batch):
        if batch.step == self.at:
            raise KeyboardInterrupt
        super().after_step(batch)


def trained(data, checkpoint, cut=None):
    supernet, cost = Supernet(SPACE), cost_of(SPACE)
    joint = Interrupted(
        supernet, data, cost, cost.maximum()[0] / 2, learning_rate=0.05, scoring_batches=1
    )
    joint.at = cut
    settings = tunas_settings(1, 64)
    trainer = Trainer(
        supernet, data, settings, subject="run", checkpoint=checkpoint, checkpoint_seconds=0
    )
    if cut is None:
        trainer.run(joint)
    else:
        with pytest.raises(KeyboardInterrupt):
            trainer.run(joint)
    return supernet, joint


@pytest.fixture(scope="module")
def whole(data):
    return trained(data, None)


@pytest.mark.parametrize(("cut", "warm"), [(1, True), (9, False)])
def test_run_that_was_cut_off_within_a_step_goes_on_bit_for_bit(tmp_path, data, whole, cut, warm):
    supernet, joint = whole
    _, broken = trained(data, tmp_path / "a.checkpoint", cut)
    assert any(broken.draws[0].replaced) == warm
    again, resumed = trained(data, tmp_path / "a.checkpoint")
    assert fingerprint(again) == fingerprint(supernet)
    assert resumed.state_dict() == joint.state_dict()
    assert resumed.evaluations == joint.evaluations
    assert resumed.policy.step == 16
    assert max(np.abs(logits).max() for logits in resumed.policy.logits) > 0.05


def test_state_of_another_search_is_refused(data):
    state = joint_of(data).state_dict()
    with pytest.raises(UsageError, match="another strength, per_step"):
        joint_of(data, strength=-0.2, per_step=2).load_state_dict(state)
    joint_of(data).load_state_dict(state)


def test_constants_are_the_papers():
    defaults = {
        name: parameter.default for name, parameter in inspect.signature(Joint).parameters.items()
    }
    for name, value in {
        "reward": "absolute",
        "strength": -0.10,
        "learning_rate": 3e-4,
        "delay": 0.25,
        "operation_warmup": 0.25,
        "filter_warmup": 0.25,
        "scoring_batches": 4,
    }.items():
        assert defaults[name] == value, name
    settings = tunas_settings(1, 256)
    assert (settings.optimiser, settings.momentum, settings.label_smoothing) == (
        "rmsprop",
        0.9,
        0.1,
    )
    assert (settings.learning_rate, settings.warmup_share) == (pytest.approx(0.165), 0.025)
    assert settings.schedule == "cosine" and settings.rate(1) == pytest.approx(0)
    assert tunas_settings(1, 64).learning_rate == pytest.approx(0.165 / 4)
    optimiser = inspect.signature(RMSProp).parameters
    assert (optimiser["decay"].default, optimiser["epsilon"].default) == (0.9, 1.0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"operation_warmup": 0.3},
        {"filter_warmup": 0.1, "operation_warmup": 0.1, "delay": 0.05},
        {"filter_warmup": -0.1},
        {"per_step": 0},
        {"scoring_batches": 0},
        {"reward": "other"},
        {"strength": 0.1},
        {"delay": 1.0},
    ],
)
def test_impossible_arguments_are_refused(data, wrong):
    with pytest.raises(UsageError):
        joint_of(data, **wrong)


def test_a_target_that_nothing_meets_is_refused_at_once(data):
    with pytest.raises(UnreachableTargetError, match="smallest reachable"):
        joint_of(data, target_ms=1e-6)
