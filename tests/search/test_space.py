import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from latkit.devices.errors import UsageError
from latkit.latency.blocks import ConvBlock, Head, MBConv, SumOf
from latkit.search.choices import SKIP, Choice
from latkit.search.space import Architecture, Piece, SearchSpace

KERNELS = (3, 5)


def conv(kernel):
    return ConvBlock(in_channels=8, out_channels=8, height=8, width=8, kernel=kernel)


def elastic_depth_space():
    """A space of a user's own: a depth that switches layers on, and a width that the head reads."""
    depth_of = {"layer2": (2, 3), "layer3": (3,)}
    return SearchSpace(
        "elastic",
        [
            Choice("depth", (1, 2, 3)),
            Choice("layer1", KERNELS),
            *(Choice(name, KERNELS, when={"depth": depths}) for name, depths in depth_of.items()),
            Choice("width", (16, 24)),
        ],
        [
            Piece(("layer1",), conv),
            *(
                Piece(
                    ("depth", name),
                    lambda depth, kernel, depths=depths: conv(kernel) if depth in depths else None,
                )
                for name, depths in depth_of.items()
            ),
            Piece(
                ("width",),
                lambda width: Head(
                    in_channels=8, height=8, width=8, hidden_channels=width, classes=4
                ),
            ),
        ],
    )


def skip_space(layers=3):
    names = tuple(f"layer{n}" for n in range(layers))
    options = (3, SKIP, 5)
    return SearchSpace(
        "skips",
        [*(Choice(name, options) for name in names), Choice("end", (1, 2))],
        [
            Piece((), lambda: conv(3)),
            *(
                Piece((name,), lambda kernel: None if kernel == SKIP else conv(kernel))
                for name in names
            ),
            Piece(
                ("end",),
                lambda classes: Head(
                    in_channels=8, height=8, width=8, hidden_channels=8, classes=classes
                ),
            ),
        ],
        [names],
    )


SPACES = [elastic_depth_space(), skip_space()]


def every_choice(space):
    return itertools.product(*map(range, space.option_counts))


@pytest.mark.parametrize("space", SPACES, ids=lambda space: space.name)
def test_size_counts_canonical_architectures_and_they_are_the_distinct_networks(space):
    canonical = {space.canonical(choices) for choices in every_choice(space)}
    networks = {space.network(Architecture(choices)).key for choices in canonical}
    assert space.size() == len(canonical) == len(networks)


def test_origins_say_which_choice_moved_where():
    space = skip_space(3)
    # The second and third layer move up, past the first, which is skipped.
    assert space.canonical((1, 0, 2, 0)) == (0, 2, 1, 0)
    assert space.origins((1, 0, 2, 0)) == (1, 2, 0, 3)
    for choices in every_choice(space):
        canonical = space.canonical(choices)
        assert canonical == tuple(choices[origin] for origin in space.origins(choices))


def test_size_of_a_space_beyond_64_bits_is_exact():
    names = [f"c{n}" for n in range(100)]
    space = SearchSpace("large", [Choice(name, tuple(range(7))) for name in names], [])
    assert space.size() == 7**100


@pytest.mark.parametrize("space", SPACES, ids=lambda space: space.name)
def test_all_choices_with_one_canonical_form_give_one_network(space):
    for choices in every_choice(space):
        combinations = [
            factor.blocks[
                np.ravel_multi_index(
                    [choices[p] for p in factor.positions],
                    [space.option_counts[p] for p in factor.positions],
                )
                if factor.positions
                else 0
            ]
            for factor in space.factors()
        ]
        blocks = tuple(block for block in combinations if block is not None)
        assert blocks == space.network(space.architecture(choices)).blocks


@pytest.mark.parametrize("space", SPACES, ids=lambda space: space.name)
@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_canonical_form_is_its_own_canonical_form(space, data):
    choices = [data.draw(st.integers(0, count - 1)) for count in space.option_counts]
    architecture = space.architecture(choices)
    assert space.canonical(architecture.choices) == architecture.choices
    space.validate(architecture)
    assert space.decode(space.encode([architecture])) == [architecture]
    assert Architecture.from_json(architecture.to_json()) == architecture
    assert Architecture.from_key(architecture.key) == architecture


