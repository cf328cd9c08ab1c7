"""NASNet's cells: combinations, and what is concatenated."""

import itertools

import numpy as np
import pytest
from latkit.devices.errors import UsageError
from latkit.latency.blocks import CellConv, ConcatOf, FactorisedReduce, SumOf
from latkit.search.space import Architecture
from latkit.search.spaces import SMALL_IMAGES
from latkit.search.spaces.nasnet import NasNetSpace
from latkit.search.supernet import Supernet

ONE_NODE = NasNetSpace(5, SMALL_IMAGES, cells=3, nodes=1)
TWO_NODES = NasNetSpace(5, SMALL_IMAGES, cells=3, nodes=2)


def network(space, **given):
    """Identities on the value before last, added, but for the options given of normal cells."""
    options = {f"normal.{name.replace('__', '.')}": option for name, option in given.items()}
    assert options.keys() <= {choice.name for choice in space.choices}
    choices = [
        choice.options.index(options.get(choice.name, choice.options[0]))
        for choice in space.choices
    ]
    return space.network(space.architecture(choices))


def test_size_counts_the_distinct_networks():
    forms = 26 * 27 // 2 * 2
    assert ONE_NODE.size() == forms**2
    cell = [range(count) for count in ONE_NODE.option_counts[:5]]
    rest = (0,) * 5
    canonical = {ONE_NODE.canonical((*choices, *rest)) for choices in itertools.product(*cell)}
    assert len(canonical) == forms
    some = sorted(canonical)[::5]
    assert len({ONE_NODE.network(Architecture(choices)).key for choices in some}) == len(some)


def first_cell(found):
    """The nodes of the first cell, which is a normal one, after its two inputs."""
    second = next(
        index
        for index, node in enumerate(found.nodes)
        if index > 3 and isinstance(node.block, CellConv | FactorisedReduce) and node.inputs == (0,)
    )
    return found.nodes[3:second]


def test_concatenation_is_brought_to_the_cells_channels_where_it_is_read():
    reads = {"node2__first__input": 2, "node2__second__input": 2}
    found = network(TWO_NODES, node1__combination="concat", **reads)
    blocks = [type(node.block).__name__ for node in first_cell(found)]
    # Two halves, put together and matched once; two halves that read it; and what none reads.
    assert blocks == ["Skip", "Skip", "ConcatOf", "CellConv", "Skip", "Skip", "SumOf", "ConcatOf"]
    assert first_cell(found)[3].block.in_channels == 2 * first_cell(found)[3].block.out_channels
    assert first_cell(found)[-1].inputs == (2, 9)


def test_halves_of_an_unread_concatenation_are_concatenated_with_the_rest():
    found = network(TWO_NODES, node1__combination="concat", node2__first__input=1)
    last = first_cell(found)[-1]
    assert isinstance(last.block, ConcatOf)
    assert [type(found.blocks[source]).__name__ for source in last.inputs] == [
        "Skip",
        "Skip",
        "SumOf",
    ]


def test_unread_input_of_a_reduction_cell_is_halved():
    found = network(TWO_NODES)
    ends = [
        found.blocks[source]
        for node in found.nodes
        if isinstance(node.block, ConcatOf)
        for source in node.inputs
    ]
    halved = [block for block in ends if isinstance(block, FactorisedReduce)]
    assert len(halved) == 2, "both reductions"
    assert all(isinstance(block, CellConv | FactorisedReduce | SumOf) for block in ends)


def test_all_blocks_are_listed():
    listed = set(TWO_NODES.blocks())
    for item in TWO_NODES.sample_networks(60, seed=0):
        assert set(item.blocks) <= listed


def test_supernet_of_it_is_refused():
    with pytest.raises(UsageError, match=r"nasnet.*one by one"):
        Supernet(TWO_NODES)


def test_scaled_widths_are_refused():
    architecture = TWO_NODES.sample(np.random.default_rng(0))
    with pytest.raises(UsageError, match="widths"):
        TWO_NODES.network(Architecture(architecture.choices, (8, 8)))
