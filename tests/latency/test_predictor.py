"""The predictor on made-up latencies that follow from a block's kernels, and its file."""

from copy import copy
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from latkit.devices.device import Setup
from latkit.devices.errors import DamagedFileError, UsageError
from latkit.latency.blocks import ConvBlock, Depthwise, LinearBlock, MBConv, Pointwise, Skip
from latkit.latency.document import read_document, write_document
from latkit.latency.features import describe, kernels_of, round_up
from latkit.latency.hybrid import with_estimate
from latkit.latency.predictor import KIND, VERSION, LatencyPredictor
from latkit.latency.trees import LEAF, Trees, boosted_trees
from sklearn.base import clone
from sklearn.ensemble import GradientBoostingRegressor
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import cross_val_score
from sklearn.utils import estimator_checks
from sklearn.utils.validation import check_is_fitted

SETUP = Setup("test board", "onnxruntime", "1.0")
GRID = 16


def kernel_ms(kernel):
    """A machine with vectors of 16 channels, whose depthwise 5x5 is slower than its size."""
    padded = round_up(kernel.out_channels, GRID) / kernel.out_channels
    if kernel.kind != "depthwise":
        padded *= round_up(kernel.in_channels, GRID) / kernel.in_channels
    slow = 9.0 if kernel.kind == "depthwise" else 1.0
    slow *= 1.5 if kernel.kernel == (5, 5) else 1.0
    return 0.0005 + padded * slow * kernel.flops / 4e7 + kernel.moved_bytes / 2e7


def made_up_ms(block):
    return 0.004 + sum(kernel_ms(kernel) for kernel in kernels_of(block))


def draw(count, seed):
    random = np.random.default_rng(seed)
    found = {}
    while len(found) < count:
        pixels, channels = int(random.integers(5, 29)), 8 * int(random.integers(1, 17))
        shape = {"in_channels": channels, "height": pixels, "width": pixels}
        kernel, stride = int(random.choice((3, 5))), int(random.choice((1, 2)))
        kind = random.choice(4, p=(0.7, 0.1, 0.1, 0.1))
        if kind == 0:
            expanded = 8 * int(random.integers(1, 49))
            block = MBConv(
                **shape,
                out_channels=channels,
                expanded_channels=expanded,
                kernel=kernel,
                stride=stride,
                squeeze_excite=bool(random.random() < 0.3),
            )
        elif kind == 1:
            block = ConvBlock(**shape, out_channels=32, kernel=kernel, stride=stride)
        elif kind == 2:
            block = Depthwise(**shape, kernel=kernel, stride=stride)
        else:
            block = Pointwise(**shape, out_channels=8 * int(random.integers(1, 17)))
        found[block] = None
    return list(found)


def measured(blocks, seed=0, noise=0.02):
    random = np.random.default_rng(seed)
    return np.array([made_up_ms(block) for block in blocks]) * np.exp(
        noise * random.standard_normal(len(blocks))
    )


@pytest.fixture(scope="module")
def training():
    blocks = draw(120, seed=1)
    return blocks, measured(blocks)


@pytest.fixture(scope="module")
def predictor(training):
    """Trees that correct almost nothing are there so that every part of a file is tested."""
    fitted = LatencyPredictor(SETUP, 4096, trees=60).fit(*training)
    features = fitted.prepare(training[0]).features
    features = with_estimate(features, training[1])
    little = 1e-6 * np.log(training[1])
    trees = boosted_trees(features, little, trees=60, learning_rate=0.05, seed=0)
    fitted.model_ = replace(fitted.model_, trees=trees)
    return fitted


@pytest.fixture(scope="module")
def unseen(training):
    return [block for block in draw(150, seed=2) if block not in set(training[0])]


@pytest.fixture(scope="module")
def document(predictor, tmp_path_factory):
    path = tmp_path_factory.mktemp("predictor") / "predictor.json"
    predictor.save(path)
    return path


def test_blocks_never_measured_are_predicted(predictor, unseen):
    truth = np.array([made_up_ms(block) for block in unseen])
    error = np.abs(predictor.predict(unseen) / truth - 1)
    assert np.mean(error < 0.1) > 0.9
    assert np.mean(error < 0.05) > 0.7


