"""Every way of learning repeats itself bit for bit, however it was cut off and its images read."""

from functools import partial

import pytest
import torch
from latkit.latency.cost import lay_out
from latkit.latency.counts import block_counts
from latkit.search.data import halves, load_data
from latkit.search.loading import BatchLoader
from latkit.search.relaxed import RelaxedSupernet
from latkit.search.settings import TrainingSettings
from latkit.search.spaces.mobile import MobileSpace, mobile_stage
from latkit.search.spaces.nasbench201 import NasBench201Space
from latkit.search.spaces.scale import Scale
from latkit.search.supernet import Supernet
from latkit.search.trainers.bi_sampling import BiSampling
from latkit.search.trainers.bilevel import Bilevel
from latkit.search.trainers.controlled import Controlled
from latkit.search.trainers.joint import Joint
from latkit.search.trainers.path_dropout import PathDropout
from latkit.search.trainers.sandwich import Sandwich
from latkit.search.trainers.single_path import SinglePath
from latkit.search.training import Trainer, set_threads
from staged_cases import small_space

STAGES = (mobile_stage((8, 16), 2, 1),)
SPACE = MobileSpace(10, stages=STAGES, resolution=8, stem_channels=8, hidden_channels=24)
CELLS = NasBench201Space(10, Scale(width=0.25, resolutions=(8,)), cells=1)
SETTINGS = TrainingSettings(
    epochs=1, batch_size=48, accumulation=2, precision="bfloat16", gradient_clip=5, flip=True
)
STEPS = 5


def flops(block):
    return float(block_counts(block).flops)


class Rules:
    """Makes each way of learning with the supernet that it teaches."""

    @staticmethod
    def single_path(data):
        supernet = Supernet(SPACE)
        return supernet, SinglePath(supernet)

    @staticmethod
    def sandwich(data):
        supernet = Supernet(SPACE)
        return supernet, Sandwich(supernet, random_children=1)

    @staticmethod
    def path_dropout(data):
        supernet = RelaxedSupernet(CELLS, affine=True)
        return supernet, PathDropout(supernet)

    @staticmethod
    def bilevel(data, second_order=False):
        supernet = RelaxedSupernet(CELLS)
        rule = Bilevel(supernet, loader(data), second_order=second_order, learning_rate=0.01)
        return supernet, rule

    @staticmethod
    def bi_sampling(data):
        space = small_space()
        supernet = RelaxedSupernet(space)
        target, _ = lay_out(space, flops).maximum()
        return supernet, BiSampling(supernet, loader(data), flops, target / 2, warm_epochs=0)

    @staticmethod
    def joint(data):
        supernet = Supernet(SPACE)
        cost = lay_out(SPACE, flops)
        target, _ = cost.maximum()
        return supernet, Joint(supernet, data, cost, target / 2, learning_rate=0.1, per_step=2)

    @staticmethod
    def controlled(data):
        supernet = Supernet(SPACE)
        cost = lay_out(SPACE, flops)
        target, _ = cost.maximum()
        options = {"controller_steps": 2, "per_step": 2, "hidden": 8}
        return supernet, Controlled(supernet, data, cost, target / 2, **options)


def loader(data):
    return BatchLoader(data, 1, 32, 0, 0, flip=False, label_smoothing=0)


RULES = {
    "single path": Rules.single_path,
    "sandwich": Rules.sandwich,
    "path dropout": Rules.path_dropout,
    "bilevel": Rules.bilevel,
    "bilevel of second order": partial(Rules.bilevel, second_order=True),
    "bi-sampling": Rules.bi_sampling,
    "joint": Rules.joint,
    "controlled": Rules.controlled,
}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    set_threads(1)


@pytest.fixture(scope="module")
def data():
    return halves(load_data(image_size=8))


def trained(make, data, checkpoint, *, workers=1, cut=0):
    """All that a run ended with; it may have been cut off after some steps, and gone on."""
    train, held_out = data
    supernet, rule = make(held_out)
    options = {"subject": "run", "checkpoint": checkpoint, "workers": workers}
    trainer = Trainer(supernet, train, SETTINGS, **options)
    assert trainer.steps == STEPS
    if cut:
        for _ in range(cut):
            trainer.step(rule)
        trainer.save()
        return trained(make, data, checkpoint, workers=workers)
    trainer.run(rule)
    found = dict(supernet.state_dict())
    if isinstance(rule, Bilevel | BiSampling):
        found |= {f"alpha {name}": alpha.detach() for name, alpha in rule.alphas.items()}
    if isinstance(rule, Joint):
        logits = enumerate(rule.policy.logits)
        found |= {f"logits {choice}": torch.from_numpy(vector) for choice, vector in logits}
        assert any(vector.any() for vector in rule.policy.logits)
    if isinstance(rule, Controlled):
        assert rule.policy.step == 2
        found["controller"] = torch.from_numpy(rule.policy.controller.weights)
    return found


@pytest.mark.parametrize("rule", RULES)
def test_runs_are_equal_bit_for_bit(tmp_path, data, rule):
    make = RULES[rule]
    once = trained(make, data, tmp_path / "once.checkpoint")
    again = trained(make, data, tmp_path / "again.checkpoint", workers=3)
    cut = trained(make, data, tmp_path / "cut.checkpoint", cut=2)
    start = dict(make(data[1])[0].state_dict())
    assert any(not torch.equal(once[name], value) for name, value in start.items())
    for name, value in once.items():
        assert torch.equal(again[name], value), name
        assert torch.equal(cut[name], value), name
