"""What may stand at each place while choices are left open."""

import numpy as np
import pytest
from latkit.devices.errors import UsageError
from latkit.search.candidates import candidates
from latkit.search.spaces import SMALL_IMAGES, mobile_space, mobilenet_v3_like, nasbench201


def open_at(space, *names):
    architecture = space.sample(np.random.default_rng(0))
    found = candidates(space, architecture, [space.position(name) for name in names])
    return architecture, found


def test_nothing_left_open_is_the_architecture():
    space = mobilenet_v3_like(10, SMALL_IMAGES)
    architecture, found = open_at(space)
    blocks = [block for shares in found for block in shares if block is not None]
    assert blocks == list(space.network(architecture).blocks)
    assert all(shares == {next(iter(shares)): 1.0} for shares in found)


def test_every_operation_of_a_layer_has_the_same_share():
    space = mobile_space()
    _, found = open_at(space, "stage2.layer2")
    (layer,) = [shares for shares in found if len(shares) > 1]
    assert list(layer.values()) == [1 / 5] * 5
    assert [
        block and (block.kernel, block.expanded_channels // block.in_channels) for block in layer
    ] == [
        (3, 3),
        (3, 6),
        (5, 3),
        (5, 6),
        None,
    ]


def test_a_layer_chosen_in_two_decisions_is_left_out_half_of_the_time():
    space = mobilenet_v3_like(10, SMALL_IMAGES)
    names = [f"stage2.layer2{suffix}" for suffix in ("", ".kernel", ".squeeze_excite")]
    _, found = open_at(space, *names)
    (layer,) = [shares for shares in found if len(shares) > 1]
    assert layer.pop(None) == 1 / 2
    assert len(layer) == 6 and set(layer.values()) == {1 / 12}


def test_pieces_that_are_no_chain_are_refused():
    space = nasbench201(10, SMALL_IMAGES)
    with pytest.raises(UsageError, match="in a chain"):
        open_at(space)