def test_the_process_learns_what_work_alone_does_not_explain(predictor, training, unseen):
    blocks, _ = training

    def ms(block):  # a penalty on a property that no amount of work stands for
        return made_up_ms(block) * (1.4 if block.width > 14 else 1.0)

    truth = np.array([ms(block) for block in unseen])
    fitted = LatencyPredictor(channel_grid=GRID).fit(blocks, [ms(block) for block in blocks])
    terms = fitted.prepare(unseen).terms
    work_alone = terms.sums(fitted.model_.physical.predict(terms.work))
    by_work, by_both = (
        np.sqrt(np.mean((latency_ms / truth - 1) ** 2))
        for latency_ms in (work_alone, fitted.predict(unseen))
    )
    assert by_both < 0.7 * by_work


def test_kernels_and_tuples_of_kernels_are_samples_too(training, unseen):
    blocks, _ = training
    kernels = list(dict.fromkeys(kernel for block in blocks for kernel in kernels_of(block)))[:300]
    samples = [*kernels, *(kernels_of(block) for block in blocks[:40])]
    latency_ms = [sum(map(kernel_ms, kernels_of(sample))) for sample in samples]
    fitted = LatencyPredictor(SETUP).fit(samples, latency_ms)
    others = [kernel for block in unseen for kernel in kernels_of(block)]
    error = fitted.predict(others) / [kernel_ms(kernel) for kernel in others] - 1
    assert np.mean(np.abs(error) < 0.1) > 0.85
    assert fitted.estimate(kernels[0]).low_ms < fitted.estimate(kernels[0]).high_ms
    assert fitted.predict([()]).tolist() == [0]


def test_only_samples_drawn_at_random_make_intervals(training, unseen):
    blocks, latency_ms = training
    drawn = [index % 2 == 0 for index in range(len(blocks))]
    fitted = LatencyPredictor(SETUP, channel_grid=GRID).fit(blocks, latency_ms, at_random=drawn)
    assert len(fitted.residuals_) == sum(drawn)
    assert len(fitted.left_out_ms_) == len(blocks)
    with pytest.raises(UsageError, match="drawn at random"):
        LatencyPredictor().fit(blocks, latency_ms, at_random=[False] * len(blocks))
    with pytest.raises(UsageError, match="as many marks"):
        LatencyPredictor().fit(blocks, latency_ms, at_random=[True])


def test_intervals_are_wider_where_the_model_is_less_sure(training):
    blocks, _ = training
    random = np.random.default_rng(0)

    def ms(block):  # depthwise blocks alone behave as no one can know
        alone = isinstance(block, Depthwise)
        return made_up_ms(block) * np.exp((0.4 if alone else 0.01) * random.standard_normal())

    fitted = LatencyPredictor(channel_grid=GRID).fit(blocks, [ms(block) for block in blocks])
    low, high = fitted.predict_interval(draw(60, seed=5))
    assert (high / low).max() > 1.2 * (high / low).min()


def test_the_channel_grid_is_found_in_the_training_blocks(predictor, training):
    assert predictor.channel_grid_ == GRID
    assert predictor.channel_grid is None
    assert LatencyPredictor(channel_grid=8, trees=5).fit(*training).channel_grid_ == 8


def test_intervals_cover_what_they_promise(predictor, unseen):
    truth = measured(unseen, seed=3)
    for coverage in (0.5, 0.9):
        low, high = predictor.predict_interval(unseen, coverage)
        inside = np.mean((low <= truth) & (truth <= high))
        assert coverage - 0.12 < inside <= min(1.0, coverage + 0.2)


def test_a_coverage_that_the_samples_do_not_carry_is_refused(predictor, unseen):
    for coverage in (0.0, 0.999, 1.0, float("nan")):
        with pytest.raises(UsageError, match="120 samples"):
            predictor.predict_interval(unseen, coverage)


def test_estimate_says_what_is_strange_about_a_block_and_widens(predictor, training):
    inside = training[0][0]
    known = predictor.estimate(inside)
    assert (known.source, known.reason) == ("predicted", "")
    assert known.low_ms < known.latency_ms < known.high_ms
    strange = {
        "no training block has depthwise kernel 7x7": replace(
            next(block for block in training[0] if isinstance(block, Depthwise)), kernel=7
        ),
        "no training block has operation HardSwish": replace(inside, activation="hard_swish"),
        "no training block has block kind LinearBlock": LinearBlock(
            in_features=64, out_features=64
        ),
        "pixels: 10000, in training blocks": Pointwise(
            in_channels=8, out_channels=8, height=100, width=100
        ),
    }
    for reason, block in strange.items():
        estimate = predictor.estimate(block)
        assert reason in estimate.reason
        assert estimate.high_ms / estimate.latency_ms > known.high_ms / known.latency_ms
        assert np.isfinite([estimate.low_ms, estimate.latency_ms, estimate.high_ms]).all()


