"""Event files, as TensorBoard itself reads them."""

import sys

import pandas as pd
import pytest
from latkit.devices.errors import LatkitError, UsageError
from latkit.search.tensorboard import write_tensorboard

NAN = float("nan")


@pytest.fixture
def trajectory():
    return pd.DataFrame(
        {
            "strategy": ["evolution"] * 3 + ["random search"],
            "index": [0, 1, 2, 0],
            "predicted_ms": [3.0, 2.0, 1.0, 4.0],
            "measured_ms": [NAN, 2.5, NAN, NAN],
            "accuracy": [0.5, 0.75, 0.625, 0.25],
            "feasible": [False, True, True, True],
            "seconds": [2.0, 2.0, 4.0, 1.0],
            "policy_entropy": [2.0, 1.5, 1.0, NAN],
        }
    )


def scalars(folder):
    """Steps and values of each scalar of a run."""
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator"
    ).EventAccumulator(str(folder))
    accumulator.Reload()
    return {
        name: {event.step: event.value for event in accumulator.Scalars(name)}
        for name in accumulator.Tags()["scalars"]
    }, accumulator


def test_every_scalar_is_read_back(trajectory, tmp_path):
    first, second = write_tensorboard(trajectory, tmp_path / "new")
    assert (first.name, second.name) == ("evolution", "random search")
    found, accumulator = scalars(first)
    assert found == {
        "accuracy": {1: 0.5, 2: 0.75, 3: 0.625},
        "best_so_far": {2: 0.75, 3: 0.75},
        "latency_ms": {1: 3.0, 2: 2.0, 3: 1.0},
        "hypervolume": {1: 0.25, 2: 1.0, 3: 1.375},
        "measured_ms": {2: 2.5},
        "policy_entropy": {1: 2.0, 2: 1.5, 3: 1.0},
    }
    assert [event.wall_time for event in accumulator.Scalars("accuracy")] == [2.0, 4.0, 8.0]
    assert set(scalars(second)[0]) == {"accuracy", "best_so_far", "latency_ms", "hypervolume"}


def test_runs_have_folders_of_their_own_below_the_given_one(trajectory, tmp_path):
    seeds = pd.concat([trajectory.assign(seed=seed, strategy="../a/b") for seed in (0, 1)])
    written = write_tensorboard(seeds, tmp_path / "log")
    assert len(set(written)) == 2
    assert all(path.parent == tmp_path / "log" for path in written)
    assert {path.name for path in tmp_path.iterdir()} == {"log"}


def test_nothing_to_write_is_refused(trajectory, tmp_path):
    with pytest.raises(UsageError, match="no evaluation"):
        write_tensorboard(trajectory.iloc[:0], tmp_path)


def test_a_folder_that_can_not_be_written_is_an_error_of_ours(trajectory, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(LatkitError, match="can't write"):
        write_tensorboard(trajectory, tmp_path / "file")


def test_without_tensorboard_the_error_says_what_to_install(trajectory, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(UsageError, match=r"pip install 'latkit\[search,tensorboard\]'"):
        write_tensorboard(trajectory, tmp_path)
