"""Costs other than latency, beside networks counted as a whole."""

import numpy as np
import pytest
from latkit.latency.bit_operations import bit_operations
from latkit.latency.blocks import ConvBlock
from latkit.latency.costs import (
    bit_operations_cost,
    flops_cost,
    multiply_adds_cost,
    parameters_cost,
    peak_memory_bytes,
    peak_memory_cost,
)
from latkit.latency.counts import network_counts
from latkit.latency.network import INPUT, Network, NetworkNode
from latkit.latency.ops import Activate, Add, Conv, Flatten, OpGraph, multiply_adds
from latkit.search.spaces import SMALL_IMAGES, proxylessnas, resnet_bits
from latkit.search.spaces.enas_micro import EnasMicroSpace
from latkit.search.spaces.mobile import mobile_space
from latkit.search.spaces.nasbench201 import NasBench201Space

SPACES = [
    mobile_space(),
    proxylessnas(5, SMALL_IMAGES),
    NasBench201Space(5, SMALL_IMAGES, cells=2),
    resnet_bits(5, SMALL_IMAGES),
    EnasMicroSpace(5, SMALL_IMAGES, cells=3, nodes=2),
]


@pytest.mark.parametrize("space", SPACES, ids=lambda space: space.name)
def test_costs_are_those_of_the_whole_network(space):
    rows = space.sample_choices(4, np.random.default_rng(0))
    networks = [space.network(space.architecture(row)) for row in rows.tolist()]
    counts = [network_counts(network) for network in networks]
    graphs = [network.graph() for network in networks]
    for cost, expected in (
        (flops_cost(space), [item.flops for item in counts]),
        (parameters_cost(space), [item.parameters for item in counts]),
        (multiply_adds_cost(space), list(map(multiply_adds, graphs))),
        (bit_operations_cost(space), list(map(bit_operations, graphs))),
        (peak_memory_cost(space), list(map(peak_memory_bytes, graphs))),
    ):
        assert cost.latency_ms(rows).tolist() == expected
        assert cost.unit != "ms"


def test_costs_that_are_sums_are_tables_where_the_space_is():
    space = mobile_space()
    assert all(cost(space).is_additive for cost in (flops_cost, parameters_cost))
    assert not peak_memory_cost(space).is_additive


def test_peak_of_a_chain_is_its_largest_pair_of_neighbours():
    graph = OpGraph((2, 4, 4))
    graph.add(Conv("a", 2, 6), 0)  # 32 + 96
    graph.add(Activate("swish"), 1)  # 96 + 96
    graph.add(Conv("b", 6, 1), 2)  # 96 + 16
    graph.add(Flatten(), 3)  # a view
    assert peak_memory_bytes(graph) == 4 * (96 + 96)


def test_value_that_is_read_later_stays_alive():
    graph = OpGraph((2, 4, 4))
    first = graph.add(Conv("a", 2, 2), 0)
    wide = graph.add(Conv("b", 2, 6), first)
    narrow = graph.add(Conv("c", 6, 2), wide)
    graph.add(Add(), narrow, first)
    # While c runs: what it reads, what it writes, and a's output, which the sum still reads.
    assert peak_memory_bytes(graph) == 4 * (32 + 96 + 32)


def test_value_behind_a_view_stays_alive_and_counts_once():
    graph = OpGraph((2, 2, 2))
    flat = graph.add(Flatten(), 0)
    graph.add(Add(), flat, flat)
    assert peak_memory_bytes(graph) == 4 * (8 + 8)


def test_value_that_nobody_reads_dies_at_once():
    block = ConvBlock(in_channels=2, height=4, width=4, out_channels=2)
    alone = Network((2, 4, 4), (NetworkNode(block, (INPUT,)),))
    with_unread = Network((2, 4, 4), (NetworkNode(block, (INPUT,)), NetworkNode(block, (INPUT,))))
    assert peak_memory_bytes(with_unread.graph()) == peak_memory_bytes(alone.graph())