def test_a_block_without_operation_takes_no_time(predictor, training):
    skip = Skip(in_channels=8, height=4, width=4)
    assert predictor.estimate(skip).latency_ms == 0
    assert predictor.predict([skip, training[0][0], skip])[[0, 2]].tolist() == [0, 0]
    low, high = predictor.predict_interval([skip])
    assert (low[0], high[0]) == (0, 0)
    assert predictor.predict([]).shape == (0,)


def test_a_prediction_does_not_depend_on_its_neighbours(predictor, unseen):
    together = predictor.predict(unseen)
    assert [predictor.predict([block])[0] for block in unseen[:20]] == together[:20].tolist()
    assert predictor.predict(unseen[::-1])[::-1].tolist() == together.tolist()
    assert predictor.predict_prepared(predictor.prepare(unseen)).tolist() == together.tolist()


def test_equal_seeds_give_equal_fits(training, unseen):
    blocks, latency_ms = training[0][:40], training[1][:40]
    first, again = (LatencyPredictor().fit(blocks, latency_ms, seed=1) for _ in range(2))
    assert again.predict(unseen).tolist() == first.predict(unseen).tolist()
    assert again.residuals_.tolist() == first.residuals_.tolist()
    other = LatencyPredictor().fit(blocks, latency_ms, seed=2)
    assert other.residuals_.tolist() != first.residuals_.tolist()


def test_latencies_that_can_not_be_are_refused_by_name(training):
    blocks, latency_ms = training
    for value in (0.0, -1.0, float("nan"), float("inf")):
        bad = latency_ms.copy()
        bad[7] = value
        with pytest.raises(UsageError) as caught:
            LatencyPredictor().fit(blocks, bad)
        assert str(blocks[7]) in str(caught.value)
        assert str(blocks[8]) not in str(caught.value)


def test_too_few_or_unequal_samples_are_refused(training):
    blocks, latency_ms = training
    with pytest.raises(UsageError, match="at least 10"):
        LatencyPredictor().fit(blocks[:9], latency_ms[:9])
    skips = [Skip(in_channels=channels, height=4, width=4) for channels in range(1, 8)]
    with pytest.raises(UsageError, match="at least 10"):
        LatencyPredictor().fit(blocks[:9] + skips, [*latency_ms[:9], *[1.0] * 7])
    with pytest.raises(UsageError, match="as many latencies"):
        LatencyPredictor().fit(blocks, latency_ms[1:])


def test_ten_samples_are_enough(training):
    blocks, latency_ms = training
    fitted = LatencyPredictor(trees=20).fit(blocks[:10], latency_ms[:10])
    assert np.isfinite(fitted.predict(blocks)).all()
    assert (fitted.predict(blocks) > 0).all()


def test_an_unfitted_predictor_says_so(training, tmp_path):
    for use in (
        lambda: LatencyPredictor().predict(training[0]),
        lambda: LatencyPredictor().estimate(training[0][0]),
        lambda: LatencyPredictor().save(tmp_path / "none.json"),
    ):
        with pytest.raises(UsageError, match="call fit") as caught:
            use()
        assert isinstance(caught.value, NotFittedError)


def test_it_behaves_as_an_estimator_of_scikit_learn(training):
    blocks, latency_ms = training
    predictor = LatencyPredictor(SETUP, trees=10, channel_grid=GRID)
    twin = clone(predictor)
    assert twin is not predictor and twin.get_params() == predictor.get_params()
    assert twin.set_params(trees=12) is twin and twin.trees == 12 and predictor.trees == 10
    with pytest.raises(UsageError, match="depth is no parameter"):
        twin.set_params(depth=3)
    scores = cross_val_score(predictor, blocks[:40], latency_ms[:40], cv=2)
    assert scores.shape == (2,) and np.isfinite(scores).all() and (scores < 0).all()


