"""Staged spaces: their sizes are those of an enumeration, their layers what was chosen."""

import itertools

import pytest
from latkit.devices.errors import UsageError
from latkit.latency.blocks import MBConv
from latkit.search.choices import Choice, ChoiceRules
from latkit.search.spaces.heads import pooled_head
from latkit.search.spaces.layers import OneOf, Operation, Properties
from latkit.search.spaces.scale import PAPER, SMALL_IMAGES, Scale, rounded_channels
from latkit.search.spaces.staged import HEAD_WIDTH, Stage, StagedSpace, Stem

PROPERTIES = Properties(kernels=(3, 5), expansions=(3,), squeeze_excite=(False, True))
OPERATIONS = OneOf((Operation(3, 3), Operation(5, 6, squeeze_excite=True)))
STAGES = {
    "skipped property by property": Stage((8, 16), 3, 2, PROPERTIES, may_skip=True),
    "skipped": Stage((8,), 4, 2, OPERATIONS, may_skip=True),
    "of a depth": Stage((8, 16), 3, 2, OPERATIONS, depths=(1, 2, 3)),
    "of a depth, property by property": Stage((8,), 3, 1, PROPERTIES, depths=(1, 3)),
    "alike": Stage((8, 16), 3, 2, PROPERTIES, depths=(2, 3), alike=True),
    "fixed": Stage((8,), 2, 1, OneOf((Operation(3, 1),))),
}


def space_of(*stages, resolutions=(16,), stem=(8,), heads=(16,)):
    return StagedSpace(
        "staged",
        resolutions=resolutions,
        stem=Stem(stem),
        stages=stages,
        head_widths={HEAD_WIDTH: heads},
        make_head=pooled_head(4),
    )


def layers_of(network):
    return [block for block in network.blocks if isinstance(block, MBConv)]


@pytest.mark.parametrize("name", STAGES)
def test_size_is_the_number_of_distinct_networks(name):
    space = space_of(STAGES[name], stem=(8, 16), heads=(16, 24))
    every = itertools.product(*map(range, space.option_counts))
    networks = {space.network(space.architecture(choices)).key for choices in every}
    assert space.size() == len(networks)


def test_choices_say_of_what_kind_they_are():
    spaces = [
        space_of(STAGES["of a depth"], resolutions=(16, 32), stem=(8, 16), heads=(8, 16)),
        space_of(Stage((8,), 2, 1, Properties((3, 5), (3, 6), (False, True)), may_skip=True)),
    ]
    kinds = {choice.name: choice.kind for space in spaces for choice in space.choices}
    assert kinds == {
        "resolution": "resolution",
        "stem.width": "width",
        "stage1.width": "width",
        "stage1.depth": "depth",
        **{f"stage1.layer{layer}": "operation" for layer in (1, 2, 3)},
        **{f"stage1.layer{layer}.kernel": "operation" for layer in (1, 2)},
        **{f"stage1.layer{layer}.expansion": "width" for layer in (1, 2)},
        **{f"stage1.layer{layer}.squeeze_excite": "operation" for layer in (1, 2)},
        "head.width": "width",
    }


def test_skips_move_to_the_end_with_what_was_chosen_beside_them():
    space = space_of(Stage((8,), 3, 1, PROPERTIES, may_skip=True))
    names = [choice.name for choice in space.choices]
    chosen = dict.fromkeys(names, 0)
    # The second layer is skipped; the third has kernel 5 and squeeze-excite.
    chosen |= {"stage1.layer2": 1, "stage1.layer3.kernel": 1, "stage1.layer3.squeeze_excite": 1}
    found = dict(zip(names, space.canonical([chosen[name] for name in names]), strict=True))
    assert (found["stage1.layer2"], found["stage1.layer3"]) == (0, 1)
    assert (found["stage1.layer2.kernel"], found["stage1.layer2.squeeze_excite"]) == (1, 1)
    assert (found["stage1.layer3.kernel"], found["stage1.layer3.squeeze_excite"]) == (0, 0)
    layers = layers_of(space.network(space.architecture([chosen[name] for name in names])))
    assert [(layer.kernel, layer.squeeze_excite) for layer in layers] == [(3, False), (5, True)]


def test_resolution_and_strides_reach_every_layer():
    space = space_of(
        Stage((8,), 2, 2, OneOf((Operation(3, 3),))),
        Stage((16,), 1, 2, OneOf((Operation(5, 6),))),
        resolutions=(24, 32),
    )
    for index, sizes in enumerate(([12, 6, 6], [16, 8, 8])):
        network = space.network(space.architecture([index]))
        assert [layer.height for layer in layers_of(network)] == sizes
        assert [layer.stride for layer in layers_of(network)] == [2, 1, 2]
        assert network.input_shape == (3, 24 + 8 * index, 24 + 8 * index)


def test_what_has_one_option_is_no_choice():
    assert space_of(STAGES["fixed"]).choices == ()


def test_depths_that_do_not_fit_are_refused():
    with pytest.raises(UsageError, match="depths"):
        Stage((8,), 3, 1, OPERATIONS, depths=(1, 2))
    with pytest.raises(UsageError, match="no depths"):
        Stage((8,), 3, 1, OPERATIONS, depths=(1, 2, 3), may_skip=True)


def test_layers_of_a_run_must_be_alike():
    choices = [
        Choice("a", ("keep", "skip")),
        Choice("a.kernel", (3, 5), {"a": ("keep",)}),
        Choice("b", ("keep", "skip")),
        Choice("b.kernel", (3, 7), {"b": ("keep",)}),
    ]
    with pytest.raises(UsageError, match="not alike"):
        ChoiceRules("space", choices, [("a", "b")])


@pytest.mark.parametrize(
    ("channels", "rounded"), [(3, 8), (11.9, 8), (12, 16), (20, 24), (84, 88), (92, 96)]
)
def test_channels_are_rounded_to_the_nearest_multiple_of_eight(channels, rounded):
    assert rounded_channels(channels) == rounded


def test_a_scale_narrows_and_leaves_out_strides():
    assert [PAPER.channels(count) for count in (36, 320)] == [36, 320]
    assert [SMALL_IMAGES.channels(count) for count in (16, 40, 320)] == [8, 8, 80]
    assert SMALL_IMAGES.strides([2, 1, 2, 2]) == [1, 1, 1, 2]
    assert PAPER.strides([2, 1, 2, 2]) == [2, 1, 2, 2]
    with pytest.raises(UsageError):
        Scale(width=0)
