import doctest

import numpy as np
import pytest
from latkit.devices.errors import UsageError
from latkit.latency.transfer import predictor as transfer
from latkit.latency.transfer.choices import Choices
from latkit.latency.transfer.predictor import TransferPredictor, adapt, rounding_step_ms
from latkit.latency.transfer.sources import learn_sources
from scipy.stats import spearmanr
from sklearn.base import clone, is_regressor

POSITIONS, CATEGORIES = 8, 4


class World:
    """Architectures whose latency is a sum over positions, and devices that resemble each other."""

    def __init__(self, count=400, sources=5, seed=0, noise=0.01):
        random = np.random.default_rng(seed)
        self.random, self.noise = random, noise
        drawn = np.unique(random.integers(0, CATEGORIES, (2 * count, POSITIONS)), axis=0)
        self.choices = random.permutation(drawn)[:count]
        self.shared = random.gamma(2.0, 1.0, (POSITIONS, CATEGORIES))
        self.sources_ms = np.stack([self.device() for _ in range(sources)], axis=1)

    def device(self, by_category=0.4, own=0.1):
        factors = 1 + by_category * self.random.standard_normal(CATEGORIES)
        factors = factors * (1 + own * self.random.standard_normal((POSITIONS, CATEGORIES)))
        effects = self.shared * np.maximum(factors, 0.05)
        latency = effects[np.arange(POSITIONS), self.choices].sum(1) + 1.0
        return latency * (1 + self.noise * self.random.standard_normal(len(latency)))


@pytest.fixture(scope="module")
def world():
    return World()


@pytest.fixture(scope="module")
def target_ms(world):
    return world.device()


@pytest.fixture(scope="module")
def sources(world):
    return learn_sources(Choices.of(world.choices), world.sources_ms)


@pytest.fixture(scope="module")
def adapted(sources, target_ms):
    indices = sources.choose(20)
    return indices, TransferPredictor(sources).fit(indices, target_ms[indices])


def rank(predicted, latency):
    return spearmanr(predicted, latency).statistic


def test_known_structure_is_recovered_from_twenty_measurements(world, adapted, target_ms):
    _, predictor = adapted
    predicted = predictor.predict()
    assert rank(predicted, target_ms) > 0.95
    assert np.mean(np.abs(predicted / target_ms - 1) < 0.1) > 0.95
    assert rank(predicted, target_ms) > rank(world.sources_ms.mean(1), target_ms)


def test_chosen_items_tell_more_than_random_ones(sources, target_ms):
    def error(indices):
        predicted = TransferPredictor(sources).fit(indices, target_ms[indices]).predict()
        return np.mean((predicted - target_ms) ** 2)

    random = np.random.default_rng(1)
    chosen = np.mean([error(sources.choose(15, seed=seed)) for seed in range(4)])
    drawn = np.mean([error(random.choice(len(sources), 15, replace=False)) for _ in range(4)])
    assert chosen < drawn


def test_intervals_hold_about_as_many_latencies_as_they_say():
    world = World(seed=3)
    sources = learn_sources(Choices.of(world.choices), world.sources_ms)
    held = []
    for _ in range(4):
        latency = world.device()
        indices = sources.choose(20)
        predictor = TransferPredictor(sources).fit(indices, latency[indices])
        rest = np.setdiff1d(np.arange(len(latency)), indices)
        low, high = predictor.predict_interval(rest)
        held.append(np.mean((low <= latency[rest]) & (latency[rest] <= high)))
    assert 0.75 <= np.mean(held) <= 0.99


def test_a_wider_coverage_gives_wider_intervals_around_the_prediction(adapted):
    _, predictor = adapted
    predicted = predictor.predict()
    narrow_low, narrow_high = predictor.predict_interval(coverage=0.5)
    wide_low, wide_high = predictor.predict_interval(coverage=0.95)
    assert (wide_low < narrow_low).all()
    assert (narrow_low < predicted).all()
    assert (predicted < narrow_high).all()
    assert (narrow_high < wide_high).all()
    with pytest.raises(UsageError, match="between 0 and 1"):
        predictor.predict_interval(coverage=90)


