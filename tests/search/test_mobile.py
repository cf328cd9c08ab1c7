import itertools
import zlib

import numpy as np
import pytest
from latkit.latency.blocks import Head, MBConv
from latkit.latency.cost import lay_out
from latkit.search.space import Architecture
from latkit.search.spaces.mobile import MobileSpace, mobile_space, mobile_stage

SPACE = mobile_space()


def test_size_is_that_of_an_enumeration_of_a_reduced_space():
    stages = (mobile_stage((16, 32), 2, 1), mobile_stage((32,), 3, 2))
    space = MobileSpace(stages=stages)
    every = itertools.product(*map(range, space.option_counts))
    networks = {space.network(space.architecture(choices)).key for choices in every}
    assert space.size() == len(networks)


def test_size_of_the_full_space_is_the_product_of_its_stages():
    # Layers after a stage's first: 4 operations each, skips last.
    first, later = 2 * 4 * (1 + 4), 3 * 4 * (1 + 4 + 16)
    assert SPACE.size() == first * later * later


def test_every_network_maps_the_image_to_the_classes():
    for network in MobileSpace(classes=7).sample_networks(20, seed=0):
        assert network.input_shape == (3, 32, 32)
        assert network.output_shape == (7,)


def test_every_block_of_a_network_is_listed_to_be_profiled():
    blocks = set(SPACE.blocks())
    for network in SPACE.sample_networks(100, seed=2):
        assert blocks.issuperset(network.blocks)


def test_listed_blocks_hold_the_bounds_of_elasticity_scaling():
    blocks = set(SPACE.blocks())
    assert len(blocks) == len(SPACE.blocks())
    widths = {}
    for block in blocks:
        if isinstance(block, MBConv):
            rest = (block.in_channels, block.out_channels, block.height, block.kernel, block.stride)
            widths.setdefault(rest, set()).add(block.expanded_channels)
    for (in_channels, *_), listed in widths.items():
        assert {3 * in_channels, 6 * in_channels} <= listed
        assert min(listed) == -(-1.5 * in_channels // 16) * 16
        assert len(listed) == 4
        assert all(width % 16 == 0 and width != in_channels for width in listed)


def test_skipped_layers_are_left_out_and_first_layers_carry_the_stride():
    smallest = SPACE.architecture([0, 0, 4, 0, 0, 4, 4, 0, 0, 4, 4])
    blocks = SPACE.network(smallest).blocks
    assert [type(block).__name__ for block in blocks] == [
        "ConvBlock",
        "MBConv",
        "MBConv",
        "MBConv",
        "Head",
    ]
    assert [block.stride for block in blocks[1:4]] == [1, 2, 2]
    assert blocks[0].output_shape == (16, 16, 16)
    assert blocks[3].output_shape == (64, 4, 4)
    assert isinstance(blocks[4], Head)


def test_cost_model_equals_the_sum_over_the_networks_blocks():
    def cost(block):
        return 0.01 + zlib.crc32(block.key.encode()) / 2**32

    model = lay_out(SPACE, cost, constant=0.3)
    random = np.random.default_rng(5)
    architectures = [SPACE.sample(random) for _ in range(200)]
    sums = [0.3 + sum(map(cost, SPACE.network(item).blocks)) for item in architectures]
    np.testing.assert_allclose(model.latency_ms(SPACE.encode(architectures)), sums, rtol=1e-13)
    smallest, choices = model.minimum()
    found = 0.3 + sum(map(cost, SPACE.network(SPACE.architecture(choices)).blocks))
    assert smallest == pytest.approx(found) and smallest <= min(sums)


def test_widths_change_the_middle_channels_of_the_layers_that_are_kept():
    plain = SPACE.architecture([1, 1, 4, 0, 1, 0, 4, 0, 0, 4, 4])
    scaled = Architecture(plain.choices, (48, 0, 96, 48, 0, 48, 0, 0))
    middle = [b.expanded_channels for b in SPACE.network(scaled).blocks if isinstance(b, MBConv)]
    assert middle == [48, 96, 48, 48]
