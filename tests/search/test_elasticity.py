import itertools
import zlib
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from latkit.devices.errors import UnreachableTargetError, UsageError
from latkit.latency.blocks import ConvBlock, Head, MBConv
from latkit.search.choices import SKIP, Choice
from latkit.search.elasticity import CLOSE_ENOUGH, architecture_latency, is_scalable, scale
from latkit.search.space import Architecture, Piece, SearchSpace
from latkit.search.spaces.bignas import bignas
from latkit.search.spaces.layers import OneOf, Operation
from latkit.search.spaces.mobile import STAGES, MobileSpace, mobile_space, mobile_stage
from latkit.search.spaces.nasbench201 import NasBench201Space
from latkit.search.spaces.proxylessnas import proxylessnas, proxylessnas_enlarged
from latkit.search.spaces.shufflenet import shufflenet_channels
from latkit.search.spaces.tfnas import tfnas

SPACE = mobile_space()
EVERYTHING = SPACE.architecture([1, 3, 3, 2, 3, 3, 3, 2, 3, 3, 3])


def smooth_cost(block):
    """Proportional to the multiply-accumulates: monotone in the middle channels."""
    if not isinstance(block, MBConv):
        return 0.1
    pixels = block.height * block.width
    per_channel = block.in_channels + block.kernel**2 + block.out_channels
    return 1e-6 * pixels * block.expanded_channels * per_channel + 0.01


def sawtooth_cost(block):
    """Rises with width on the whole, and falls at every multiple of 64."""
    cost = smooth_cost(block)
    if isinstance(block, MBConv):
        cost *= 1 - 0.3 * (block.expanded_channels % 64 == 0)
    return cost


def erratic_cost(block):
    """Has nothing to do with width."""
    return 0.05 + zlib.crc32(block.key.encode()) / 2**32