def test_same_seed_gives_the_same_choice_and_prediction(world, sources, adapted, target_ms):
    indices, predictor = adapted
    again = learn_sources(Choices.of(world.choices), world.sources_ms)
    assert np.array_equal(again.choose(20), indices)
    refitted = TransferPredictor(again).fit(indices, target_ms[indices])
    assert np.array_equal(refitted.predict(), predictor.predict())


def test_order_of_architectures_and_samples_does_not_matter(world, adapted, target_ms):
    indices, predictor = adapted
    shuffled = np.random.default_rng(5).permutation(len(target_ms))
    place = np.argsort(shuffled)
    sources = learn_sources(Choices.of(world.choices[shuffled]), world.sources_ms[shuffled])
    assert np.array_equal(shuffled[sources.choose(20)], indices)
    backwards = indices[::-1]
    other = TransferPredictor(sources).fit(place[backwards], target_ms[backwards])
    np.testing.assert_allclose(other.predict(), predictor.predict()[shuffled], rtol=1e-6)


def test_unit_of_a_source_does_not_matter(world, adapted, target_ms):
    indices, predictor = adapted
    scaled = world.sources_ms * [1.0, 1000.0, 0.01, 1.0, 7.0]
    other = TransferPredictor(learn_sources(Choices.of(world.choices), scaled))
    other.fit(indices, target_ms[indices])
    np.testing.assert_allclose(other.predict(), predictor.predict(), rtol=1e-3)


def test_sources_with_missing_rows_are_completed(world, target_ms):
    latency = world.sources_ms.copy()
    latency[np.random.default_rng(2).random(latency.shape) < 0.3] = np.nan
    latency[:50] = np.nan
    found = adapt(world.choices, latency, lambda indices: target_ms[indices])
    assert np.isfinite(found.latency_ms).all()
    assert rank(found.latency_ms, target_ms) > 0.93
    assert rank(found.latency_ms[:50], target_ms[:50]) > 0.9


def test_sources_measured_at_few_architectures_are_enough(world, target_ms):
    latency = world.sources_ms.copy()
    latency[100:] = np.nan
    found = adapt(world.choices, latency, lambda indices: target_ms[indices])
    assert rank(found.latency_ms[100:], target_ms[100:]) > 0.9


def test_latencies_near_zero_do_not_spoil_the_others(world, target_ms):
    disconnected = (world.choices[:, :2] == 0).all(axis=1)
    sources, target = world.sources_ms.copy(), target_ms.copy()
    sources[disconnected, 0] = target[disconnected] = 0.003
    found = adapt(world.choices, sources, lambda indices: target[indices])
    rest = ~disconnected
    assert rank(found.latency_ms[rest], target[rest]) > 0.9
    assert (found.latency_ms >= 0).all()
    assert np.median(found.latency_ms[disconnected]) < 0.5 * np.median(found.latency_ms[rest])


def test_whole_milliseconds_are_known_to_be_rounded(world, target_ms):
    rounded = np.round(target_ms)
    sources = learn_sources(Choices.of(world.choices), np.round(world.sources_ms))
    indices = sources.choose(20)
    predictor = TransferPredictor(sources).fit(indices, rounded[indices])
    assert rank(predictor.predict(), target_ms) > 0.9
    low, high = predictor.predict_interval()
    # Rounding alone is uniform over 1 ms: no 90 % interval of a rounded latency is narrower.
    assert (high - low).min() > 0.9 * np.sqrt(1 / 12) * 2


@pytest.mark.parametrize(
    ("latency", "step"),
    [([3.0, 17.0, 25.0], 1.0), ([3.2, 17.0, 25.1], 0.1), ([3.21, 17.0], 0.01), ([3.2157, 1.0], 0)],
)
def test_rounding_step_is_seen(latency, step):
    assert rounding_step_ms(np.array(latency)) == step


def test_one_source_is_enough(world, target_ms):
    found = adapt(world.choices, world.sources_ms[:, :1], lambda indices: target_ms[indices])
    assert rank(found.latency_ms, target_ms) > 0.85
    assert (found.low_ms < found.high_ms).all()


