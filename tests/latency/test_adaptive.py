"""Adaptive choices: what they teach, what is random among them, and that they can be repeated."""

import numpy as np
import pytest
from latkit.devices.errors import UsageError
from latkit.latency.adaptive import (
    FIRST,
    AdaptiveChoice,
    Candidates,
    batch_size,
    most_informative,
    random_part,
)
from latkit.latency.blocks import Depthwise, MBConv, Pointwise, Skip
from latkit.latency.features import kernels_of
from latkit.latency.network import Network
from latkit.latency.predictor import LatencyPredictor


def made_up_ms(block):
    return 0.003 + sum(
        0.0005
        + kernel.flops / (4e6 if kernel.kind == "depthwise" else 4e7)
        + kernel.moved_bytes / 2e7
        for kernel in kernels_of(block)
    )


def pointwise(count, pixels=14):
    random = np.random.default_rng(pixels)
    found = {}
    while len(found) < count:
        read, written = (8 * int(value) for value in random.integers(1, 40, 2))
        block = Pointwise(in_channels=read, out_channels=written, height=pixels, width=pixels)
        found[block] = None
    return list(found)


def depthwise(count):
    return [
        Depthwise(in_channels=8 * channels, height=pixels, width=pixels, kernel=5)
        for channels in range(1, count // 4 + 2)
        for pixels in (7, 14, 20, 28)
    ][:count]


@pytest.fixture(scope="module")
def fitted():
    """A predictor that has seen 1x1 convolutions only, and what it was fitted to."""
    blocks = pointwise(30)
    return LatencyPredictor(channel_grid=8).fit(blocks, list(map(made_up_ms, blocks))), blocks


def test_what_a_model_knows_already_is_not_picked_again(fitted):
    predictor, measured = fitted
    known, new = measured[:10], pointwise(20, pixels=28)
    candidates = [*known, *new]
    chosen = most_informative(predictor, measured, candidates, np.ones(len(candidates)), 5)
    assert len(set(chosen)) == 5
    assert all(index >= len(known) for index in chosen)


def test_what_is_needed_more_is_picked_first(fitted):
    predictor, measured = fitted
    small, large = pointwise(10, pixels=7), pointwise(10, pixels=40)
    for needed in (range(10), range(10, 20)):
        need = np.full(20, 1e-3)
        need[list(needed)] = 1.0
        (first,) = most_informative(predictor, measured, [*small, *large], need, 1)
        assert first in needed


def test_a_batch_holds_no_twins(fitted):
    predictor, measured = fitted
    block = Pointwise(in_channels=160, out_channels=160, height=40, width=40)
    twin = Pointwise(in_channels=160, out_channels=168, height=40, width=40)
    other = Pointwise(in_channels=16, out_channels=8, height=56, width=56)
    chosen = most_informative(predictor, measured, [block, twin, other], np.ones(3), 2)
    assert 2 in chosen


def test_choices_learn_a_mixed_pool_better_than_the_same_number_of_random_ones():
    # A tenth are depthwise, which random choices hardly meet.
    pool = [*pointwise(180), *depthwise(20)]
    truth = np.array([made_up_ms(block) for block in pool])
    errors = {}
    for adaptive in (False, True):
        choice = AdaptiveChoice(Candidates.of_blocks(pool), seed=0)
        choice.at_random(20 if adaptive else 32)
        if adaptive:
            measured = list(choice.picked)
            model = LatencyPredictor(channel_grid=8).fit(measured, list(map(made_up_ms, measured)))
            choice.unsure(model, measured, 12)
        measured = list(choice.picked)
        assert len(measured) == 32
        model = LatencyPredictor(channel_grid=8).fit(measured, list(map(made_up_ms, measured)))
        errors[adaptive] = np.abs(model.predict(pool) / truth - 1).mean()
    assert errors[True] < errors[False]


def test_random_draws_do_not_depend_on_what_else_was_picked():
    pool = pointwise(60)
    free = AdaptiveChoice(Candidates.of_blocks(pool), seed=3)
    order = [*free.at_random(10), *free.at_random(10)]
    assert len(set(order)) == 20 and all(free.picked.values())
    # The 12th draw was picked for being unsure before: it counts as drawn, and costs nothing.
    held = AdaptiveChoice(Candidates.of_blocks(pool), seed=3)
    assert held.at_random(10) == order[:10]
    held.picked[order[11]] = False
    drawn = held.at_random(9)
    assert drawn == order[10:20]
    assert held.picked[order[11]] is True


def test_a_choice_goes_on_from_what_was_picked(fitted):
    predictor, _ = fitted
    candidates = Candidates.of_blocks([*pointwise(60), *pointwise(60, pixels=28)])

    def picks(cut):
        choice = AdaptiveChoice(candidates, seed=1)
        for step in range(3):
            if step == cut:  # as after a kill: only the picks are left
                choice = AdaptiveChoice(candidates, seed=1, picked=choice.picked)
            choice.at_random(4)
            choice.unsure(predictor, [b for b in choice.picked if b.height == 14], 4)
        return choice.picked

    assert picks(cut=1) == picks(cut=2) == picks(cut=None)


def test_batches_grow_and_keep_a_random_part():
    assert batch_size(FIRST) == 15
    assert batch_size(300) == 100
    assert 0 < random_part(15) < 15


def test_an_exhausted_choice_says_so(fitted):
    predictor, _ = fitted
    pool = pointwise(12)
    choice = AdaptiveChoice(Candidates.of_blocks(pool), seed=0)
    assert not choice.is_exhausted
    choice.at_random(5)
    assert len(choice.unsure(predictor, pool[:1], 50)) == 7
    assert choice.is_exhausted
    assert choice.unsure(predictor, pool[:1], 1) == []
    assert choice.at_random(50) and choice.at_random(1) == []


class TwoBlockSpace:
    """Networks of one common block and now and then a rare one."""

    name = "two"
    common = MBConv(in_channels=16, out_channels=16, expanded_channels=64, height=14, width=14)
    rare = pointwise(12)

    def blocks(self):
        return [self.common, *self.rare, Skip(in_channels=16, height=14, width=14)]

    def sample_networks(self, count, seed):
        return [Network.chain([self.common, self.common])] * count


def test_a_space_needs_blocks_as_often_as_its_networks_have_them():
    found = Candidates.of_space(TwoBlockSpace())
    frequency = dict(zip(found.blocks, found.frequency.tolist(), strict=True))
    assert set(frequency) == {TwoBlockSpace.common, *TwoBlockSpace.rare}
    assert frequency[TwoBlockSpace.common] == 1000
    assert {frequency[block] for block in TwoBlockSpace.rare} == {0.5}
    assert found.by_cost
    first = AdaptiveChoice(found, seed=0).at_random(1)
    assert first == [TwoBlockSpace.common]


def test_too_few_candidates_are_refused():
    with pytest.raises(UsageError, match="too few"):
        Candidates.of_blocks(pointwise(9))