class RandomTable:
    """Every block's latency at random, rising with its middle channels or in steps up and down."""

    def __init__(self, seed, teeth):
        self.seed = seed
        self.teeth = teeth

    def __call__(self, block):
        if not isinstance(block, MBConv):
            return 0.1
        steps = np.random.default_rng(
            (self.seed, zlib.crc32(replace(block, expanded_channels=1).key.encode()))
        )
        rises = steps.exponential(size=64)
        if self.teeth:
            rises *= steps.choice([0, 0, 1, 1, -0.5], size=64)
        return max(0.01, 0.1 + rises[: block.expanded_channels // 16].sum() / 16)


COSTS = [smooth_cost, sawtooth_cost, erratic_cost]
architectures = st.integers(0, 2**32 - 1).map(lambda s: SPACE.sample(np.random.default_rng(s)))


def maxima(architecture):
    blocks = SPACE.layers(Architecture(architecture.choices))
    return [0 if block is None else block.expanded_channels for block in blocks]


def with_widths(architecture, choose):
    return Architecture(
        architecture.choices, tuple(choose(width) for width in maxima(architecture))
    )


@settings(max_examples=60, deadline=None)
@given(
    architecture=architectures,
    cost=st.sampled_from(COSTS),
    share=st.floats(0.3, 1.2),
    grid=st.sampled_from([1, 4, 8, 16, 32]),
)
def test_result_is_within_target_bounds_and_grid(architecture, cost, share, grid):
    latency_of = architecture_latency(SPACE, cost)
    target_ms = share * latency_of(architecture)
    try:
        scaled = scale(architecture, SPACE, latency_of, target_ms, grid)
    except UnreachableTargetError:
        narrow = with_widths(architecture, lambda width: -(-width // 2 // grid) * grid)
        if cost is smooth_cost and grid <= 16:
            assert latency_of(narrow) > target_ms
        return
    assert scaled.choices == architecture.choices
    assert latency_of(scaled) <= target_ms
    for width, largest in zip(scaled.expanded_channels, maxima(architecture), strict=True):
        assert largest / 2 <= width <= largest
        assert width % grid == 0 or width == largest
    SPACE.network(scaled)


@settings(max_examples=30, deadline=None)
@given(architecture=architectures, cost=st.sampled_from(COSTS), share=st.floats(0.4, 1.0))
def test_a_single_step_more_would_be_above_the_target_or_faster(architecture, cost, share):
    latency_of = architecture_latency(SPACE, cost)
    target_ms = share * latency_of(architecture)
    try:
        scaled = scale(architecture, SPACE, latency_of, target_ms)
    except UnreachableTargetError:
        return
    for layer, largest in enumerate(maxima(architecture)):
        widths = list(scaled.expanded_channels)
        widths[layer] += 16
        if widths[layer] <= largest:
            wider = latency_of(Architecture(scaled.choices, tuple(widths)))
            assert not latency_of(scaled) <= wider <= target_ms


@settings(max_examples=60, deadline=None)
@given(architecture=architectures, cost=st.sampled_from(COSTS))
def test_unreachable_target_names_the_smallest_latency_within_the_bounds(architecture, cost):
    latency_of = architecture_latency(SPACE, cost)
    fixed = sum(cost(b) for b in SPACE.network(architecture).blocks if not isinstance(b, MBConv))
    smallest = fixed
    for block in SPACE.network(architecture).blocks:
        if isinstance(block, MBConv):
            largest = block.expanded_channels
            options = range(-(-largest // 32) * 16, largest + 1, 16)
            smallest += min(cost(_widened(block, width)) for width in options)
    with pytest.raises(UnreachableTargetError, match=f"{smallest:.6g} ms: choose"):
        scale(architecture, SPACE, latency_of, smallest * (1 - 1e-6))
    reached = scale(architecture, SPACE, latency_of, smallest * (1 + 1e-9))
    assert latency_of(reached) == pytest.approx(smallest)


def _widened(block, width):
    values = {name: getattr(block, name) for name in block.__dataclass_fields__}
    return MBConv(**{**values, "expanded_channels": width})


@pytest.mark.parametrize("cost", COSTS)
def test_target_above_the_widest_state_gives_all_channels(cost):
    latency_of = architecture_latency(SPACE, cost)
    scaled = scale(EVERYTHING, SPACE, latency_of, 1e6)
    assert list(scaled.expanded_channels) == maxima(EVERYTHING)
    narrow = with_widths(EVERYTHING, lambda width: width // 2)
    assert scale(narrow, SPACE, latency_of, 1e6) == scaled


@pytest.mark.parametrize("share", [0.6, 0.7, 0.8, 0.9])
def test_gap_to_the_target_is_closed(share):
    latency_of = architecture_latency(SPACE, smooth_cost)
    for seed in range(10):
        architecture = SPACE.sample(np.random.default_rng(seed))
        lowest = latency_of(with_widths(architecture, lambda width: -(-width // 32) * 16))
        target_ms = lowest + share * (latency_of(architecture) - lowest)
        scaled = latency_of(scale(architecture, SPACE, latency_of, target_ms))
        assert 0.99 * target_ms < scaled <= target_ms


def test_states_follow_the_papers_procedure():
    """All stages step together by their own steps; then suffixes of stages grow; then blocks."""
    asked = []
    latency = architecture_latency(SPACE, smooth_cost)

    def latency_of(architecture):
        asked.append(architecture.expanded_channels)
        return latency(architecture)

    # Stage widths 32, 64, 128: steps of 16, 32 and 64 channels.
    scale(EVERYTHING, SPACE, latency_of, 0.8 * latency(EVERYTHING))
    full = maxima(EVERYTHING)
    steps = [16, 16, 32, 32, 32, 64, 64, 64]
    states = [tuple(w - n * s for w, s in zip(full, steps, strict=True)) for n in range(20)]
    first_within = next(
        number
        for number, widths in enumerate(states)
        if latency(Architecture(EVERYTHING.choices, _clamped(widths, full)))
        <= 0.8 * latency(EVERYTHING)
    )
    expected = [_clamped(widths, full) for widths in states[: first_within + 1]]
    assert asked[: first_within + 1] == expected
    suffix = tuple(
        width + (step if stage >= 1 else 0)
        for width, step, stage in zip(expected[-1], steps, SPACE.layer_stages, strict=True)
    )
    assert asked[first_within + 1] == _clamped(suffix, full)


def _clamped(widths, full):
    return tuple(
        min(max(width, -(-largest // 32) * 16), largest)
        for width, largest in zip(widths, full, strict=True)
    )


# Two stages of 16 and 48 channels: steps of 16 and 48 middle channels, of at most 96, 96 and 288.
TWO_STAGES = MobileSpace(
    name="two", stages=[mobile_stage((16,), 1, 1), mobile_stage((48,), 2, 2)], stem_channels=16
)
WIDEST = TWO_STAGES.architecture([1, 1, 1])


def a_millisecond_a_channel(block):
    return float(block.expanded_channels) if isinstance(block, MBConv) else 0.0


@pytest.mark.parametrize(
    ("start", "target_ms", "procedure"),
    [
        # All shrink from 480, clamped; growing the second stage again would give 464.
        (None, 400, (80, 48, 240)),
        # Twice more to (48, 48, 144); growing the second stage would give 336.
        (None, 300, (48, 48, 144)),
        # All grow to 352, for 416 is too much; then the second stage grows once.
        ((48, 48, 144), 400, (64, 96, 240)),
        # Widths off the grid go down to it.
        ((60, 60, 150), 240, (48, 48, 144)),
    ],
)
def test_without_repair_widths_are_those_of_the_papers_procedure(start, target_ms, procedure):
    latency_of = architecture_latency(TWO_STAGES, a_millisecond_a_channel)
    architecture = replace(WIDEST, expanded_channels=start)
    found = scale(architecture, TWO_STAGES, latency_of, target_ms, repair=False)
    assert found.expanded_channels == procedure
    repaired = scale(architecture, TWO_STAGES, latency_of, target_ms)
    # All widths are multiples of 16.
    assert latency_of(repaired) == target_ms // 16 * 16


def test_without_repair_a_target_below_the_fewest_channels_is_unreachable():
    latency_of = architecture_latency(TWO_STAGES, a_millisecond_a_channel)
    with pytest.raises(UnreachableTargetError, match=r"fewest .* 239 ms.* 240 ms: choose"):
        scale(WIDEST, TWO_STAGES, latency_of, 239, repair=False)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), teeth=st.booleans(), share=st.floats(0, 1))
def test_any_additive_table_is_met_as_closely_as_widths_can(seed, teeth, share):
    """Every combination of widths is tried; the closest one is at most `CLOSE_ENOUGH` better."""
    latency_of = architecture_latency(TWO_STAGES, RandomTable(seed, teeth))
    ranges = (range(48, 97, 16), range(48, 97, 16), range(144, 289, 16))
    states = [replace(WIDEST, expanded_channels=state) for state in itertools.product(*ranges)]
    latencies = [latency_of(state) for state in states]
    target_ms = min(latencies) + share * (latencies[-1] - min(latencies))
    found = scale(WIDEST, TWO_STAGES, latency_of, target_ms)
    reachable = max(latency for latency in latencies if latency <= target_ms)
    assert latency_of(found) <= target_ms
    assert latency_of(found) >= min(reachable, (1 - CLOSE_ENOUGH) * target_ms) - 1e-9
    assert found in states


@settings(max_examples=30, deadline=None)
@given(architecture=architectures, seed=st.integers(0, 2**32 - 1), share=st.floats(0.5, 1.0))
def test_latencies_that_are_no_sums_are_never_passed(architecture, seed, share):
    """What one block's width costs depends on the others': the repair is told, and holds."""
    added = architecture_latency(SPACE, RandomTable(seed, teeth=True))

    def latency_of(candidate):
        tangled = zlib.crc32(candidate.key.encode()) / 2**32
        return added(candidate) * (1 + 0.05 * tangled)

    target_ms = share * latency_of(architecture)
    try:
        scaled = scale(architecture, SPACE, latency_of, target_ms)
    except UnreachableTargetError:
        return
    assert latency_of(scaled) <= target_ms


def test_scaling_starts_from_the_widths_that_the_architecture_has():
    latency_of = architecture_latency(SPACE, smooth_cost)
    once = scale(EVERYTHING, SPACE, latency_of, 0.75 * latency_of(EVERYTHING))
    again = scale(once, SPACE, latency_of, 0.75 * latency_of(EVERYTHING))
    assert latency_of(once) <= latency_of(again) <= 0.75 * latency_of(EVERYTHING)


def test_blocks_never_lose_their_first_convolution_to_a_width():
    narrow = (Operation(3, 2), Operation(3, 1))
    stages = [replace(stage, choices=OneOf(narrow)) for stage in STAGES]
    space = MobileSpace(name="slim", stages=stages)
    architecture = space.architecture([1, 0, 2, 0, 0, 1, 2, 0, 0, 1, 2])
    latency_of = architecture_latency(space, smooth_cost)
    for share in (0.75, 0.9):
        scaled = scale(architecture, space, latency_of, share * latency_of(architecture), 8)
        for before, after in zip(space.layers(architecture), space.layers(scaled), strict=True):
            if before is not None:
                same = before.expanded_channels == before.in_channels
                assert (after.expanded_channels == after.in_channels) == same


@pytest.mark.parametrize(
    ("space", "scalable"),
    [
        (mobile_space, True),
        (proxylessnas, True),
        (proxylessnas_enlarged, True),
        (tfnas, True),
        (bignas, True),
        (shufflenet_channels, False),
        (NasBench201Space, False),
    ],
)
def test_inverted_residual_blocks_are_what_can_be_scaled(space, scalable):
    assert is_scalable(space()) is scalable


def test_space_without_middle_channels_has_nothing_to_scale():
    def conv(kernel):
        return ConvBlock(in_channels=3, out_channels=8, height=4, width=4, kernel=kernel)

    space = SearchSpace(
        "plain",
        [Choice("kernel", (3, 5))],
        [
            Piece(("kernel",), conv, stage=0),
            Piece((), lambda: Head(in_channels=8, height=4, width=4, hidden_channels=8, classes=2)),
        ],
    )
    latency_of = architecture_latency(space, lambda block: 1.0)
    assert scale(Architecture((1,)), space, latency_of, 2.0) == Architecture((1,), (0,))
    with pytest.raises(UnreachableTargetError, match="2 ms: choose"):
        scale(Architecture((1,)), space, latency_of, 1.9)
    assert SKIP not in space.choices[0].options


@pytest.mark.parametrize(("target_ms", "grid"), [(0.0, 16), (float("nan"), 16), (1.0, 0)])
def test_target_and_grid_must_be_positive(target_ms, grid):
    with pytest.raises(UsageError, match="must be positive"):
        scale(EVERYTHING, SPACE, lambda _: 1.0, target_ms, grid)
