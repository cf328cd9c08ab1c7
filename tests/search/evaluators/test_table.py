"""Tables of accuracies: what they read, and what they refuse."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from latkit.devices.errors import UsageError
from latkit.search.choices import Choice
from latkit.search.evaluators.table import AccuracyTable
from latkit.search.space import Architecture, SearchSpace
from latkit.search.spaces.nasbench201 import OPERATIONS, nasbench201

DATA = Path(__file__).resolve().parents[4] / "shared" / "data"
SPACE = SearchSpace(
    "small",
    [
        Choice("op", ("skip", "conv")),
        Choice("kernel", (3, 5, 7), when={"op": ("conv",)}),
    ],
    [],
)
ROWS = [(0, 0), (1, 0), (1, 1), (1, 2)]


def frame(**changed):
    columns = {
        "op": ["skip", "conv", "conv", "conv"],
        "kernel": [None, 3, 5, 7],
        "accuracy": [0.1, 0.25, 0.5, 1 / 3],
    }
    return pd.DataFrame(columns | changed)


def test_a_frame_of_options_is_looked_up():
    table = AccuracyTable.from_frame(SPACE, frame())
    assert [table.accuracy(Architecture(row)) for row in ROWS] == [0.1, 0.25, 0.5, 1 / 3]
    assert len(table) == 4


def test_a_frame_through_csv_gives_the_same(tmp_path):
    frame().to_csv(tmp_path / "table.csv", index=False)
    table = AccuracyTable.from_frame(SPACE, pd.read_csv(tmp_path / "table.csv"))
    assert [table.accuracy(Architecture(row)) for row in ROWS] == [0.1, 0.25, 0.5, 1 / 3]


def test_a_frame_of_keys_in_percent_is_looked_up():
    keys = pd.DataFrame({"key": ["0.0", "1.2"], "top1": [10.0, 75.0]})
    table = AccuracyTable.from_frame(SPACE, keys, "top1", percent=True)
    assert table.accuracy(Architecture((1, 2))) == 0.75


def test_rows_of_one_network_that_agree_are_one():
    table = AccuracyTable.from_frame(SPACE, frame(op=["skip"] * 4, accuracy=[0.5] * 4))
    assert len(table) == 1


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"accuracy": [0.1, np.nan, 0.5, 0.5]}, "row 1: .*kernel 3 is nan"),
        ({"accuracy": [0.1, 0.5, -0.5, 0.5]}, "row 2: .*-0.5"),
        ({"accuracy": [10, 20, 30, 40]}, "row 0: .* percentages"),
        ({"accuracy": ["good", "bad", "good", "bad"]}, "accuracy holds what is no number"),
        ({"kernel": [None, 3, 3, 7]}, r"rows 1 and 2 are both op conv, kernel 3.*0\.25 and 0\.5"),
        ({"kernel": [None, 3, 4, 7]}, "row 2: choice kernel has no option 4"),
        ({"kernel": [None, 3, None, 7]}, "row 2: choice kernel is empty"),
        ({"op": ["skip", "conv", "pool", "conv"]}, "row 2: choice op has no option 'pool'"),
    ],
)
def test_a_bad_frame_is_refused_by_row(changed, message):
    with pytest.raises(UsageError, match=message):
        AccuracyTable.from_frame(SPACE, frame(**changed))


def test_a_frame_without_a_column_is_refused():
    with pytest.raises(UsageError, match="kernel, top1 are missing"):
        AccuracyTable.from_frame(SPACE, frame().drop(columns="kernel"), "top1")


@pytest.mark.parametrize("key", ["1", "1.9", "a.b", "1.1|8.8"])
def test_a_key_of_another_space_is_refused(key):
    with pytest.raises(UsageError, match="row 0"):
        AccuracyTable.from_frame(SPACE, pd.DataFrame({"key": [key], "accuracy": [0.5]}))


def test_an_architecture_that_is_missing_is_named():
    table = AccuracyTable.from_frame(SPACE, frame().iloc[:2])
    with pytest.raises(UsageError, match=r"1\.2 \(op conv, kernel 7\); it has 2 of 4"):
        table.accuracy(Architecture((1, 2)))
    with pytest.raises(UsageError, match="no accuracy of architecture"):
        table.accuracy(Architecture((1, 0), (8, 8)))


def npz(path, **arrays):
    content = {"ops": np.array(ROWS, np.uint8), "top1": np.array([10, 20, 30, 40], np.float32)}
    np.savez(path, **content | arrays)
    return path


def test_an_npz_of_the_spaces_own_indices_is_looked_up(tmp_path):
    table = AccuracyTable.from_npz(SPACE, npz(tmp_path / "a.npz"), "top1", percent=True)
    assert table.accuracy(Architecture((1, 1))) == 0.3


def test_numbers_and_columns_of_an_npz_go_by_name(tmp_path):
    ops = np.array([[3, 1], [2, 2], [2, 0]])
    path = npz(tmp_path / "a.npz", names=ops, top1=np.array([0.5, 0.25, 0.75]))
    space = SearchSpace("two", [Choice("a", ("x", "y", "z")), Choice("b", ("w", "z"))], [])
    table = AccuracyTable.from_npz(
        space, path, "top1", ops="names", option_names="yxzw", choice_names=["b", "a"]
    )
    named = {space.describe(row): table.accuracy(Architecture(row)) for row in [(0, 0), (2, 1)]}
    assert named == {"a x, b w": 0.5, "a z, b z": 0.25}
    assert table.accuracy(Architecture((1, 1))) == 0.75


@pytest.mark.parametrize(
    ("arrays", "options", "message"),
    [
        ({"ops": np.zeros((4, 3), int)}, {}, r"ops is int64 of shape \(4, 3\)"),
        ({"ops": np.zeros((4, 2))}, {}, "whole numbers"),
        ({"top1": np.zeros(3)}, {}, r"top1 has shape \(3,\); there are 4"),
        ({"ops": np.array([[0, 0], [1, 3]]), "top1": np.zeros(2)}, {}, "row 1: choice kernel"),
        ({"ops": np.array([[0, 0], [-1, 0]]), "top1": np.zeros(2)}, {}, "row 1: choice op"),
        ({}, {"ops": "edges"}, "edges are missing"),
        ({}, {"option_names": ("skip", "conv")}, "row 3: 2 is no option"),
        ({}, {"option_names": ("skip", "conv", "pool")}, "kernel of space small has no options"),
        ({}, {"choice_names": ("op", "ops")}, "the choices of space small are op, kernel"),
        ({"top1": np.array([{}] * 4)}, {}, "can't read"),
        ({"top1": np.array([10, 20, np.inf, 40])}, {}, "row 2: .*inf"),
    ],
)
def test_a_bad_npz_is_refused(tmp_path, arrays, options, message):
    with pytest.raises(UsageError, match=message):
        AccuracyTable.from_npz(
            SPACE, npz(tmp_path / "a.npz", **arrays), "top1", percent=True, **options
        )


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut", b"no archive", b"\x93NUMPY\x01\x00"])
def test_a_file_that_is_no_npz_is_refused(tmp_path, content):
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(UsageError, match="can't read"):
        AccuracyTable.from_npz(SPACE, tmp_path / "a.npz", "top1")


def test_a_single_array_is_no_table(tmp_path):
    with (tmp_path / "a.npz").open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(UsageError, match="can't read"):
        AccuracyTable.from_npz(SPACE, tmp_path / "a.npz", "top1")


@pytest.mark.skipif(not (DATA / "nb201_accuracy.npz").exists(), reason=f"no data in {DATA}")
def test_nas_bench_201_is_read_whole():
    space = nasbench201()
    path = DATA / "nb201_accuracy.npz"
    names = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
    table = AccuracyTable.from_npz(
        space, path, "cifar100_test_acc", option_names=names, percent=True
    )
    assert len(table) == space.size() == 15_625
    with np.load(path, allow_pickle=False) as content:
        ops, percent = content["ops"], content["cifar100_test_acc"]
    for row in (0, 7_000, 15_624):
        choices = [OPERATIONS.index(names[number]) for number in ops[row]]
        assert table.accuracy(space.architecture(choices)) == pytest.approx(percent[row] / 100)
