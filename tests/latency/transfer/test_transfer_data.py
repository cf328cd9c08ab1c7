from pathlib import Path

import numpy as np
import pytest
from latkit.devices.errors import UsageError
from latkit.latency.transfer.data import read_latency_data
from latkit.latency.transfer.predictor import adapt
from scipy.stats import spearmanr

DATA = Path(__file__).resolve().parents[4] / "shared" / "data"


def third_party(name):
    if not (DATA / name).is_file():
        pytest.skip(f"third-party data is missing: {DATA / name}")
    return read_latency_data(DATA / name)


def arrays(**changed):
    values = {
        "ops": np.array([[0, 1], [1, 1], [2, 0]], dtype=np.uint8),
        "devices": np.array(["a", "b"]),
        "latency_ms": np.array([[1.0, 2.0], [3.0, np.nan], [5.0, 6.0]], dtype=np.float32),
    }
    return {name: value for name, value in {**values, **changed}.items() if value is not None}


@pytest.fixture
def written(tmp_path):
    def write(**changed):
        np.savez(tmp_path / "data.npz", **arrays(**changed))
        return tmp_path / "data.npz"

    return write


def test_choices_devices_and_latencies_are_read(written):
    data = read_latency_data(written(flops=np.array([7, 8, 9])))
    assert data.choices.tolist() == [[0, 1], [1, 1], [2, 0]]
    assert data.devices == ("a", "b")
    assert np.isnan(data.columns(["b"])[1, 0])
    assert data.columns(["b", "a"])[0].tolist() == [2.0, 1.0]
    assert data.flops.tolist() == [7.0, 8.0, 9.0]


def test_arrays_of_choices_stand_in_for_ops(written):
    resolution = np.array([128, 224, 160])
    accuracy = np.array([0.7, 0.8, 0.9])
    depth = np.array([[2, 3], [4, 4], [2, 2]])
    data = read_latency_data(written(ops=None, d=depth, r=resolution, top1=accuracy))
    assert data.choices.tolist() == [[2, 3, 128], [4, 4, 224], [2, 2, 160]]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"ops": None}, "has no choices"),
        ({"ops": np.array([[0.5], [1.0], [2.0]])}, "has no choices"),
        ({"ops": np.array([[-1], [1], [2]])}, "has no choices"),
        ({"ops": np.array([[1], [2]])}, "has no choices"),
        ({"devices": None}, "no array devices"),
        ({"devices": np.array(["a"])}, "a column for each of 1 devices"),
        ({"latency_ms": np.array([["x", "y"]])}, "latency_ms has the shape"),
    ],
)
def test_file_that_lacks_something_is_refused(written, changed, message):
    with pytest.raises(UsageError, match=message):
        read_latency_data(written(**changed))


def test_unknown_device_is_named_beside_the_known(written):
    with pytest.raises(UsageError, match="no latencies of c; the file has those of a, b"):
        read_latency_data(written()).columns(["a", "c"])


def test_file_of_objects_is_never_loaded(tmp_path):
    np.savez(tmp_path / "bad.npz", **arrays(ops=np.array([{}, {}, {}])))
    with pytest.raises(UsageError, match=r"no \.npz file of plain arrays"):
        read_latency_data(tmp_path / "bad.npz")


@pytest.mark.parametrize("content", [None, b"", b"index,latency_ms\n", b"PK\x03\x04broken"])
def test_file_that_is_none_is_refused(tmp_path, content):
    path = tmp_path / "data.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=r"data\.npz"):
        read_latency_data(path)


@pytest.mark.parametrize(
    ("name", "sources", "target", "spearman"),
    [
        ("fbnet_latency.npz", ["2080ti_64", "titanx_1", "silver_4114"], "pixel3", 0.93),
        ("nb201_latency.npz", ["1080ti_1", "1080ti_256", "samsung_a50"], "gold_6240", 0.92),
        ("nb201_latency.npz", ["1080ti_1", "silver_4114", "pixel3"], "samsung_s7", 0.88),
        ("ofa_latency.npz", ["titan_rtx_1", "v100_64", "v100_1"], "titan_xp_32", 0.95),
    ],
)
def test_published_devices_are_predicted_from_twenty_samples(name, sources, target, spearman):
    data = third_party(name)
    rows = np.random.default_rng(0).choice(len(data.choices), 1500, replace=False)
    latency = data.columns([target])[rows, 0]
    found = adapt(data.choices[rows], data.columns(sources)[rows], lambda chosen: latency[chosen])
    assert spearmanr(found.latency_ms, latency).statistic > spearman
