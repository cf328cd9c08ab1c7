"""Ways of learning, each from a task to trained weights and what they chose."""

from dataclasses import replace
from functools import partial

import pytest
from latkit.devices.errors import UsageError
from latkit.latency.network import block_graph
from latkit.latency.ops import multiply_adds
from latkit.search.data import load_data
from latkit.search.recipes.learning import (
    bi_sampling,
    bilevel,
    controlled,
    joint,
    path_dropout,
    sandwich,
    single_path,
)
from latkit.search.recipes.task import Task
from latkit.search.settings import TrainingSettings
from latkit.search.spaces.shufflenet import shufflenet
from latkit.search.training import fingerprint, set_threads
from staged_cases import small_space

SPACE = small_space()
WAYS = {
    "single path": single_path,
    "sandwich": sandwich,
    "sandwich of labels": partial(sandwich, distils=False),
    "joint": joint,
    "joint without warm-up": partial(joint, operation_warmup=0.0, filter_warmup=0.0),
    "controlled": partial(controlled, controller_steps=2, per_step=2, derived=2),
    "path dropout": path_dropout,
    "first order": bilevel,
    "second order": partial(bilevel, second_order=True),
    "bi-sampling": partial(bi_sampling, warm_epochs=1, width_grid=8),
}
CHOOSES = {
    "joint",
    "joint without warm-up",
    "controlled",
    "first order",
    "second order",
    "bi-sampling",
}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    set_threads(1)


@pytest.fixture(scope="module")
def task():
    data = load_data(image_size=8)
    few = replace(data, train=data.train.only(data.train.labels.argsort()[::6]), key="few")
    settings = TrainingSettings(2, 16, learning_rate=0.05)
    return Task(SPACE, few, settings, lambda block: multiply_adds(block_graph(block)) / 1e5, 2.5)


@pytest.mark.parametrize("name", WAYS)
def test_trains_weights_that_can_be_extracted_and_chooses_where_it_does(task, name):
    losses = []
    task = replace(task, progress=lambda at: losses.append(at.loss))
    shared = WAYS[name](task)
    assert len(losses) >= 2
    assert (shared.architecture is not None) == (name in CHOOSES)
    architecture = shared.architecture or SPACE.architecture([0] * len(SPACE.choices))
    model = shared.weights.extract(architecture)
    assert model(task.data.inputs(task.data.train.read(range(4)))).shape == (4, 10)


@pytest.mark.parametrize("name", WAYS)
def test_a_finished_run_is_taken_from_its_checkpoint(task, name, tmp_path):
    task = replace(task, checkpoint=tmp_path / "weights.checkpoint")
    first = WAYS[name](task)
    steps = []
    again = WAYS[name](replace(task, progress=steps.append))
    assert not steps
    assert fingerprint(again.weights) == fingerprint(first.weights)
    assert again.architecture == first.architecture


def test_a_checkpoint_of_other_options_is_refused(task, tmp_path):
    task = replace(task, checkpoint=tmp_path / "weights.checkpoint")
    sandwich(task)
    with pytest.raises(UsageError, match="subject"):
        sandwich(task, distils=False)


def test_sandwich_decays_weights_once(task):
    """By its own rule alone: the optimiser's decay would reach all children."""
    decaying = replace(task, settings=replace(task.settings, weight_decay=0.1))
    none = replace(task, settings=replace(task.settings, weight_decay=0.0))
    assert fingerprint(sandwich(decaying).weights) == fingerprint(sandwich(none).weights)


def test_a_space_without_mixtures_cannot_be_relaxed(task):
    with pytest.raises(UsageError, match="shufflenet"):
        path_dropout(replace(task, space=shufflenet(10)))
