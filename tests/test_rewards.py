"""What the benchmark of rewards reads, runs and makes of its runs."""

import itertools

import numpy as np
import pytest
from latkit.devices.errors import UsageError
from latkit.search.spaces.nasbench201 import NasBench201Space
from rewards import Benchmark, Task, figures, means, read, spread_over_strengths

CELLS = np.array(list(itertools.product(range(5), repeat=6)))
LATENCY_MS = 5.0 + CELLS.sum(axis=1)
ACCURACY = 0.5 + 0.01 * CELLS.sum(axis=1)


@pytest.fixture
def files(tmp_path):
    """The tables, in another order than the space's."""
    order = np.random.default_rng(0).permutation(len(CELLS))
    accuracy, latency = tmp_path / "accuracy.npz", tmp_path / "latency.npz"
    np.savez(accuracy, ops=CELLS[order], some_test_acc=100 * ACCURACY[order])
    np.savez(
        latency, ops=CELLS[order], devices=np.array(["board"]), latency_ms=LATENCY_MS[order, None]
    )
    return accuracy, latency


def test_cells_are_found_whatever_their_order(files):
    known = read(*files, ["board"])["board"]
    rows = CELLS[::100]
    np.testing.assert_allclose(known.latency_ms[known.of(rows)], LATENCY_MS[::100])
    np.testing.assert_allclose(known.accuracy[known.of(rows)], ACCURACY[::100])


def test_tables_of_other_cells_are_refused(files, tmp_path):
    other = tmp_path / "other.npz"
    np.savez(other, ops=CELLS, some_test_acc=100 * ACCURACY)
    with pytest.raises(UsageError, match="of the cells of"):
        read(other, files[1], ["board"])


def test_run_compares_the_mode_with_the_largest_reward_of_all():
    known = Benchmark(ACCURACY, LATENCY_MS, NasBench201Space().option_counts)
    fixed, adapted = (
        Task(known, "board", 0.5, "absolute", strength, 0.1, 150, 0).run()
        for strength in (-0.03, None)
    )
    # Accuracy rises by .01 * 17 for a target of 17 ms: only more than that holds it.
    assert fixed["maximiser_miss"] == pytest.approx(12 / 17)
    assert fixed["warned"]
    assert adapted["final_strength"] == pytest.approx(-(0.17 + 0.0025 / 0.005))
    assert adapted["maximiser_miss"] == 0
    assert not adapted["warned"]
    for row in (fixed, adapted):
        assert 0 <= row["gap"] < 0.2


def row(**values):
    defaults = {
        "best_share": 1.0,
        "reward": "absolute",
        "strength": "-0.03",
        "device": "board",
        "quantile": 0.5,
        "seed": 0,
        "final_strength": -0.03,
        "gap": 0.0,
        "ratio": 1.0,
        "miss": 0.0,
        "maximiser_miss": 0.0,
        "accuracy": 0.7,
        "maximiser_accuracy": 0.7,
        "distinct": 10,
        "warned": False,
    }
    return {**defaults, **values}


def test_spread_is_between_strengths_of_one_seed():
    rows = [
        row(strength=strength, seed=seed, ratio=ratio + seed)
        for seed in (0, 1)
        for strength, ratio in (("-0.03", 1.1), ("-0.09", 0.9))
    ]
    assert spread_over_strengths(rows, ("board", 0.5)) == pytest.approx(0.1)


def test_absolute_is_compared_with_soft_target_by_target():
    rows = [
        row(reward=reward, quantile=quantile, miss=miss)
        for reward, quantile, miss in (
            ("absolute", 0.25, 0.1),
            ("absolute", 0.5, 0.2),
            ("soft", 0.25, 0.3),
            ("soft", 0.5, 0.5),
        )
    ]
    found = figures([*rows, row(strength="adapted", miss=0.05)])
    assert found["share_1_absolute_minus_soft_miss"] == pytest.approx(-0.25)
    assert found["share_1_absolute_minus_soft_miss_low"] == pytest.approx(-0.3)
    assert found["share_1_absolute_minus_soft_miss_high"] == pytest.approx(-0.2)
    assert found["share_1_adapted_miss"] == pytest.approx(0.05)
    assert means(rows)["miss_within_1%"] == 0
