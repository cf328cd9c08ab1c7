"""Training on GPUs; and without one, that no step mixes in a tensor of another device."""

from contextlib import nullcontext
from functools import partial

import numpy as np
import pytest
import torch
from latkit.search.data import load_data
from latkit.search.loading import BatchLoader
from latkit.search.recalibration import SupernetEvaluator, accuracy, recalibrate
from latkit.search.relaxed import RelaxedSupernet
from latkit.search.retraining import fresh_model, retrain
from latkit.search.settings import TrainingSettings
from latkit.search.space import Architecture
from latkit.search.spaces.mobile import MobileSpace, mobile_stage
from latkit.search.spaces.nasbench201 import NasBench201Space
from latkit.search.spaces.scale import Scale
from latkit.search.supernet import Supernet
from latkit.search.trainers.bilevel import Bilevel
from latkit.search.trainers.path_dropout import PathDropout
from latkit.search.trainers.sandwich import Sandwich
from latkit.search.trainers.single_path import SinglePath
from latkit.search.training import Trainer, fingerprint, set_threads

STAGES = (mobile_stage((8, 16), 2, 1),)
SPACE = MobileSpace(10, stages=STAGES, resolution=8, stem_channels=8, hidden_channels=24)
CELLS = NasBench201Space(10, Scale(width=0.25, resolutions=(8,)), cells=1)
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")
on_each_device = pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=needs_gpu)])


def bilevel(supernet, data, second_order):
    held_out = BatchLoader(data, 1, 32, 0, 0, flip=False, label_smoothing=0)
    return Bilevel(supernet, held_out, second_order=second_order)


RULES = {
    "single path": (partial(Supernet, SPACE), lambda model, data: SinglePath(model)),
    "sandwich": (partial(Supernet, SPACE), lambda model, data: Sandwich(model)),
    "path dropout": (partial(RelaxedSupernet, CELLS), lambda model, data: PathDropout(model)),
    "bilevel": (partial(RelaxedSupernet, CELLS), partial(bilevel, second_order=False)),
    "second order": (partial(RelaxedSupernet, CELLS), partial(bilevel, second_order=True)),
}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    set_threads(1)


@pytest.fixture(scope="module")
def data():
    return load_data(image_size=8)


def settings_of(precision="float32"):
    return TrainingSettings(
        1, 64, accumulation=2, gradient_clip=1, average_decay=0.5, precision=precision
    )


@pytest.fixture
def shapes_alone(monkeypatch):
    """Lets code run on torch's `meta` device, which computes no values and mixes with no other."""
    for reads_a_number in ("item", "__float__"):
        monkeypatch.setattr(torch.Tensor, reads_a_number, lambda self: 1.0)
    monkeypatch.setattr(torch.Tensor, "__bool__", lambda self: True)
    monkeypatch.setattr(torch, "autocast", lambda *given, **named: nullcontext())


@pytest.mark.usefixtures("shapes_alone")
@pytest.mark.parametrize("rule", RULES)
def test_a_step_stays_on_the_device_of_the_model(data, rule):
    make, rule_of = RULES[rule]
    model = make().to("meta")
    trainer = Trainer(model, data, settings_of(), subject="run")
    moved = trainer._optimiser.step
    seen = []

    def watched(rate):
        seen.extend(weight.grad for weight in model.parameters() if weight.grad is not None)
        moved(rate)

    trainer._optimiser.step = watched
    trainer.step(rule_of(model, data))
    assert seen
    assert {gradient.device.type for gradient in seen} == {"meta"}


@pytest.mark.usefixtures("shapes_alone")
def test_scaled_architectures_and_statistics_stay_on_the_device(data):
    supernet = Supernet(SPACE).to("meta")
    model = supernet.extract(SPACE.sample(np.random.default_rng(0)))
    recalibrate(model, [data.inputs(data.train.read(range(8)))])
    assert {value.device.type for value in model.state_dict().values()} == {"meta"}


@needs_gpu
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_ways_of_learning_run_on_gpus_and_repeat_themselves(tmp_path, data, rule, precision):
    make, rule_of = RULES[rule]
    prints = []
    for name, cut in (("whole", 0), ("again", 0), ("cut", 3)):
        options = {"subject": "run", "checkpoint": tmp_path / name}
        model = make().cuda()
        trainer = Trainer(model, data, settings_of(precision), **options)
        learner = rule_of(model, data)
        if cut:
            for _ in range(cut):
                trainer.step(learner)
            trainer.save()
            model = make().cuda()
            trainer = Trainer(model, data, settings_of(precision), **options)
            learner = rule_of(model, data)
        trainer.run(learner)
        prints.append(fingerprint(model))
    assert len(set(prints)) == 1


@needs_gpu
@pytest.mark.parametrize("first", ["cpu", "cuda"])
def test_checkpoint_goes_on_on_another_device(tmp_path, data, first):
    for device in (first, "cuda" if first == "cpu" else "cpu"):
        model = Supernet(SPACE).to(device)
        checkpoint = tmp_path / "a.checkpoint"
        trainer = Trainer(model, data, settings_of(), subject="run", checkpoint=checkpoint)
        assert trainer.finished_steps == (0 if device == first else 2)
        for _ in range(2):
            trainer.step(SinglePath(model))
        trainer.save()


@on_each_device
def test_scores_are_those_of_any_device(data, device):
    supernet = Supernet(SPACE)
    moved = Supernet(SPACE).to(device)
    assert fingerprint(moved) == fingerprint(supernet)
    plain = SPACE.sample(np.random.default_rng(1))
    one, other = (SupernetEvaluator(net, data, batches=2) for net in (supernet, moved))
    for architecture in (plain, Architecture(plain.choices, None)):
        assert one.accuracy(architecture) == pytest.approx(other.accuracy(architecture), abs=0.02)
    folded = other.calibrated(plain).folded()
    for name, value in one.calibrated(plain).folded().items():
        np.testing.assert_allclose(folded[name], value, rtol=1e-3, atol=1e-4)
    model = fresh_model(SPACE.network(plain)).to(device)
    found = retrain(model, data, settings_of())
    assert found.validation_accuracy == accuracy(model, data, data.validation)
    assert next(found.model.parameters()).device.type == device
