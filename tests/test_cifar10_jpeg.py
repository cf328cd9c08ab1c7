"""CIFAR-10 as the benchmarks read it: cut out of one array of JPEG files."""

import io

import numpy as np
import pytest
from cifar10_jpeg import load
from latkit.devices.errors import UsageError
from PIL import Image

NAMES = ("cat", "dog", "ship")
COUNTS = {"train": 60, "test": 12}


def jpegs(seed, count):
    """Images whose gray tells their number, as JPEG files of different length."""
    random = np.random.default_rng(seed)
    files = []
    for number in range(count):
        gray = 8 + 4 * number + random.integers(-8, 9, (32, 32, 1))
        written = io.BytesIO()
        Image.fromarray(np.repeat(gray, 3, 2).astype(np.uint8)).save(written, "JPEG", quality=90)
        files.append(np.frombuffer(written.getvalue(), np.uint8))
    return files


@pytest.fixture(scope="module")
def arrays():
    found = {"class_names": np.array(NAMES)}
    for seed, (part, count) in enumerate(COUNTS.items()):
        files = jpegs(seed, count)
        found[f"{part}_jpeg"] = np.concatenate(files)
        found[f"{part}_offset"] = np.cumsum([0, *map(len, files)])
        found[f"{part}_label"] = (np.arange(count) % 3).astype(np.uint8)
    return found


@pytest.fixture
def file(tmp_path, arrays):
    np.savez(tmp_path / "cifar10.npz", **arrays)
    return tmp_path / "cifar10.npz"


def numbers(part):
    gray = part.read(range(len(part))).double().mean((1, 2, 3))
    return ((gray - 8) / 4).round().long().tolist()


def test_parts_are_the_files_own_and_disjoint(file):
    data = load(file)
    assert data.classes == NAMES
    assert [len(part) for part in (data.train, data.validation, data.test)] == [48, 12, 12]
    assert sorted(numbers(data.train) + numbers(data.validation)) == list(range(60))
    assert numbers(data.test) == list(range(12))
    for part in (data.train, data.validation, data.test):
        assert part.labels.tolist() == [number % 3 for number in numbers(part)]
    assert data.train.read(range(2)).shape == (2, 3, 32, 32)


def test_a_subset_is_stratified_and_drawn_by_the_seed(file):
    data, again, other = load(file, 30, 1), load(file, 30, 1), load(file, 30, 2)
    used = numbers(data.train) + numbers(data.validation)
    assert np.bincount(np.array(used) % 3).tolist() == [10, 10, 10]
    assert data.key == again.key != other.key
    assert len(data.test) == 12
    with pytest.raises(UsageError, match="has 20 images"):
        load(file, 90)


def test_smaller_images_are_averages(file):
    large, small = load(file), load(file, size=8)
    assert small.test.read(range(12)).shape == (12, 3, 8, 8)
    pooled = large.test.read(range(12)).double().reshape(12, 3, 8, 4, 8, 4).mean((3, 5))
    assert (small.test.read(range(12)) - pooled).abs().max() <= 1
    with pytest.raises(UsageError, match="not 64"):
        load(file, size=64)


@pytest.mark.parametrize(
    ("name", "value"),
    [("train_jpeg", None), ("test_offset", np.arange(3)), ("train_jpeg", np.zeros(9, np.uint8))],
)
def test_a_file_of_another_form_is_refused(tmp_path, arrays, name, value):
    changed = {**arrays, name: value}
    np.savez(tmp_path / "a.npz", **{key: item for key, item in changed.items() if item is not None})
    with pytest.raises(UsageError, match=r"a\.npz"):
        load(tmp_path / "a.npz")
