"""Values of networks that learn stay channels last in memory: convolutions take half the time."""

import numpy as np
import pytest
import torch
from latkit.latency.quantisers import RoundedConv2d
from latkit.search import spaces
from latkit.search.data import load_data
from latkit.search.learning import learn
from latkit.search.relaxed import RelaxedSupernet
from latkit.search.retraining import fresh_model
from latkit.search.spaces.darts import DartsSpace
from latkit.search.spaces.nasbench201 import NasBench201Space
from latkit.search.spaces.scale import Scale
from latkit.search.supernet import Supernet
from latkit.search.training import set_threads
from torch import nn

SMALL = Scale(width=0.25, resolutions=(32,))
NAMES = ("mobile_space", "mobilenet_v3_like", "shufflenet", "darts", "nasbench201")
SLICED = ("shufflenet", "darts")
"""torch gives the gradient of a slice channels first; undoing that takes longer than it saves."""
RELAXED = (NasBench201Space(10, SMALL, cells=1), DartsSpace(10, SMALL, cells=3))


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    set_threads(1)


class Seen:
    """Whether values that convolutions read or gave have their channels last, and gradients."""

    def __init__(self):
        self.forwards = []
        self.backwards = []

    def watch(self, convolution, value):
        result = self.forward(convolution, value)
        for tensor in (value, result):
            self.forwards.append(channels_last(tensor))
            if tensor.requires_grad:
                tensor.register_hook(
                    lambda gradient: self.backwards.append(channels_last(gradient))
                )
        return result

    forward = staticmethod(RoundedConv2d.forward)


def channels_last(tensor):
    """Whether neighbours in memory are of one pixel, as in views of such tensors too."""
    return tensor.stride(1) == 1 or tensor.shape[1] == 1 or tensor.shape[2:] == (1, 1)


@pytest.fixture(autouse=True)
def seen(monkeypatch):
    found = Seen()
    monkeypatch.setattr(RoundedConv2d, "forward", lambda *given: found.watch(*given))
    return found


def batch_of(size):
    data = load_data(image_size=size)
    return data.inputs(data.train.read(range(8))), data.train.labels[:8]


@pytest.mark.parametrize("name", NAMES)
def test_networks_keep_it_forwards_and_backwards(seen, name):
    space = spaces.mobile_space(10) if name == "mobile_space" else getattr(spaces, name)(10, SMALL)
    architecture = space.sample(np.random.default_rng(0))
    network = space.network(architecture)
    images, labels = batch_of(network.input_shape[1])
    model = fresh_model(network).train()
    learn(nn.functional.cross_entropy(model(images), labels))
    alone = len(seen.forwards)
    supernet = Supernet(space)
    learn(nn.functional.cross_entropy(supernet(images, architecture), labels))
    assert len(seen.forwards) == 2 * alone > 40
    assert all(seen.forwards)
    if name not in SLICED:
        assert all(seen.backwards)


@pytest.mark.parametrize("space", RELAXED, ids=lambda space: space.name)
def test_relaxed_supernets_keep_it(seen, space):
    supernet = RelaxedSupernet(space)
    images, labels = batch_of(32)
    weights = {
        mixture.name: torch.full((len(mixture.candidates),), 0.2)
        for mixture in space.mixtures().values()
    }
    learn(nn.functional.cross_entropy(supernet(images, weights), labels))
    assert len(seen.forwards) > 80
    assert all(seen.forwards)
    if space.name not in SLICED:
        assert all(seen.backwards)
