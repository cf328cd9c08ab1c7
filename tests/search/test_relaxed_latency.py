"""Latency of weighted operations and depths: the cost model's where one is chosen."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from latkit.devices.errors import LatkitError, UsageError
from latkit.latency.cost import lay_out
from latkit.latency.network import block_graph
from latkit.latency.ops import multiply_adds
from latkit.search.elasticity import architecture_latency
from latkit.search.relaxed import RelaxedSupernet
from latkit.search.relaxed_latency import RelaxedLatency
from latkit.search.spaces.nasbench201 import NasBench201Space
from latkit.search.spaces.scale import Scale
from latkit.search.spaces.tfnas import tfnas
from staged_cases import one_hot, small_space

SMALL = small_space()
TFNAS = tfnas(10, Scale(width=0.1, resolutions=(16,)))


def cost_ms(block):
    return multiply_adds(block_graph(block)) / 1e6 + 0.01


def drawn(supernet, seed=0):
    """Weights that are positive and add up to 1."""
    random = np.random.default_rng(seed)
    return {
        name: torch.tensor(random.dirichlet(np.ones(count)), requires_grad=True)
        for name, count in supernet.counts.items()
    }


@pytest.mark.parametrize("space", [SMALL, TFNAS], ids=["small", "tfnas"])
def test_latency_of_one_architecture_is_the_cost_models(space):
    supernet = RelaxedSupernet(space)
    latency = RelaxedLatency(supernet, cost_ms, constant=0.5)
    cost = lay_out(space, cost_ms, constant=0.5)
    random = np.random.default_rng(0)
    for _ in range(20):
        architecture = space.sample(random)
        weights = {
            name: torch.tensor(vector, dtype=torch.float64)
            for name, vector in one_hot(supernet, architecture).items()
        }
        expected = cost.latency_ms(space.encode([architecture]))[0]
        assert float(latency(weights)) == pytest.approx(expected, rel=1e-14)


def test_latency_of_narrowed_operations_is_that_of_the_scaled_architecture():
    supernet = RelaxedSupernet(SMALL)
    latency = RelaxedLatency(supernet, cost_ms)
    architecture = SMALL.architecture([len(choice.options) - 1 for choice in SMALL.choices])
    weights = {
        name: torch.tensor(vector, dtype=torch.float64)
        for name, vector in one_hot(supernet, architecture).items()
    }
    full = latency(weights)
    modules = supernet.layers(architecture)
    for module in modules:
        module.narrow(module.block.expanded_channels - 8)
    widths = tuple(module.block.expanded_channels for module in modules)
    expected = architecture_latency(SMALL, cost_ms)(replace(architecture, expanded_channels=widths))
    assert latency(weights).item() == pytest.approx(expected, rel=1e-14)
    assert expected < 0.95 * full.item()


@pytest.mark.parametrize("space", [SMALL, TFNAS], ids=["small", "tfnas"])
def test_latency_of_weights_is_the_mean_over_architectures(space):
    """Operations and depths drawn independently, by their weights."""
    supernet = RelaxedSupernet(space)
    weights = drawn(supernet)
    probabilities = [weights[choice.name].detach().numpy() for choice in space.choices]
    expected = lay_out(space, cost_ms, 0.5).expected(probabilities)
    found = RelaxedLatency(supernet, cost_ms, 0.5)(weights)
    assert found.item() == pytest.approx(expected, rel=1e-12)


def test_gradient_is_the_finite_difference():
    supernet = RelaxedSupernet(SMALL)
    latency = RelaxedLatency(supernet, cost_ms)
    scores = drawn(supernet)

    def of(scores):
        return latency({name: vector.softmax(0) for name, vector in scores.items()})

    gradients = torch.autograd.grad(of(scores), list(scores.values()))
    step = 1e-5
    for (name, vector), gradient in zip(scores.items(), gradients, strict=True):
        for index in range(len(vector)):
            moved = step * torch.eye(len(vector), dtype=torch.float64)[index]
            sides = [of(scores | {name: vector + sign * moved}).item() for sign in (1, -1)]
            difference = (sides[0] - sides[1]) / (2 * step)
            assert difference == pytest.approx(float(gradient[index]), rel=1e-5, abs=1e-9)


def test_a_cost_that_is_no_number_is_refused():
    with pytest.raises(LatkitError, match="ConvBlock"):
        RelaxedLatency(RelaxedSupernet(SMALL), lambda block: float("nan"))


def test_cells_whose_sums_depend_on_edges_are_refused():
    cells = RelaxedSupernet(NasBench201Space(10, Scale(width=0.25, resolutions=(8,)), cells=1))
    with pytest.raises(UsageError, match="nasbench201"):
        RelaxedLatency(cells, cost_ms)
