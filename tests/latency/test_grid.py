"""The channel grid is read off probes: sawtooths of any period, smooth lines, noise."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from latkit.devices.errors import UsageError
from latkit.latency.grid import DEFAULT_GRID, PROBE_CHANNELS, channel_grid, grows, probe_blocks

CHANNELS = sorted(PROBE_CHANNELS)


def sawtooth(period: int, noise: float = 0.0, seed: int = 0) -> list[float]:
    """Latency of padding up to the next multiple of `period`."""
    random = np.random.default_rng(seed)
    padded = np.array([math.ceil(channels / period) * period for channels in CHANNELS])
    factors = 1 + noise * np.clip(random.standard_normal(len(padded)), -2, 2)
    return list((0.005 + padded * 0.0004) * factors)


@pytest.mark.parametrize("period", [8, 16, 32])
def test_padding_to_a_vector_gives_its_grid(period: int) -> None:
    assert channel_grid(CHANNELS, sawtooth(period)) == period


def test_a_steep_sawtooth_of_four_gives_the_grid_of_four() -> None:
    latency = [0.02 * (1.3 if channels % 4 else 1) + channels * 1e-4 for channels in CHANNELS]
    assert channel_grid(CHANNELS, latency) == 4


def test_a_smooth_line_gives_the_default() -> None:
    assert channel_grid(CHANNELS, sawtooth(1)) == DEFAULT_GRID


def test_widths_off_the_grid_may_be_slower_than_the_next_multiple() -> None:
    latency = [channels * (1.0 if channels % 8 == 0 else 1.5) for channels in CHANNELS]
    assert channel_grid(CHANNELS, latency) == 8


@given(seed=st.integers(0, 2**32 - 1), period=st.sampled_from([1, 8, 16]))
@settings(deadline=None, max_examples=60)
def test_noise_of_one_percent_changes_nothing(seed: int, period: int) -> None:
    expected = max(period, DEFAULT_GRID)
    assert channel_grid(CHANNELS, sawtooth(period, 0.01, seed)) == expected


def test_a_slight_preference_for_32_leaves_the_grid_at_16() -> None:
    latency = [
        padded * (1.05 if channels % 32 else 1.0)
        for channels, padded in zip(CHANNELS, sawtooth(16), strict=True)
    ]
    assert channel_grid(CHANNELS, latency) == 16


def test_a_single_outlier_does_not_move_the_grid() -> None:
    latency = sawtooth(1)
    latency[CHANNELS.index(48)] *= 3
    assert channel_grid(CHANNELS, latency) == DEFAULT_GRID


def test_too_few_probes_give_the_default() -> None:
    assert channel_grid([32, 40, 48], [1.0, 3.0, 1.5]) == DEFAULT_GRID


@pytest.mark.parametrize("wrong", [0.0, -1.0, math.nan, math.inf])
def test_impossible_latencies_are_refused(wrong: float) -> None:
    with pytest.raises(UsageError, match="positive"):
        channel_grid([32, 40], [1.0, wrong])


def test_probe_blocks_differ_in_one_width_alone_and_run_three_convolutions() -> None:
    blocks = probe_blocks()
    assert [block.expanded_channels for block in blocks] == CHANNELS
    assert len({(b.in_channels, b.out_channels, b.height, b.width) for b in blocks}) == 1
    assert all(block.expanded_channels != block.in_channels for block in blocks)
    assert not any(block.has_residual for block in blocks)


def test_growth_is_confirmed_on_the_grid_alone() -> None:
    latency = sawtooth(16, noise=0.0)
    off_grid = [
        value * (1.0 if channels % 16 == 0 else 1.5)
        for channels, value in zip(CHANNELS, latency, strict=True)
    ]
    assert grows(CHANNELS, off_grid, 16)
    assert not grows(CHANNELS, off_grid, 4)


def test_growth_is_not_confirmed_where_a_wider_probe_is_faster_or_probes_are_few() -> None:
    latency = sawtooth(16)
    latency[CHANNELS.index(96)] *= 0.7
    assert not grows(CHANNELS, latency, 16)
    assert not grows(CHANNELS[:2], sawtooth(16)[:2], 16)
    assert not grows([], [], 16)
