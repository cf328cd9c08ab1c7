"""Relaxed supernets, and DARTS's two levels of learning."""

import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from latkit.search.data import halves, load_data
from latkit.search.loading import BatchLoader
from latkit.search.relaxed import RelaxedSupernet
from latkit.search.settings import TrainingSettings
from latkit.search.spaces.darts import OPERATIONS, DartsSpace
from latkit.search.spaces.nasbench201 import NasBench201Space
from latkit.search.spaces.scale import Scale
from latkit.search.trainers.bilevel import Bilevel
from latkit.search.training import Trainer, fingerprint, set_threads
from torch.func import functional_call

SCALE = Scale(width=0.25, resolutions=(8,))
CELLS = NasBench201Space(10, SCALE, cells=1)
DARTS = DartsSpace(10, Scale(width=0.2, resolutions=(16,)), cells=3)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    set_threads(1)


@pytest.fixture(scope="module")
def data():
    return load_data(image_size=8)


def loader_of(data, size=16, seed=0):
    return BatchLoader(data, 1, size, seed, shift=0, flip=False, label_smoothing=0)


def one_hot(space, architecture):
    """Weights that leave an architecture's candidates alone."""
    network = space.network(architecture)
    blocks = {}
    for index, factor in enumerate(space.factors()):
        chosen = [architecture.choices[position] for position in factor.positions]
        counts = [space.option_counts[position] for position in factor.positions]
        number = int(np.ravel_multi_index(chosen, counts)) if chosen else 0
        blocks[index] = factor.blocks[number]
    weights = {}
    for index, mixture in space.mixtures().items():
        weight = torch.zeros(len(mixture.candidates), dtype=torch.float64)
        if blocks[index] in mixture.candidates and blocks[index] is not None:
            weight[mixture.candidates.index(blocks[index])] = 1
        weights[mixture.name] = weight
    return network, weights


@pytest.mark.parametrize("space", [CELLS, DARTS], ids=lambda space: space.name)
def test_one_candidate_alone_is_the_architectures_network(space):
    supernet = RelaxedSupernet(space).double()
    random = np.random.default_rng(0)
    for _ in range(3):
        architecture = space.sample(random)
        network, weights = one_hot(space, architecture)
        images = torch.randn(4, *network.input_shape, dtype=torch.float64)
        model = supernet.extract(architecture).double().train()
        with torch.no_grad():
            expected, found = model(images), supernet.train()(images, weights)
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


def test_the_strongest_two_edges_and_operations_are_kept():
    names = {mixture.name for mixture in DARTS.mixtures().values()}
    weights = {name: np.full(8, 0.1) for name in names}
    for name in names:
        weights[name][0] = 0.9  # nothing is never chosen
    weights["normal.edge1-4"][1 + OPERATIONS.index("sep_conv_5x5")] = 0.5
    weights["normal.edge3-4"][1 + OPERATIONS.index("skip_connect")] = 0.3
    said = DARTS.describe(DARTS.discretise(weights).choices)
    assert "normal.node3.inputs 1+3" in said
    assert "normal.node3.first sep_conv_5x5, normal.node3.second skip_connect" in said


def test_edges_of_a_cell_are_chosen_by_their_strongest_operation():
    names = {mixture.name for mixture in CELLS.mixtures().values()}
    assert names == {"edge0-1", "edge0-2", "edge1-2", "edge0-3", "edge1-3", "edge2-3"}
    weights = {name: np.eye(5)[index % 5] for index, name in enumerate(sorted(names))}
    chosen = dict(
        zip([c.name for c in CELLS.choices], CELLS.discretise(weights).choices, strict=True)
    )
    assert chosen == {name: index % 5 for index, name in enumerate(sorted(names))}


def doubled(batch):
    return type(batch)(
        batch.inputs.double(), *(getattr(batch, name) for name in batch.__slots__[1:])
    )


