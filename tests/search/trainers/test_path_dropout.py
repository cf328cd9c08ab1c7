"""Path dropout: what is left out is not run, and the rate rises."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from latkit.search.data import load_data
from latkit.search.loading import BatchLoader
from latkit.search.relaxed import RelaxedSupernet
from latkit.search.settings import TrainingSettings
from latkit.search.spaces.nasbench201 import NasBench201Space
from latkit.search.spaces.scale import Scale
from latkit.search.trainers.path_dropout import PathDropout
from latkit.search.training import Trainer, set_threads
from staged_cases import small_space

SPACE = NasBench201Space(10, Scale(width=0.25, resolutions=(8,)), cells=1)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    set_threads(1)


@pytest.fixture(scope="module")
def data():
    return load_data(image_size=8)


def batch_of(data, size=48, progress=0.0):
    loader = BatchLoader(data, 1, size, 0, shift=0, flip=False, label_smoothing=0)
    return replace(loader.batch(0), progress=progress)


@pytest.mark.parametrize("progress", [0.0, 0.5, 1.0])
def test_candidates_are_left_out_as_often_as_asked(progress):
    rule = PathDropout(RelaxedSupernet(SPACE), rate=0.3)
    random = np.random.default_rng(0)
    drawn = [rule.kept(progress, random) for _ in range(2000)]
    left_out = 1 - np.mean([list(kept.values()) for kept in drawn])
    every = 0.3 * progress
    share = every ** (1 / 5)
    # One of five comes back where all would be left out.
    assert left_out == pytest.approx(share - every / 5, abs=0.01)
    assert all(sum(keep) >= 1 for kept in drawn for keep in kept.values())


def test_what_is_left_out_gets_no_gradient(data):
    supernet = RelaxedSupernet(SPACE)
    rule = PathDropout(supernet, rate=0.9)
    batch = batch_of(data, progress=1.0)
    state = batch.random.bit_generator.state
    rule(batch)
    again = np.random.default_rng()
    again.bit_generator.state = state
    kept = rule.kept(1.0, again)
    tried = 0
    for index, mixture in supernet.mixtures.items():
        for number, keep in enumerate(kept[mixture.name]):
            name = f"{index}_{number}"
            for weight in supernet.candidates[name].parameters() if keep == 0 and number else ():
                assert weight.grad is None
                tried += 1
    assert tried > 10


def test_depths_of_stages_are_left_out_as_operations_are(data):
    supernet = RelaxedSupernet(small_space())
    rule = PathDropout(supernet, rate=0.9)
    kept = rule.kept(1.0, np.random.default_rng(0))
    assert {name: len(vector) for name, vector in kept.items()} == supernet.counts
    assert np.isfinite(rule(batch_of(data, progress=1.0)))


def test_batch_norms_see_ghost_batches(data):
    batch = batch_of(data, size=48)
    supernet = RelaxedSupernet(SPACE).double().train()
    rule = PathDropout(supernet, rate=0.0, ghost_size=16)
    found = rule(replace(batch, inputs=batch.inputs.double()))
    kept = rule.kept(0.0, np.random.default_rng(0))
    with torch.no_grad():
        losses = [
            replace(batch, labels=batch.labels[at : at + 16]).loss(
                supernet(batch.inputs.double()[at : at + 16], kept)
            )
            for at in (0, 16, 32)
        ]
        whole = batch.loss(supernet(batch.inputs.double(), kept))
    assert found == pytest.approx(float(sum(losses) / 3))
    assert found != pytest.approx(float(whole), rel=1e-4)


def test_a_supernet_learns_by_it(data):
    supernet = RelaxedSupernet(SPACE, affine=True)
    losses = []
    settings = TrainingSettings(epochs=4, batch_size=64)
    trainer = Trainer(supernet, data, settings, subject="run")
    trainer.run(PathDropout(supernet), lambda progress: losses.append(progress.loss))
    assert sum(losses[-5:]) / 5 < 0.94 * losses[0]