def test_choices_that_are_off_are_inactive_and_take_their_first_option():
    space = elastic_depth_space()
    assert space.canonical((0, 1, 1, 1, 1)) == (0, 1, 0, 0, 1)
    assert space.active((0, 1, 1, 1, 1)) == (True, True, False, False, True)
    assert space.active((1, 1, 1, 1, 1)) == (True, True, True, False, True)
    assert space.describe((0, 1, 1, 1, 1)) == "depth 1, layer1 5, width 24"


def test_skips_move_behind_the_layers_that_stay_and_keep_their_order():
    assert skip_space().canonical((1, 2, 0, 1)) == (2, 0, 1, 1)
    assert skip_space().canonical((1, 1, 1, 0)) == (1, 1, 1, 0)


def test_sample_draws_every_option_and_only_canonical_architectures():
    space, random = skip_space(), np.random.default_rng(0)
    drawn = [space.sample(random) for _ in range(600)]
    assert len(set(drawn)) == space.size()
    for architecture in drawn:
        space.validate(architecture)


def test_samples_repeat_with_the_seed():
    space = skip_space()
    randoms = [np.random.default_rng(seed) for seed in (4, 4, 5)]
    first, again, other = ([space.sample(random) for _ in range(5)] for random in randoms)
    assert first == again != other


def test_encode_gives_small_column_major_integers():
    space = skip_space()
    encoded = space.encode([space.sample(np.random.default_rng(seed)) for seed in range(6)])
    assert encoded.dtype == np.uint8 and encoded.shape == (6, 4) and encoded.flags.f_contiguous
    assert space.encode([]).shape == (0, 4)


@pytest.mark.parametrize(
    ("choices", "named"),
    [
        ((0, 0, 3, 0), "layer2"),
        ((0, -1, 0, 0), "layer1"),
        ((1, 0, 0, 0), "layer0"),
        ((0, 0), "4 choices"),
    ],
)
def test_architecture_of_another_space_is_refused_by_name(choices, named):
    with pytest.raises(UsageError, match=named):
        skip_space().network(Architecture(choices))


@pytest.mark.parametrize(
    "data",
    [
        None,
        [],
        {},
        {"choices": 3},
        {"choices": [1.5]},
        {"choices": [True]},
        {"choices": [0], "expanded_channels": "x"},
    ],
)
def test_json_that_is_no_architecture_is_refused(data):
    with pytest.raises(UsageError, match="architecture"):
        Architecture.from_json(data)


def test_distinct_networks_are_sampled_and_too_many_refused():
    space = skip_space()
    networks = space.sample_networks(30, seed=1)
    assert len({network.key for network in networks}) == 30
    assert networks == space.sample_networks(30, seed=1)
    with pytest.raises(UsageError, match="ask for fewer"):
        space.sample_networks(31, seed=1)


def test_space_whose_declaration_is_wrong_is_refused():
    on = Choice("on", ("yes", "no"))
    with pytest.raises(UsageError, match="one name"):
        SearchSpace("s", [on, on], [])
    with pytest.raises(UsageError, match="no choice other"):
        SearchSpace("s", [on], [Piece(("other",), conv)])
    with pytest.raises(UsageError, match="no options"):
        SearchSpace("s", [on, Choice("a", (1, 2), when={"on": ("maybe",)})], [])
    conditional = Choice("a", (1, 2), when={"on": ("yes",)})
    with pytest.raises(UsageError, match="list the conditions of a too"):
        SearchSpace("s", [on, conditional, Choice("b", (1, 2), when={"a": (1,)})], [])
    with pytest.raises(UsageError, match="switch it on"):
        SearchSpace("s", [on, conditional], [Piece(("a",), conv)])
    with pytest.raises(UsageError, match="no option 'skip'"):
        SearchSpace("s", [on], [], [("on",)])