@pytest.mark.parametrize("second_order", [False, True])
def test_gradient_of_the_architecture_is_autograds(data, second_order):
    """To second order: of the loss after one step of the weights, differentiated through it."""
    supernet = RelaxedSupernet(CELLS, seed=1).double().train()
    rule = Bilevel(
        supernet, loader_of(data), second_order=second_order, ahead=0.05, difference=1e-6
    )
    seeded = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for alpha in rule.alphas.values():
            alpha.normal_(generator=seeded)
    train, held_out = doubled(loader_of(data).batch(0)), doubled(loader_of(data, seed=1).batch(1))
    found = rule.architecture_gradients(train, held_out)
    parameters = {n: p for n, p in supernet.named_parameters() if p.requires_grad}

    def loss(weights, batch):
        outputs = functional_call(supernet, weights, (batch.inputs, rule.weights()))
        return batch.loss(outputs)

    weights = parameters
    if second_order:
        slope = torch.autograd.grad(
            loss(parameters, train), list(parameters.values()), create_graph=True
        )
        weights = {
            name: value - 0.05 * part
            for (name, value), part in zip(parameters.items(), slope, strict=True)
        }
    exact = torch.autograd.grad(loss(weights, held_out), list(rule.alphas.values()))
    for one, other in zip(found, exact, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-9)
    if second_order:
        rule.second_order = False
        first = rule.architecture_gradients(train, held_out)
        size = sum(part.abs().sum() for part in exact)
        assert sum((a - b).abs().sum() for a, b in zip(first, exact, strict=True)) > 1e-3 * size


def test_a_loss_that_weights_do_not_change_leaves_the_first_order(data):
    supernet = RelaxedSupernet(NasBench201Space(2, SCALE, cells=1)).double().train()
    for weight in list(supernet.candidates.values())[-1].layers["classifier"].parameters():
        torch.nn.init.zeros_(weight)
    # Two equal logits are what labels that are smoothed to the end ask for.
    loader = replace(loader_of(data), label_smoothing=1)
    batch = doubled(loader.batch(0))
    batch = replace(batch, labels=batch.labels % 2, classes=2)
    rule = Bilevel(supernet, loader, second_order=True)
    assert all((gradient == 0).all() for gradient in rule.architecture_gradients(batch, batch))


def test_looking_ahead_leaves_the_weights_as_they_were(data):
    supernet = RelaxedSupernet(CELLS)
    before = fingerprint(supernet)
    rule = Bilevel(supernet, loader_of(data), second_order=True)
    rule.architecture_gradients(loader_of(data).batch(0), loader_of(data).batch(1))
    assert fingerprint(supernet) == before


def test_held_out_images_are_read_ahead_by_a_thread_and_begin_again(data, monkeypatch):
    train, held_out = halves(data)
    loader = loader_of(held_out, 128)
    made = []
    batch = BatchLoader.batch

    def noted(self, step):
        made.append((self, step, threading.current_thread().name))
        return batch(self, step)

    monkeypatch.setattr(BatchLoader, "batch", noted)
    supernet = RelaxedSupernet(CELLS)
    rule = Bilevel(supernet, loader)
    seen = []
    monkeypatch.setattr(
        rule,
        "architecture_gradients",
        lambda batch, held: seen.append(held.step) or [torch.zeros(5)] * len(rule.alphas),
    )
    Trainer(supernet, train, TrainingSettings(2, 64), subject="run").run(rule)
    assert loader.steps == 4
    assert seen == [*range(4)] * 4
    assert {name.startswith("latkit-batches") for *_, name in made} == {True}
    assert len(made) == 32, "nothing is made twice"


def test_halves_are_disjoint_and_share_the_rest(data):
    one, other = halves(data, seed=3)
    assert abs(len(one.train) - len(other.train)) <= 1
    assert len(one.train) + len(other.train) == len(data.train)
    counts = [half.train.labels.bincount() for half in (one, other)]
    assert (counts[0] - counts[1]).abs().max() <= 1
    assert (counts[0] + counts[1] == data.train.labels.bincount()).all()
    assert one.validation is other.validation is data.validation
    assert len({one.key, other.key, data.key}) == 3


def run(data, folder, stop=None):
    train, held_out = halves(data)
    settings = TrainingSettings(1, 64, learning_rate=0.025, gradient_clip=5, weight_decay=3e-4)
    supernet = RelaxedSupernet(CELLS)
    rule = Bilevel(supernet, loader_of(held_out, 64), learning_rate=0.01)
    checkpoint = folder / "a.checkpoint"
    trainer = Trainer(supernet, train, settings, subject="run", checkpoint=checkpoint)
    if stop is None:
        trainer.run(rule)
    else:
        for _ in range(stop):
            trainer.step(rule)
        trainer.save()
    return supernet, rule


def test_run_that_was_cut_off_goes_on_with_its_architecture(tmp_path, data):
    for name in ("whole", "cut"):
        (tmp_path / name).mkdir()
    whole, whole_rule = run(data, tmp_path / "whole")
    run(data, tmp_path / "cut", stop=3)
    again, again_rule = run(data, tmp_path / "cut")
    assert fingerprint(again) == fingerprint(whole)
    for name, alpha in whole_rule.alphas.items():
        assert torch.equal(alpha, again_rule.alphas[name])
        assert alpha.detach().abs().max() > 0.01
    assert again_rule.best() == whole_rule.best()