@pytest.mark.parametrize(
    "check",
    [
        estimator_checks.check_parameters_default_constructible,
        estimator_checks.check_no_attributes_set_in_init,
        estimator_checks.check_estimator_cloneable,
        estimator_checks.check_estimator_repr,
        estimator_checks.check_estimator_tags_renamed,
        estimator_checks.check_valid_tag_types,
        estimator_checks.check_get_params_invariance,
        estimator_checks.check_set_params,
        estimator_checks.check_do_not_raise_errors_in_init_or_set_params,
    ],
    ids=lambda check: check.__name__,
)
def test_the_checks_of_scikit_learn_that_need_no_array_pass(check):
    """The others feed arrays to `fit`; what they check is tested here with blocks."""
    check("LatencyPredictor", LatencyPredictor())


def test_fit_leaves_parameters_alone_gives_itself_and_can_be_repeated(training):
    blocks, latency_ms = training[0][:30], training[1][:30]
    predictor = LatencyPredictor(SETUP, trees=7)
    before, kept = predictor.get_params(), list(blocks)
    with pytest.raises(NotFittedError):
        check_is_fitted(predictor)
    assert predictor.fit(blocks, latency_ms) is predictor
    check_is_fitted(predictor)
    first = predictor.predict(blocks)
    assert predictor.fit(blocks, latency_ms).predict(blocks).tolist() == first.tolist()
    assert predictor.get_params() == before and blocks == kept
    learned = vars(predictor).keys() - before.keys()
    assert learned and all(name.endswith("_") for name in learned)


def test_another_device_is_refused_by_both_names(predictor):
    predictor.check_setup(SETUP)
    other = replace(SETUP, device="other board")
    with pytest.raises(UsageError) as caught:
        predictor.check_setup(other)
    assert SETUP.key in str(caught.value) and other.key in str(caught.value)


def test_a_monotone_predictor_is_monotone_on_the_grid_alone(training):
    base = next(block for block in training[0] if isinstance(block, MBConv))
    base = replace(base, in_channels=64, out_channels=64)
    relatives = [replace(base, expanded_channels=width) for width in range(GRID, 400, 8)]
    relatives = [block for block in relatives if block.expanded_channels != 64]
    on_grid = np.array([block.expanded_channels % GRID == 0 for block in relatives])
    # Latencies that go up and down with width: what is measured, not what is confirmed.
    waves = [made_up_ms(b) * (1.5 if b.expanded_channels % 64 == 0 else 1.0) for b in relatives]
    free = LatencyPredictor(channel_grid=GRID).fit(relatives, waves)
    held = copy(free).set_params(monotone=True)
    assert (np.diff(free.predict(relatives)[on_grid]) < 0).any()
    assert (np.diff(held.predict(relatives)[on_grid]) >= 0).all()
    assert held.predict(relatives)[~on_grid].tolist() == free.predict(relatives)[~on_grid].tolist()
    assert (held.predict(relatives) >= free.predict(relatives)).all()


def test_a_saved_predictor_predicts_bit_for_bit_the_same(predictor, document, unseen):
    loaded = LatencyPredictor.load(document)
    assert loaded.predict(unseen).tolist() == predictor.predict(unseen).tolist()
    for ends, loaded_ends in zip(
        predictor.predict_interval(unseen), loaded.predict_interval(unseen), strict=True
    ):
        assert ends.tolist() == loaded_ends.tolist()
    assert (loaded.setup, loaded.eviction_bytes) == (SETUP, 4096)
    assert loaded.channel_grid_ == predictor.channel_grid_
    strange = replace(unseen[0], height=300)
    assert loaded.estimate(strange) == predictor.estimate(strange)


def test_saving_what_was_loaded_gives_the_same_file(document, tmp_path):
    again = tmp_path / "again.json"
    LatencyPredictor.load(document).save(again)
    assert again.read_bytes() == document.read_bytes()


