"""BitOps, counted by hand."""

import pytest
from latkit.latency.bit_operations import bit_operations
from latkit.latency.blocks import Classifier, ConvBlock, MBConv, QuantisedResidual
from latkit.latency.network import Network, block_graph
from latkit.latency.ops import multiply_adds

STEM = ConvBlock(in_channels=3, height=9, width=7, out_channels=8)
WORK = {"first": 12 * 8 * 9 * (5 * 4), "second": 12 * 12 * 9 * (5 * 4), "match": 12 * 8 * (5 * 4)}


def block(weight_bits, activation_bits, **fields):
    fields = {"out_channels": 12, "stride": 2, **fields}
    return QuantisedResidual(
        8, 9, 7, weight_bits=weight_bits, activation_bits=activation_bits, **fields
    )


@pytest.mark.parametrize("bits", [(1, 2), (2, 4), (4, 4)])
def test_of_a_block(bits):
    graph = block_graph(block(*bits))
    assert multiply_adds(graph) == sum(WORK.values())
    assert bit_operations(graph) == sum(WORK.values()) * bits[0] * bits[1]


def test_a_shortcut_that_changes_no_shape_costs_nothing():
    graph = block_graph(block(2, 4, out_channels=8, stride=1))
    assert bit_operations(graph) == 2 * (8 * 8 * 9 * 9 * 7) * 2 * 4


def test_what_is_not_quantised_counts_full_bits():
    end = Classifier(in_channels=12, height=5, width=4, classes=10)
    network = Network.chain([STEM, block(3, 4), end])
    full = 8 * 3 * 9 * (9 * 7) + 12 * 10
    expected = full * 32 * 32 + sum(WORK.values()) * 3 * 4
    assert bit_operations(network.graph()) == expected


def test_of_a_float_block_are_1024_times_its_multiply_adds():
    graph = block_graph(
        MBConv(16, 14, 14, out_channels=16, expanded_channels=96, squeeze_excite=True)
    )
    assert bit_operations(graph) == 1024 * multiply_adds(graph)
