"""Training in fewer bits: what it does to weights, and losses that are scaled."""

import pytest
import torch
from latkit.devices.errors import LatkitError, UsageError
from latkit.search.data import load_data
from latkit.search.loading import BatchLoader
from latkit.search.precision import FIRST_SCALE, GROWTH_STEPS, Computation, backward, gradients
from latkit.search.relaxed import RelaxedSupernet
from latkit.search.settings import TrainingSettings
from latkit.search.spaces.mobile import MobileSpace, mobile_stage
from latkit.search.spaces.nasbench201 import NasBench201Space
from latkit.search.spaces.scale import Scale
from latkit.search.supernet import Supernet
from latkit.search.trainers.bilevel import Bilevel
from latkit.search.trainers.sandwich import Sandwich
from latkit.search.trainers.single_path import SinglePath
from latkit.search.training import Trainer, set_threads

SPACE = MobileSpace(
    10, stages=(mobile_stage((8, 16), 2, 1),), resolution=8, stem_channels=8, hidden_channels=24
)
CELLS = NasBench201Space(10, Scale(width=0.25, resolutions=(8,)), cells=1)
CPU = torch.device("cpu")


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    set_threads(1)


@pytest.fixture(scope="module")
def data():
    return load_data(image_size=8)


def trainer_of(model, data, **options):
    settings = TrainingSettings(epochs=1, batch_size=64, gradient_clip=2.0, **options)
    return Trainer(model, data, settings, subject="run")


def weights_of(data, rule_of=SinglePath, steps=4, **options):
    supernet = Supernet(SPACE)
    trainer = trainer_of(supernet, data, **options)
    rule = rule_of(supernet)
    for _ in range(steps):
        trainer.step(rule)
    return torch.cat([weight.detach().flatten() for weight in supernet.parameters()])


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
@pytest.mark.parametrize("rule_of", [SinglePath, Sandwich])
def test_fewer_bits_learn_nearly_the_same(data, precision, rule_of):
    start = weights_of(data, steps=0)
    exact = weights_of(data, rule_of) - start
    found = weights_of(data, rule_of, precision=precision) - start
    assert found.dtype == torch.float32
    difference = float((found - exact).norm() / exact.norm())
    assert 1e-5 < difference < {"bfloat16": 0.3, "float16": 0.1}[precision]


def test_convolutions_compute_in_the_precision_asked_for(data):
    supernet = Supernet(SPACE)
    seen = []

    def rule(batch):
        logits = supernet(batch.inputs, SPACE.sample(batch.random))
        seen.append((batch.inputs.dtype, logits.dtype))
        backward(batch.loss(logits))
        return 0.0

    trainer_of(supernet, data, precision="bfloat16").step(rule)
    assert seen == [(torch.float32, torch.bfloat16)]


def test_gradients_too_small_for_float16_arrive(data):
    weight = torch.ones(4, requires_grad=True)
    tiny = torch.full((4,), 1e-9)
    computation = Computation("float16", CPU)

    def loss():
        return ((weight.half() * 1e-4) * (tiny * 1e4)).sum()

    assert not torch.autograd.grad(loss(), [weight])[0].any()
    with computation():
        by_hand = gradients(loss(), [weight])
        backward(loss())
    assert computation.unscale([weight.grad], 1)
    torch.testing.assert_close(weight.grad, tiny, rtol=0.01, atol=0)
    torch.testing.assert_close(by_hand[0], tiny, rtol=0.01, atol=0)


def test_scale_halves_at_an_overflow_and_grows_when_all_is_well():
    computation = Computation("float16", CPU)
    assert not computation.unscale([torch.tensor([1.0, torch.inf])], 1)
    assert computation.scale == FIRST_SCALE / 2
    for _ in range(GROWTH_STEPS):
        assert computation.unscale([torch.ones(2)], 1)
    assert computation.scale == FIRST_SCALE
    with pytest.raises(LatkitError, match="diverged"):
        for _ in range(100):
            computation.unscale([torch.tensor([torch.nan])], 1)


def test_a_step_that_overflows_moves_nothing_and_the_next_one_learns(data):
    supernet = Supernet(SPACE)
    trainer = trainer_of(supernet, data, precision="float16")
    trainer._computation.scale = 2.0**120
    before = [weight.detach().clone() for weight in supernet.parameters()]
    trainer.step(SinglePath(supernet))
    assert all(map(torch.equal, before, supernet.parameters()))
    trainer._computation.scale = 2.0**8
    trainer.step(SinglePath(supernet))
    assert not all(map(torch.equal, before, supernet.parameters()))


def test_scale_is_in_the_checkpoint(tmp_path, data):
    settings = TrainingSettings(epochs=1, batch_size=64, precision="float16")
    for scale in (2.0**7, FIRST_SCALE):
        trainer = Trainer(
            Supernet(SPACE), data, settings, subject="run", checkpoint=tmp_path / "a.checkpoint"
        )
        if scale == FIRST_SCALE:
            assert trainer._computation.scale == 2.0**7
        trainer._computation.scale = scale
        trainer.save()


def test_weights_that_moved_between_two_passes_are_seen():
    weight = torch.ones(2, 2, requires_grad=True)
    with Computation("bfloat16", CPU)():
        before = torch.eye(2) @ weight
        with torch.no_grad():
            weight.mul_(2)
        after = torch.eye(2) @ weight
    assert before.dtype == torch.bfloat16
    assert torch.equal(after, 2 * before)


def test_two_losses_that_lie_near_are_told_apart_in_full_precision(data):
    supernet = RelaxedSupernet(CELLS)
    held_out = BatchLoader(data, 1, 16, 7, 0, flip=False, label_smoothing=0)
    seen = []
    supernet.register_forward_hook(lambda module, read, logits: seen.append(logits.dtype))
    rule = Bilevel(supernet, held_out, second_order=True)
    with Computation("bfloat16", CPU)():
        found = rule.architecture_gradients(held_out.batch(0), held_out.batch(1))
    assert seen == 2 * [torch.bfloat16] + 2 * [torch.float32]
    assert all(gradient.isfinite().all() for gradient in found)


def test_unknown_precision_is_refused():
    with pytest.raises(UsageError, match="bfloat16"):
        TrainingSettings(epochs=1, precision="int3")