@settings(
    deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_a_flipped_bit_is_noticed(document, tmp_path, data):
    content = bytearray(document.read_bytes())
    end = content.index(b'"format"')  # the body comes first; white space in it says nothing
    positions = [index for index in range(1, end) if not content[index : index + 1].isspace()]
    position = data.draw(st.sampled_from(positions))
    content[position] ^= 1 << data.draw(st.integers(0, 7))
    path = tmp_path / "flipped.json"
    path.write_bytes(content)
    original = read_document(document, KIND, VERSION)
    # The last digit of a number may flip without changing which float64 it is.
    with pytest.raises(DamagedFileError):
        assert read_document(path, KIND, VERSION) == original
        raise DamagedFileError("not damaged: it says the same")


def test_a_file_cut_short_is_noticed(document, tmp_path):
    path = tmp_path / "cut.json"
    path.write_bytes(document.read_bytes()[:-200])
    with pytest.raises(DamagedFileError):
        LatencyPredictor.load(path)


def test_a_newer_version_and_another_kind_are_refused(document, tmp_path):
    body = read_document(document, KIND, VERSION)
    newer, other = tmp_path / "newer.json", tmp_path / "other.json"
    write_document(newer, KIND, VERSION + 1, body)
    write_document(other, "latency_table", VERSION, body)
    with pytest.raises(DamagedFileError, match="newer latkit"):
        LatencyPredictor.load(newer)
    with pytest.raises(UsageError, match="latency_predictor"):
        LatencyPredictor.load(other)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("trees", "feature", 0), 10_000),
        (("trees", "feature", 0), -2),
        (("trees", "left", 0), 0),
        (("trees", "right", 0), 10**9),
        (("trees", "roots", 1), 0),
        (("trees", "value"), []),
        (("trees", "base"), None),
        (("residuals", 0), 1e9),
        (("residuals",), []),
        (("coefficients", "block"), -1.0),
        (("channel_grid",), 0),
        (("eviction_bytes",), "many"),
        (("setup", "threads"), "one"),
        (("ranges", "FLOPs"), [1.0]),
        (("process", "noise"), None),
        (("process", "components"), []),
        (("process", "components", 0, "points", 0), [1.0] * 99),
        (("process", "components", 0, "weights"), [1.0]),
        (("process", "components", 0, "length"), []),
        (("process", "components", 0, "group"), "call"),
        (("monotone",), "perhaps"),
        (("comment",), "hello"),
    ],
)
def test_a_file_that_makes_no_sense_is_refused(document, tmp_path, place, value):
    body = read_document(document, KIND, VERSION)
    target = body
    for step in place[:-1]:
        target = target[step]
    target[place[-1]] = value
    path = tmp_path / "wrong.json"
    write_document(path, KIND, VERSION, body)
    with pytest.raises(DamagedFileError, match="Make it again"):
        LatencyPredictor.load(path)


@pytest.mark.parametrize("rows", [30, 300])
def test_our_trees_are_those_of_scikit_learn(rows):
    random = np.random.default_rng(rows)
    features = random.standard_normal((rows, 6))
    features[:, 2] = features[:, 2] > 0
    target = features[:, 0] ** 2 + features[:, 2]
    ours = boosted_trees(features, target, trees=50, learning_rate=0.1, seed=3)
    model = GradientBoostingRegressor(
        loss="huber",
        n_estimators=50,
        learning_rate=0.1,
        max_depth=3,
        subsample=0.5,
        max_features=0.5,
        min_samples_leaf=min(5, rows // 10),
        random_state=3,
    ).fit(features, target)
    others = random.standard_normal((700, 6))
    np.testing.assert_allclose(ours.predict(others), model.predict(others), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(ours.predict(features), model.predict(features), rtol=1e-12)


def test_a_tree_by_hand():
    trees = Trees(
        base=1.0,
        roots=np.array([0, 5]),
        feature=np.array([0, LEAF, 1, LEAF, LEAF, LEAF]),
        threshold=np.array([0.5, 0.0, 2.0, 0.0, 0.0, 0.0]),
        left=np.array([1, LEAF, 3, LEAF, LEAF, LEAF]),
        right=np.array([2, LEAF, 4, LEAF, LEAF, LEAF]),
        value=np.array([0.0, 10.0, 0.0, 20.0, 30.0, 100.0]),
    )
    rows = np.array([[0.5, 9.0], [0.6, 2.0], [0.6, 2.1]])
    assert trees.predict(rows).tolist() == [111.0, 121.0, 131.0]


def test_features_of_unlike_blocks_have_finite_values(unseen):
    for block in (*unseen[:30], Skip(in_channels=1, height=1, width=1)):
        described = describe(block, 8)
        assert np.isfinite([*described.work.values(), *described.features.values()]).all()
        assert min(described.work.values(), default=0) >= 0
