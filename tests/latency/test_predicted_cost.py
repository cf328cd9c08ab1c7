"""Costs by a predictor: sums of predictions, and how sure the smallest of them is."""

import re

import numpy as np
import pytest
from latkit.devices.errors import UnreachableTargetError
from latkit.latency import LatencyPredictor, predicted_cost
from latkit.latency.counts import block_counts
from latkit.search.spaces import SMALL_IMAGES
from latkit.search.spaces.enas_micro import EnasMicroSpace
from latkit.search.spaces.mobile import MobileSpace, mobile_stage

TINY = MobileSpace(name="tiny", stages=(mobile_stage((16, 32), 2, 1),))
CELLS = EnasMicroSpace(5, SMALL_IMAGES, cells=3, nodes=2)


@pytest.fixture(scope="module")
def predictor():
    random = np.random.default_rng(0)
    blocks = list(dict.fromkeys([*TINY.blocks(), *CELLS.blocks()[:60]]))
    latency_ms = [
        (0.01 + block_counts(block).flops / 1e9) * random.uniform(0.9, 1.1) for block in blocks
    ]
    return LatencyPredictor(trees=0).fit(blocks, latency_ms)


@pytest.mark.parametrize("space", [TINY, CELLS], ids=lambda space: space.name)
def test_cost_is_the_sum_of_predictions(space, predictor):
    rows = space.sample_choices(5, np.random.default_rng(1))
    sums = [predictor.predict(space.blocks_of(row)).sum() for row in rows.tolist()]
    np.testing.assert_allclose(predicted_cost(space, predictor).latency_ms(rows), sums, rtol=1e-9)


def test_refusal_names_the_smallest_prediction_its_interval_and_a_bound(predictor):
    cost = predicted_cost(TINY, predictor)
    smallest, choices = cost.minimum()
    every = TINY.sample_choices(2000, np.random.default_rng(2))
    starts = [
        predictor.predict_interval(TINY.blocks_of(row))[0].sum()
        for row in np.unique(every, axis=0).tolist()
    ]
    with pytest.raises(UnreachableTargetError) as caught:
        cost.require_reachable(0.5 * smallest)
    message = str(caught.value)
    assert f"smallest reachable latency is {smallest:.6g} ms" in message
    low, high = map(float, re.search(r"add up to ([\d.e-]+) to ([\d.e-]+) ms", message).groups())
    expected = predictor.predict_interval(TINY.blocks_of(choices))
    assert (low, high) == pytest.approx([ends.sum() for ends in expected], rel=1e-5)
    assert low < smallest < high
    bound = float(re.search(r"begins below ([\d.e-]+) ms", message)[1])
    assert bound == pytest.approx(min(starts), rel=1e-5)


def test_refusal_in_a_space_that_is_called_has_the_interval_too(predictor):
    cost = predicted_cost(CELLS, predictor)
    with pytest.raises(UnreachableTargetError, match=r"smallest of a search.*add up to .* to "):
        cost.require_reachable(0.5 * cost.minimum()[0])
