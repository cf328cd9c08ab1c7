"""ENAS's cells: halves that may be exchanged, and loose ends."""

import itertools

import numpy as np
import torch
from latkit.latency.blocks import FactorisedReduce, LooseEnd, SumOf
from latkit.latency.torch_model import TorchModel
from latkit.search.sgd import SGD
from latkit.search.space import Architecture
from latkit.search.spaces import SMALL_IMAGES
from latkit.search.spaces.enas_micro import OPERATIONS, EnasMicroSpace
from latkit.search.supernet import Supernet
from torch.nn import functional

ONE_NODE = EnasMicroSpace(5, SMALL_IMAGES, cells=3, nodes=1)
THREE_NODES = EnasMicroSpace(5, SMALL_IMAGES, cells=3, nodes=3)


def architecture(space, **inputs):
    """Identities everywhere; the inputs of a node by its name, `normal1=(0, 1)`."""
    options = {}
    for name, pair in inputs.items():
        for slot, read in zip(("first", "second"), pair, strict=True):
            options[f"{name[:-1]}.node{name[-1]}.{slot}.input"] = read
    return space.architecture(
        [
            choice.options.index(
                options.get(choice.name, 0) if choice.name.endswith("input") else "identity"
            )
            for choice in space.choices
        ]
    )


def test_size_counts_the_distinct_networks():
    pairs = 2 * len(OPERATIONS)
    forms = pairs * (pairs + 1) // 2
    assert ONE_NODE.size() == forms**2
    cell = [range(count) for count in ONE_NODE.option_counts[:4]]
    rest = (0,) * 4
    canonical = {ONE_NODE.canonical((*choices, *rest)) for choices in itertools.product(*cell)}
    networks = {ONE_NODE.network(Architecture(choices)).key for choices in canonical}
    assert len(canonical) == len(networks) == forms


def test_exchanged_halves_are_one_architecture():
    for choices in THREE_NODES.sample_choices(20, np.random.default_rng(0)).tolist():
        exchanged = [
            value
            for start in range(0, len(choices), 4)
            for value in (*choices[start + 2 : start + 4], *choices[start : start + 2])
        ]
        assert THREE_NODES.canonical(exchanged) == THREE_NODES.canonical(choices)


def ends(space, found):
    """For each cell, the kinds of its loose ends, inputs first."""
    network = space.network(found)
    return [
        [type(network.blocks[source]) for source in node.inputs]
        for node in network.nodes
        if isinstance(node.block, SumOf) and node.block.norm
    ]


def test_what_no_node_reads_is_a_loose_end():
    chain = {f"{kind}{node}": (node, node) for kind in ("normal", "reduce") for node in (1, 2, 3)}
    fan = {f"{kind}{node}": (1, 1) for kind in ("normal", "reduce") for node in (1, 2, 3)}
    both = {f"{kind}{node}": (0, 1) for kind in ("normal", "reduce") for node in (1, 2, 3)}
    # Of three cells the second and the third are reductions.
    conv, half = LooseEnd, FactorisedReduce
    assert ends(THREE_NODES, architecture(THREE_NODES, **chain)) == [
        [conv, conv],
        [half, conv],
        [half, conv],
    ]
    assert ends(THREE_NODES, architecture(THREE_NODES, **fan)) == [
        [conv] * 4,
        [half, conv, conv, conv],
        [half, conv, conv, conv],
    ]
    assert ends(THREE_NODES, architecture(THREE_NODES, **both)) == [[conv] * 3] * 3


def test_loose_ends_add_up_to_a_convolution_of_their_concatenation():
    torch.manual_seed(0)
    parts = [TorchModel(LooseEnd(4, 5, 6, out_channels=8)) for _ in range(3)]
    values = torch.randn(3, 2, 4, 5, 6)
    weights = torch.cat([part.layers["conv"].conv.weight for part in parts], 1)
    expected = functional.conv2d(functional.relu(torch.cat([*values], 1)), weights)
    found = sum(part(value) for part, value in zip(parts, values, strict=True))
    assert torch.allclose(found, expected, atol=1e-6)


def test_step_of_the_supernet_moves_the_weights_of_the_path_alone():
    torch.manual_seed(0)
    supernet = Supernet(THREE_NODES)
    parameters = dict(supernet.named_parameters())
    before = {name: value.detach().clone() for name, value in parameters.items()}
    optimiser = SGD(parameters, momentum=0.9, weight_decay=0.1, active=supernet.active)
    path = THREE_NODES.sample(np.random.default_rng(1))
    supernet(torch.randn(4, 3, 32, 32), path).square().sum().backward()
    optimiser.step(0.1)
    placed = set(THREE_NODES.placed(path))
    moved = {name for name, value in parameters.items() if not value.equal(before[name])}
    assert moved
    assert {int(name.split(".")[1].split("_")[0]) for name in moved} <= placed
    assert "layers.0_conv_3.weight" in moved
