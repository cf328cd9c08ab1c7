import itertools
from dataclasses import fields, replace

import pytest
from block_cases import EXAMPLES
from hypothesis import given, settings
from hypothesis import strategies as st
from latkit.devices.errors import UsageError
from latkit.latency.blocks import (
    BLOCK_KINDS,
    ConvBlock,
    Depthwise,
    Head,
    LinearBlock,
    MBConv,
    Pointwise,
    Pooling,
    Skip,
    Sum,
)

CONV = ConvBlock(in_channels=3, height=32, width=24, out_channels=16, stride=2)
MBCONV = MBConv(in_channels=16, height=14, width=14, out_channels=16, expanded_channels=96)


def changed(block, name):
    """The same block with one field set to another allowed value."""
    value = getattr(block, name)
    if name == "activation":
        return replace(block, activation="sigmoid")
    if name == "pool":
        return replace(block, pool="average")
    if isinstance(value, bool):
        return replace(block, **{name: not value})
    if isinstance(value, tuple):
        return replace(block, **{name: value[1:]})
    return replace(block, **{name: value + 2})


def test_examples_cover_every_kind():
    assert {type(block).__name__ for block in EXAMPLES} == set(BLOCK_KINDS)


@pytest.mark.parametrize("block", EXAMPLES, ids=lambda block: type(block).__name__)
def test_key_tells_every_field_apart(block):
    others = [changed(block, item.name) for item in fields(block)]
    keys = {other.key for other in others}
    assert len(keys) == len(others)
    assert block.key not in keys
    assert replace(block).key == block.key


def test_keys_of_different_kinds_with_equal_fields_differ():
    skip, total = Skip(in_channels=1, height=2, width=3), Sum(in_channels=1, height=2, width=3)
    assert skip.key != total.key
    assert skip != total


small = st.integers(1, 3)
block_pairs = st.builds(
    MBConv,
    in_channels=small,
    height=small,
    width=small,
    out_channels=small,
    expanded_channels=small,
    kernel=st.sampled_from([1, 3]),
    squeeze_excite=st.booleans(),
) | st.builds(Pointwise, in_channels=small, height=small, width=small, out_channels=small)


@settings(deadline=None, max_examples=200)
@given(st.lists(block_pairs, min_size=2, max_size=8))
def test_keys_are_equal_exactly_for_equal_blocks(blocks):
    for first, second in itertools.combinations(blocks, 2):
        assert (first.key == second.key) == (first == second)
        if first == second:
            assert hash(first) == hash(second)


@pytest.mark.parametrize(
    ("block", "shape"),
    [
        (CONV, (16, 16, 12)),
        (ConvBlock(in_channels=3, height=33, width=1, out_channels=4, stride=2), (4, 17, 1)),
        (ConvBlock(in_channels=3, height=7, width=5, out_channels=4, stride=3), (4, 3, 2)),
        (Depthwise(in_channels=8, height=9, width=8, kernel=7, stride=2), (8, 5, 4)),
        (Pointwise(in_channels=8, height=9, width=7, out_channels=12), (12, 9, 7)),
        (MBCONV, (16, 14, 14)),
        (replace(MBCONV, stride=2, kernel=1), (16, 7, 7)),
        (Pooling(in_channels=8, height=9, width=8), (8, 5, 4)),
        (LinearBlock(in_features=20, out_features=10), (10,)),
        (Skip(in_channels=8, height=9, width=7), (8, 9, 7)),
        (Sum(in_channels=8, height=9, width=7), (8, 9, 7)),
        (Head(in_channels=8, height=4, width=4, hidden_channels=32, classes=10), (10,)),
    ],
    ids=str,
)
def test_output_shape(block, shape):
    assert block.output_shape == shape


def test_sum_reads_two_values():
    block = Sum(in_channels=8, height=9, width=7)
    assert block.input_shapes == ((8, 9, 7), (8, 9, 7))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, True),
        ({"stride": 2}, False),
        ({"out_channels": 24}, False),
        ({"residual": False}, False),
    ],
)
def test_residual_needs_equal_shapes_and_permission(change, expected):
    assert replace(MBCONV, **change).has_residual is expected


@pytest.mark.parametrize(("expanded", "squeezed"), [(8, 8), (16, 8), (96, 24), (72, 16), (240, 64)])
def test_squeezed_channels_are_a_quarter_on_the_grid_of_eight(expanded, squeezed):
    assert replace(MBCONV, expanded_channels=expanded).squeezed_channels == squeezed


@pytest.mark.parametrize("block", EXAMPLES, ids=lambda block: type(block).__name__)
def test_sizes_below_one_are_refused(block):
    sizes = [item.name for item in fields(block) if type(getattr(block, item.name)) is int]
    for name in sizes:
        for value in (0, -1):
            with pytest.raises(UsageError, match=f"{type(block).__name__}.*{name}"):
                replace(block, **{name: value})


@pytest.mark.parametrize("block", [CONV, MBCONV, EXAMPLES[1], EXAMPLES[4]], ids=str)
def test_even_kernels_are_refused(block):
    with pytest.raises(UsageError, match="kernel"):
        replace(block, kernel=4)
