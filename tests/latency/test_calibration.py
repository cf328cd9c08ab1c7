"""Calibration finds the terms that are there, leaves out the others, and says how far off it is."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from latkit.devices.errors import UsageError
from latkit.latency.blocks import MBConv, Pointwise, Skip
from latkit.latency.calibration import (
    BlockTerms,
    Calibration,
    block_terms,
    calibrate,
    conformal_share,
    fit_relative,
    is_timed,
    prediction_error,
)

Networks = list[list[BlockTerms]]


def random_networks(count: int, seed: int) -> Networks:
    """Networks of 4 to 14 blocks of 10 to 60 us, bytes unrelated to time."""
    random = np.random.default_rng(seed)
    return [
        [
            BlockTerms(
                float(random.uniform(0.01, 0.06)),
                int(random.integers(1_000, 200_000)),
                int(random.integers(4_000, 80_000)),
            )
            for _ in range(random.integers(4, 15))
        ]
        for _ in range(count)
    ]


def measured(truth: Calibration, networks: Networks, noise: float, seed: int) -> list[float]:
    random = np.random.default_rng(seed)
    return [
        truth.network_ms(blocks) * (1 + noise * random.standard_normal()) for blocks in networks
    ]


TRUTHS = {
    "scale": Calibration(scale=1.2),
    "constant": Calibration(scale=1.1, constant_ms=0.1),
    "weight_bytes": Calibration(scale=0.9, per_weight_byte_ms=2e-7),
    "boundary_bytes": Calibration(scale=1.1, per_boundary_byte_ms=-1e-7),
    "blocks": Calibration(scale=1.1, per_block_ms=-0.007),
}


@pytest.mark.parametrize("term", TRUTHS)
def test_the_term_that_is_there_is_found_and_predicts_new_networks(term: str) -> None:
    truth = TRUTHS[term]
    networks = random_networks(16, 1)
    found = calibrate(networks, measured(truth, networks, 0.002, 2))
    assert set(found.terms) == {"scale", term}
    others = random_networks(30, 3)
    evaluated = found.evaluate(others, measured(truth, others, 0.002, 4))
    assert evaluated.held_out is not None
    assert evaluated.held_out.rmspe < 0.02
    assert abs(evaluated.held_out.bias) < 0.01
    assert found.plain is not None
    assert found.plain.rmspe > 5 * evaluated.held_out.rmspe


def test_noise_alone_adds_no_term() -> None:
    kept = []
    for seed in range(10):
        networks = random_networks(16, seed)
        kept.append(calibrate(networks, measured(TRUTHS["scale"], networks, 0.02, seed)).terms)
    assert kept.count(("scale",)) >= 8


def test_a_coefficient_against_physics_is_not_kept() -> None:
    networks = random_networks(16, 0)
    wrong = Calibration(scale=1.0, per_block_ms=0.01)
    assert "blocks" not in calibrate(networks, measured(wrong, networks, 0.001, 0)).terms


def test_no_block_ends_up_costing_nothing_or_less() -> None:
    networks = random_networks(16, 0)
    networks[0].append(BlockTerms(0.003, 100, 100))
    truth = Calibration(scale=1.0, per_block_ms=-0.006)
    found = calibrate(networks, measured(truth, networks, 0.001, 0))
    assert all(found.cost_ms(block) > 0 for blocks in networks for block in blocks)


@given(seed=st.integers(0, 10_000))
@settings(deadline=None, max_examples=15)
def test_costs_of_blocks_and_the_constant_sum_to_the_network(seed: int) -> None:
    networks = random_networks(8, seed)
    found = calibrate(networks, measured(TRUTHS["constant"], networks, 0.02, seed))
    total = sum(found.cost_ms(block) for block in networks[0]) + found.constant_ms
    assert found.network_ms(networks[0]) == pytest.approx(total)


def test_intervals_cover_new_networks_about_as_often_as_promised() -> None:
    inside = []
    for seed in range(20):
        networks, others = random_networks(16, seed), random_networks(20, seed + 100)
        found = calibrate(networks, measured(TRUTHS["scale"], networks, 0.02, seed))
        error = found.evaluate(others, measured(TRUTHS["scale"], others, 0.02, seed + 100)).held_out
        assert error is not None and error.inside is not None
        inside.append(error.inside)
    assert 0.85 < np.mean(inside) < 0.99


def test_two_networks_are_too_few() -> None:
    networks = random_networks(2, 0)
    with pytest.raises(UsageError, match="at least 3"):
        calibrate(networks, [1.0, 2.0])


def test_three_networks_give_a_scale_and_a_wide_interval() -> None:
    networks = random_networks(3, 0)
    found = calibrate(networks, measured(TRUTHS["scale"], networks, 0.01, 0))
    assert found.terms in {("scale",)}
    assert found.interval_share > 0.01


def test_relative_fit_weighs_a_small_network_as_much_as_a_large_one() -> None:
    columns = np.array([[1.0], [100.0]])
    (scale,) = fit_relative(columns, np.array([1.1, 90.0]))
    off = scale * columns[:, 0] / np.array([1.1, 90.0]) - 1
    assert abs(off[0]) == pytest.approx(abs(off[1]), rel=0.25)
    assert off[0] * off[1] < 0


def test_prediction_error_counts_by_hand() -> None:
    error = prediction_error([1.04, 0.96, 1.08, 1.2], [1.0, 1.0, 1.0, 1.0])
    assert error.bias == pytest.approx(0.07)
    assert error.rmspe == pytest.approx(math.sqrt((2 * 0.04**2 + 0.08**2 + 0.2**2) / 4))
    assert (error.within_5, error.within_10) == (0.5, 0.75)
    assert error.spearman is None


def test_prediction_error_of_nothing_is_refused() -> None:
    with pytest.raises(UsageError):
        prediction_error([], [])


def test_conformal_share_is_the_quantile_or_wider_where_there_are_few() -> None:
    assert conformal_share([0.01 * size for size in range(1, 20)]) == pytest.approx(0.18)
    assert conformal_share([0.01, -0.02, 0.01]) > 0.02


def test_an_identity_is_not_timed_and_has_no_terms() -> None:
    skip = Skip(in_channels=8, height=4, width=4)
    assert not is_timed(skip)
    with pytest.raises(UsageError, match="no operation"):
        block_terms(skip, 1.0)


def test_terms_count_weights_and_both_ends() -> None:
    block = Pointwise(in_channels=8, out_channels=16, height=4, width=4)
    assert block_terms(block, 0.5) == BlockTerms(0.5, 4 * (8 * 16 + 16), 4 * 16 * (8 + 16))
    assert is_timed(MBConv(in_channels=8, out_channels=8, expanded_channels=16, height=4, width=4))