def test_copies_of_one_source_do_not_make_it_sure_of_another_copy():
    world = World(seed=6)
    copies = np.repeat(world.sources_ms[:, :1], 4, axis=1)
    copies *= 1 + 0.01 * world.random.standard_normal(copies.shape)
    target = world.device(by_category=1.0)
    assert rank(copies[:, 0], target) < 0.85
    found = adapt(world.choices, copies, lambda indices: target[indices])
    assert rank(found.latency_ms, target) > 0.9


def test_choice_stays_among_the_candidates(sources):
    candidates = np.arange(100, 130)
    chosen = sources.choose(20, candidates=candidates)
    assert len(set(chosen.tolist())) == 20
    assert np.isin(chosen, candidates).all()
    with pytest.raises(UsageError, match="40 items are to be chosen from 30 candidates"):
        sources.choose(40, candidates=candidates)


def test_adapt_measures_once_what_it_chose_and_leaves_out_what_failed(world, sources, target_ms):
    asked = []

    def measure(indices):
        asked.append(indices)
        latency = target_ms[indices].copy()
        latency[0] = np.nan
        return latency

    found = adapt(world.choices, world.sources_ms, measure, count=12)
    assert len(asked) == 1
    assert np.array_equal(asked[0], sources.choose(12))
    assert np.array_equal(found.indices, asked[0][1:])
    known = dict(zip(found.indices.tolist(), found.measured_ms, strict=True))
    again = adapt(world.choices, world.sources_ms, known)
    assert np.array_equal(again.latency_ms, found.latency_ms)


@pytest.mark.parametrize(
    ("indices", "latency", "message"),
    [
        ([0, 1, 2], [1.0, 2.0, 3.0], "at least 5"),
        ([0, 1, 2, 3, 4], [1.0, 2.0, np.nan, 3.0, 4.0], "is no number"),
        ([0, 1, 2, 3, 4], [1.0, 2.0, -1.0, 3.0, 4.0], "is negative"),
        ([0, 1, 2, 3, 3], [1.0, 2.0, 2.0, 3.0, 4.0], "given twice"),
        ([0, 1, 2, 3, 400], [1.0, 2.0, 2.0, 3.0, 4.0], "from 0 to 399"),
        ([0, 1, 2, 3, 4], [1.0, 2.0], "as many latencies"),
        ([0.5, 1, 2, 3, 4], [1.0] * 5, "whole numbers"),
    ],
)
def test_samples_that_can_not_be_used_are_refused(sources, indices, latency, message):
    with pytest.raises(UsageError, match=message):
        TransferPredictor(sources).fit(indices, latency)


def test_sources_that_can_not_be_used_are_refused(world):
    items = Choices.of(world.choices)
    few = world.sources_ms.copy()
    few[5:, 2] = np.nan
    with pytest.raises(UsageError, match="source 2 has 5 measured latencies"):
        learn_sources(items, few)
    with pytest.raises(UsageError, match="source 0: a latency is negative"):
        learn_sources(items, -world.sources_ms)
    with pytest.raises(UsageError, match="row for each of 400"):
        learn_sources(items, world.sources_ms[:5])
    with pytest.raises(UsageError, match="whole numbers"):
        Choices.of(world.choices * 0.5)


def test_predictor_keeps_to_scikit_learn_manners(sources, adapted, target_ms):
    indices, predictor = adapted
    assert is_regressor(predictor)
    assert predictor.get_params() == {"sources": sources}
    copied = clone(predictor).set_params(sources=sources)
    assert copied.sources is sources
    assert not hasattr(copied, "mean_")
    with pytest.raises(UsageError, match="call fit first"):
        copied.predict()
    with pytest.raises(UsageError, match="trees is no parameter"):
        copied.set_params(trees=3)
    assert predictor.fit(indices, target_ms[indices]) is predictor
    column = np.arange(7)[:, None]
    assert np.array_equal(predictor.predict(column), predictor.predict()[:7])
    assert -0.1 < predictor.score(np.arange(400), target_ms) < 0


def test_the_example_runs():
    result = doctest.testmod(transfer)
    assert result.attempted > 0
    assert result.failed == 0
