"""Modules without weights, which a supernet lends its own: made of layers that are kept."""

import numpy as np
import pytest
import torch
from latkit.latency.network import Network
from latkit.latency.torch_model import TorchModel
from latkit.search import skeleton as skeletons
from latkit.search.skeleton import TrainedSkeletons, skeleton
from latkit.search.spaces.mobile import MobileSpace, mobile_stage
from latkit.search.supernet import Supernet
from latkit.search.training import set_threads

STAGES = (mobile_stage((8, 16), 2, 1), mobile_stage((16, 24), 3, 2))
SPACE = MobileSpace(10, stages=STAGES, resolution=8, stem_channels=8, hidden_channels=16)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    set_threads(1)


def networks(count):
    random = np.random.default_rng(0)
    return [SPACE.network(SPACE.sample(random)) for _ in range(count)]


def repeated():
    """A network in which a block stands three times."""
    block = next(
        block
        for network in networks(20)
        for block in network.blocks
        if block.input_shapes == (block.output_shape,)
    )
    return Network.chain([block] * 3)


def test_skeletons_have_the_layers_and_shapes_of_the_network_and_no_memory():
    made = TrainedSkeletons()
    for network in [*networks(10), repeated()]:
        expected = {name: value.shape for name, value in TorchModel(network).named_parameters()}
        for model in (made.skeleton(network, 0.0), skeleton(network)):
            found = dict(model.named_parameters())
            assert {name: value.shape for name, value in found.items()} == expected
            assert all(value.is_meta for value in found.values())


def test_equal_blocks_of_a_network_have_layers_of_their_own():
    layers = TrainedSkeletons().skeleton(repeated(), 0.0).layers.values()
    assert len({id(layer) for layer in layers}) == len(layers)


def test_layers_are_made_once_and_those_kept_are_bounded(monkeypatch):
    first, *others = networks(30)
    made = TrainedSkeletons()
    layers = set(made.skeleton(first, 0.0).layers.values())
    assert set(made.skeleton(first, 0.5).layers.values()) == layers
    monkeypatch.setattr(skeletons, "MOST_LAYERS", 0)
    for network in others:
        made.skeleton(network, 0.0)
    assert not layers & set(made.skeleton(first, 0.0).layers.values())


def test_a_supernet_computes_the_same_whatever_it_has_run_before():
    images = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    random = np.random.default_rng(1)
    architectures = [SPACE.sample(random) for _ in range(12)]
    used = Supernet(SPACE)
    for architecture in [*architectures, *architectures[::-1]]:
        fresh = Supernet(SPACE)
        gradients = []
        for supernet in (used, fresh):
            supernet.zero_grad()
            supernet(images, architecture).square().sum().backward()
            gradients.append([weight.grad for weight in supernet.parameters()])
        for one, other in zip(*gradients, strict=True):
            assert one is other is None or torch.equal(one, other)
