"""Gradients of several small batches in a step: those of one batch of all their images."""

from itertools import pairwise

import pytest
import torch
from latkit.devices.errors import UsageError
from latkit.search.data import load_data
from latkit.search.learning import learn
from latkit.search.settings import TrainingSettings
from latkit.search.spaces.mobile import MobileSpace, mobile_stage
from latkit.search.supernet import Supernet
from latkit.search.training import Trainer, set_threads
from torch import nn

SPACE = MobileSpace(
    10, stages=(mobile_stage((8, 16), 2, 1),), resolution=8, stem_channels=8, hidden_channels=24
)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    set_threads(1)


@pytest.fixture(scope="module")
def data():
    return load_data(image_size=8)


def trainer_of(model, data, batch_size, accumulation, clip=0.0):
    settings = TrainingSettings(
        1, batch_size, flip=True, accumulation=accumulation, gradient_clip=clip
    )
    return Trainer(model, data, settings, subject="run")


def test_small_batches_learn_as_the_whole(data):
    found = []
    for batch_size, accumulation in ((32, 1), (8, 4)):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10))
        trainer = trainer_of(model.double(), data, batch_size, accumulation, clip=0.5)
        losses = [
            trainer.step(lambda batch, model=model: learn(batch.loss(model(batch.inputs))))
            for _ in range(4)
        ]
        found.append([torch.tensor(losses), *model.state_dict().values()])
    assert trainer.steps == len(data.train) // 32
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_all_batches_of_a_step_draw_the_same_path_and_other_dropout(data):
    seen = []

    def rule(batch):
        dropped = nn.functional.dropout(torch.ones(64), 0.5)
        seen.append((SPACE.sample(batch.random), dropped, batch.inputs))
        return 0.0

    trainer = trainer_of(Supernet(SPACE), data, 8, 3)
    for _ in range(4):
        trainer.step(rule)
    paths = [architecture for architecture, _, _ in seen]
    assert all(len(set(paths[at : at + 3])) == 1 for at in range(0, 12, 3))
    assert len(set(paths)) > 1
    for one, other in pairwise(seen):
        assert not torch.equal(one[1], other[1])
        assert not torch.equal(one[2], other[2])


def test_a_step_of_more_images_than_there_are_is_refused(data):
    with pytest.raises(UsageError, match="takes 2048 images, and there are"):
        trainer_of(Supernet(SPACE), data, 64, 32)
    with pytest.raises(UsageError, match="at least 1 batch"):
        TrainingSettings(1, accumulation=0)
