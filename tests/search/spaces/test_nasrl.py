"""NAS-RL's layers: what they read, and how sizes are made one."""

import itertools

import torch
from latkit.latency.blocks import Classifier, PaddedConcat, RectangularConv
from latkit.latency.network import INPUT
from latkit.latency.torch_model import TorchModel
from latkit.search.space import Architecture
from latkit.search.spaces import SMALL_IMAGES, Scale, nasrl
from latkit.search.spaces.nasrl import NasRLSpace

TINY = NasRLSpace(5, Scale(0.1, (8,)), layers=2, strides=True)
FOUR = NasRLSpace(5, SMALL_IMAGES, layers=4, strides=True)


def network(space, **given):
    options = {name.replace("_", "."): option for name, option in given.items()}
    return space.network(
        space.architecture(
            [
                choice.options.index(options.get(choice.name, choice.options[0]))
                for choice in space.choices
            ]
        )
    )


def test_size_counts_the_distinct_networks():
    # All filters are 8 at this scale.
    assert TINY.size() == (16 * 3) ** 2 * 2
    every = itertools.product(*map(range, TINY.option_counts))
    assert len({TINY.network(Architecture(choices)).key for choices in every}) == TINY.size()


def test_layer_that_reads_none_reads_the_image_and_what_none_reads_is_classified():
    found = network(FOUR)
    *layers, joined, classifier = found.nodes
    assert [node.inputs for node in layers] == [(INPUT,)] * 4
    assert isinstance(joined.block, PaddedConcat)
    assert joined.inputs == (0, 1, 2, 3)
    assert isinstance(classifier.block, Classifier)


def test_chain_has_no_concatenation():
    found = network(FOUR, layer2_from1="yes", layer3_from2="yes", layer4_from3="yes")
    assert [node.inputs for node in found.nodes] == [(INPUT,), (0,), (1,), (2,), (3,)]


def test_values_of_several_sizes_are_padded_to_the_largest():
    found = network(
        FOUR,
        layer1_stride=3,
        layer2_stride=2,
        layer3_from1="yes",
        layer3_from2="yes",
        layer3_height=7,
        layer3_width=1,
    )
    conv = next(node for node in found.nodes if node.block.input_shapes[0] == (16, 16, 16))
    assert isinstance(conv.block, RectangularConv)
    assert (conv.block.kernel_height, conv.block.kernel_width) == (7, 1)
    concat = found.nodes[conv.inputs[0]]
    assert concat.block == PaddedConcat(shapes=((8, 11, 11), (8, 16, 16)))


def test_padding_is_zeros_around_the_smaller_value():
    block = PaddedConcat(shapes=((1, 2, 3), (2, 5, 4)))
    small, large = torch.ones(1, 1, 2, 3), torch.full((1, 2, 5, 4), 2.0)
    found = TorchModel(block)(small, large)
    assert found.shape == (1, 3, 5, 4)
    assert found[0, 0].tolist() == [[0] * 4, [1, 1, 1, 0], [1, 1, 1, 0], [0] * 4, [0] * 4]
    assert found[0, 1:].equal(large[0])


def test_filters_are_the_papers():
    (filters,) = {choice.options for choice in nasrl().choices if choice.name.endswith("filters")}
    assert filters == (24, 36, 48, 64)
