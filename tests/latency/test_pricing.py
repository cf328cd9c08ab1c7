"""Costs of spaces whose blocks depend on many choices at once."""

import zlib

import numpy as np
import pytest
from latkit.devices.errors import LatkitError, UnreachableTargetError, UsageError
from latkit.latency.cost import lay_out
from latkit.latency.pricing import CalledCost, cost_model
from latkit.search.spaces import SMALL_IMAGES
from latkit.search.spaces.enas_micro import EnasMicroSpace
from latkit.search.spaces.mobile import mobile_space
from latkit.search.spaces.nasrl import NasRLSpace
from latkit.search.strategies.evolution import Evolution
from latkit.search.strategies.random_search import RandomSearch

CELLS = EnasMicroSpace(5, SMALL_IMAGES, cells=3, nodes=2)
LAYERS = NasRLSpace(5, SMALL_IMAGES, layers=3)


def price(block):
    return 0.1 + zlib.crc32(block.key.encode()) / 2**32


def test_additive_space_is_laid_out_as_tables():
    model, space = cost_model(mobile_space(), price, 0.5), mobile_space()
    assert not isinstance(model, CalledCost)
    rows = space.sample_choices(50, np.random.default_rng(0))
    called = CalledCost(space, price, 0.5)
    np.testing.assert_allclose(called.latency_ms(rows), model.latency_ms(rows), rtol=1e-12)


@pytest.mark.parametrize("space", [CELLS, LAYERS], ids=lambda space: space.name)
def test_cost_is_the_sum_of_the_networks_blocks_and_the_constant(space):
    model = cost_model(space, price, constant=3.0)
    rows = space.sample_choices(20, np.random.default_rng(1))
    networks = [space.network(space.architecture(row)) for row in rows.tolist()]
    sums = [3 + sum(map(price, network.blocks)) for network in networks]
    np.testing.assert_allclose(model.latency_ms(rows), sums, rtol=1e-12)


@pytest.mark.parametrize("space", [CELLS, LAYERS], ids=lambda space: space.name)
def test_no_single_change_betters_the_extremes(space):
    model = cost_model(space, price)
    for sign, (cost, choices) in ((1, model.minimum()), (-1, model.maximum())):
        changed = [
            (*choices[:position], option, *choices[position + 1 :])
            for position, count in enumerate(space.option_counts)
            for option in range(count)
        ]
        assert cost == min(sign * model.latency_ms(np.array(changed))) * sign
    drawn = model.latency_ms(space.sample_choices(300, np.random.default_rng(2)))
    assert model.minimum()[0] <= drawn.min() < drawn.max() <= model.maximum()[0]


def test_tables_of_a_space_that_is_not_additive_are_refused():
    for space in (CELLS, LAYERS):
        with pytest.raises(UsageError, match=f"{space.name}.*cost_model"):
            lay_out(space, price)


def test_mean_over_a_policy_is_refused():
    uniform = [np.full(count, 1 / count) for count in CELLS.option_counts]
    with pytest.raises(UsageError, match="Draw architectures"):
        cost_model(CELLS, price).expected(uniform)


def test_target_below_what_was_found_is_refused_and_says_how_sure_that_is():
    model = cost_model(CELLS, price)
    smallest, _ = model.minimum()
    model.require_reachable(smallest)
    with pytest.raises(UnreachableTargetError, match=r"smallest of a search"):
        model.require_reachable(0.99 * smallest)


def test_cost_that_is_no_number_names_the_block():
    model = cost_model(CELLS, lambda block: float("nan"))
    with pytest.raises(LatkitError, match="ConvBlock"):
        model.latency_ms(CELLS.sample_choices(1, np.random.default_rng(0)))


def test_rows_of_other_spaces_are_refused():
    with pytest.raises(UsageError, match="array of integers"):
        cost_model(CELLS, price).latency_ms(np.zeros((1, 3), np.uint8))


@pytest.mark.parametrize("space", [CELLS, LAYERS], ids=lambda space: space.name)
def test_strategies_keep_the_target_over_called_costs(space):
    model = cost_model(space, price)
    target = float(np.median(model.latency_ms(space.sample_choices(64, np.random.default_rng(3)))))
    for strategy in (
        RandomSearch(space, model, target, budget=10),
        Evolution(space, model, target, population=6, rounds=2, parents=3),
    ):
        while not strategy.done:
            asked = strategy.ask(10)
            latency_ms = model.latency_ms(space.encode(asked))
            assert (latency_ms <= target).all()
            strategy.tell(asked, [0.5] * len(asked), latency_ms.tolist())
        assert len(strategy.evaluations) >= 10