def test_widths_are_those_of_the_layers_that_have_middle_channels():
    def layer(expanded):
        if expanded == SKIP:
            return None
        return MBConv(in_channels=8, out_channels=8, height=4, width=4, expanded_channels=expanded)

    space = SearchSpace(
        "wide",
        [Choice("a", (32, 48)), Choice("b", (32, SKIP))],
        [Piece(("a",), layer, stage=0), Piece(("b",), layer, stage=1)],
    )
    assert space.layer_stages == (0, 1)
    scaled = Architecture((1, 0), (40, 24))
    assert [block.expanded_channels for block in space.network(scaled).blocks] == [40, 24]
    assert Architecture.from_json(scaled.to_json()) == scaled
    assert Architecture.from_key(scaled.key) == scaled
    assert scaled.key != Architecture((1, 0)).key
    assert len(space.network(Architecture((1, 1), (40, 0))).blocks) == 1
    for widths in ((40,), (49, 24), (0, 24), (40, 33)):
        with pytest.raises(UsageError, match=r"widths|middle channels"):
            space.network(Architecture((1, 0), widths))
    with pytest.raises(UsageError, match="must be 0"):
        space.network(Architecture((1, 1), (40, 8)))


def mirrored_space(**change):
    """A block decided by two halves that may be exchanged."""
    options = {"left.kind": "ab", "left.size": (3, 5), "right.kind": "ab", "right.size": (3, 5)}
    options |= change

    def build(*chosen):
        halves = sorted([chosen[:2], chosen[2:]])
        channels = 1 + 4 * KINDS_AND_SIZES.index(halves[0]) + KINDS_AND_SIZES.index(halves[1])
        return replace(conv(3), out_channels=channels)

    return SearchSpace(
        "mirrored",
        [Choice(name, tuple(values)) for name, values in options.items()],
        [Piece(tuple(options), build)],
        mirrors=[(("left.kind", "left.size"), ("right.kind", "right.size"))],
    )


KINDS_AND_SIZES = [("a", 3), ("a", 5), ("b", 3), ("b", 5)]


def test_mirrored_groups_are_put_in_order_and_counted_once():
    space = mirrored_space()
    canonical = {space.canonical(choices) for choices in every_choice(space)}
    networks = {space.network(Architecture(choices)).key for choices in canonical}
    assert space.size() == len(canonical) == len(networks) == 4 * 5 // 2
    assert space.canonical((1, 0, 0, 1)) == (0, 1, 1, 0)


def test_mirror_of_unlike_groups_is_refused():
    with pytest.raises(UsageError, match="not alike"):
        mirrored_space(**{"right.size": (3, 5, 7)})


def loose_space():
    """Two layers that may read the stem, and the sum of what none of them reads."""

    def edge(name):
        return Piece(
            (name,),
            lambda read: conv(5) if read == "yes" else None,
            name=name,
            reads=("stem",),
            edge=True,
        )

    def joined(inputs):
        return SumOf(in_channels=8, height=8, width=8, inputs=inputs)

    return SearchSpace(
        "loose",
        [Choice("first", ("no", "yes")), Choice("second", ("no", "yes"))],
        [
            Piece((), lambda: conv(3), name="stem"),
            edge("first"),
            edge("second"),
            Piece((), lambda: conv(1), name="end", reads=("stem",), edge=True, if_unread=True),
            Piece((), joined, reads=("first", "second", "end"), joins=True),
        ],
    )


@pytest.mark.parametrize(
    ("choices", "placed", "read"),
    [((0, 0), (0, 3, 4), 1), ((1, 0), (0, 1, 4), 1), ((1, 1), (0, 1, 2, 4), 2)],
)
def test_piece_is_there_where_nothing_else_reads_and_what_joins_knows_how_many(
    choices, placed, read
):
    space = loose_space()
    architecture = space.architecture(choices)
    network = space.network(architecture)
    assert space.placed(architecture) == placed
    assert space.blocks_of(choices) == network.blocks
    assert network.blocks[-1].inputs == len(network.nodes[-1].inputs) == read
    assert set(network.blocks) <= set(space.blocks())


def test_space_with_loose_ends_has_no_factors():
    assert not loose_space().is_additive
    with pytest.raises(UsageError, match="no sums"):
        loose_space().factors()


@pytest.mark.parametrize("key", ["", "a.b", "1..2", "1.2|", "1.2|a", "1.2|3|4"])
def test_text_that_is_no_key_is_refused(key):
    with pytest.raises(UsageError, match="no key of an architecture"):
        Architecture.from_key(key)
