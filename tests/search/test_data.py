"""Reading, splitting, normalising and augmenting images."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from latkit.devices.errors import UsageError
from latkit.search.data import augment, divided, load_data
from PIL import Image


def parts(data):
    return (data.train, data.validation, data.test)


def numbered_images(count, classes, size=8):
    """Images that each hold their own number, so that a split can be traced."""
    numbers = np.arange(count)
    images = np.zeros((count, size, size, 3), dtype=np.uint8)
    images[:, 0, 0, 0], images[:, 0, 0, 1] = numbers % 256, numbers // 256
    return images, numbers % classes


def pixels_of(part):
    return part.read(range(len(part)))


def numbers_in(part):
    pixels = pixels_of(part).long()
    return (pixels[:, 0, 0, 0] + 256 * pixels[:, 1, 0, 0]).tolist()


def write_images(folder, sizes, suffix="png"):
    folder.mkdir(parents=True, exist_ok=True)
    for index, size in enumerate(sizes):
        color = (index * 20 % 256, 100, 200)
        Image.new("RGB", size, color).save(folder / f"{index}.{suffix}")


@settings(deadline=None, max_examples=20)
@given(count=st.integers(12, 90), classes=st.integers(2, 4), seed=st.integers(0, 99))
def test_parts_are_disjoint_complete_and_hold_every_class(tmp_path_factory, count, classes, seed):
    file = tmp_path_factory.mktemp("data") / "images.npz"
    images, labels = numbered_images(count, classes)
    np.savez(file, images=images, labels=labels)
    data = load_data(file, image_size=8, seed=seed)
    found = [numbers_in(part) for part in parts(data)]
    assert sorted(itertools.chain(*found)) == list(range(count))
    for part, numbers in zip(parts(data), found, strict=True):
        assert part.labels.tolist() == [number % classes for number in numbers]
        assert set(part.labels.tolist()) == set(range(classes))


@settings(deadline=None, max_examples=20)
@given(count=st.integers(24, 90), share=st.floats(0.1, 0.9), seed=st.integers(0, 99))
def test_training_images_are_divided_by_class(tmp_path_factory, count, share, seed):
    file = tmp_path_factory.mktemp("data") / "images.npz"
    images, labels = numbered_images(count, 2)
    np.savez(file, images=images, labels=labels)
    data = load_data(file, image_size=8)
    one, other = divided(data, share, seed)
    found = [numbers_in(one.train), numbers_in(other.train)]
    assert sorted(itertools.chain(*found)) == numbers_in(data.train)
    for label, whole in enumerate(data.train.labels.bincount()):
        assert abs(int((one.train.labels == label).sum()) - share * int(whole)) <= 1
    assert one.test is other.test is data.test
    assert len({one.key, other.key, data.key}) == 3


def test_a_share_that_leaves_a_part_without_images_is_refused():
    with pytest.raises(UsageError, match="without any"):
        divided(load_data(image_size=8), 1.0)


def test_digits_are_split_in_proportion_and_by_seed():
    data, again, other = load_data(seed=1), load_data(seed=1), load_data(seed=2)
    assert [len(part) for part in parts(data)] == pytest.approx([1078, 359, 359], abs=6)
    assert pixels_of(data.train).shape[1:] == (3, 32, 32)
    assert data.key == again.key != other.key
    shares = [part.labels.bincount() / len(part) for part in parts(data)]
    assert (shares[0] - shares[1]).abs().max() < 0.01
    assert (shares[0] - shares[2]).abs().max() < 0.01


def test_inputs_are_normalised_by_the_training_images():
    data = load_data(image_size=16)
    train, test = data.inputs(pixels_of(data.train)), data.inputs(pixels_of(data.test))
    assert train.mean((0, 2, 3)) == pytest.approx([0, 0, 0], abs=1e-4)
    assert train.std((0, 2, 3)) == pytest.approx([1, 1, 1], abs=1e-3)
    assert test.mean().abs() > 1e-4


def test_shift_moves_whole_images_and_repeats_the_edge():
    pixels = torch.randint(0, 255, (20, 3, 9, 9), dtype=torch.uint8)
    moved = augment(pixels, np.random.default_rng(0), shift=2)
    offsets = set()
    for before, after in zip(pixels, moved, strict=True):
        padded = torch.nn.functional.pad(before[None].float(), (2, 2, 2, 2), mode="replicate")[0]
        fits = [
            (down, right)
            for down in range(5)
            for right in range(5)
            if padded[:, down : down + 9, right : right + 9].equal(after.float())
        ]
        assert len(fits) == 1
        offsets.update(fits)
    assert len(offsets) > 5


def test_images_are_mirrored_only_where_asked():
    pixels = torch.randint(0, 255, (40, 3, 6, 6), dtype=torch.uint8)
    assert augment(pixels, np.random.default_rng(0)).equal(pixels)
    flipped = augment(pixels, np.random.default_rng(0), flip=True)
    mirrored = [after.equal(before.flip(2)) for before, after in zip(pixels, flipped, strict=True)]
    kept = [after.equal(before) for before, after in zip(pixels, flipped, strict=True)]
    assert all(one != other for one, other in zip(mirrored, kept, strict=True))
    assert 5 < sum(mirrored) < 35


def test_folder_of_class_folders(tmp_path):
    write_images(tmp_path / "cat", [(32, 32)] * 5)
    write_images(tmp_path / "dog", [(32, 32)] * 6, suffix="jpg")
    (tmp_path / "dog" / "notes.txt").write_text("not an image")
    data = load_data(tmp_path)
    assert data.classes == ("cat", "dog")
    assert sum(map(len, parts(data))) == 11


def test_folder_with_test_images_of_its_own(tmp_path):
    for part, count in (("train", 6), ("test", 2)):
        for name in ("a", "b"):
            write_images(tmp_path / part / name, [(32, 32)] * count)
    data = load_data(tmp_path)
    assert (len(data.train) + len(data.validation), len(data.test)) == (12, 4)
    assert data.classes == ("a", "b")


def test_mixed_sizes_name_two_files_and_the_way_out(tmp_path):
    write_images(tmp_path / "cat", [(32, 32)] * 4)
    write_images(tmp_path / "dog", [(32, 32), (32, 32), (40, 20)])
    with pytest.raises(UsageError) as caught:
        load_data(tmp_path)
    for words in ("cat/0.png", "32x32", "40x20", "dog/2.png", "--resize"):
        assert words in str(caught.value)
    assert len(load_data(tmp_path, resize=True).train) > 0


def test_npz_with_test_images_gray_floats_and_text_labels(tmp_path):
    images = np.linspace(0, 1, 12 * 64).reshape(12, 8, 8)
    labels = np.array(["up", "down"] * 6)
    np.savez(
        tmp_path / "a.npz",
        train_images=images,
        train_labels=labels,
        test_images=images[:3],
        test_labels=labels[:3],
    )
    data = load_data(tmp_path / "a.npz", image_size=8)
    assert data.classes == ("down", "up")
    assert data.test.labels.tolist() == [1, 0, 1]
    assert pixels_of(data.test).shape == (3, 3, 8, 8)
    assert pixels_of(data.test)[0, 0].tolist() == np.rint(images[0] * 255).tolist()


def images_npz(**changes):
    arrays = {"images": np.zeros((9, 32, 32, 3), np.uint8), "labels": np.arange(9) % 3}
    return {name: value for name, value in {**arrays, **changes}.items() if value is not None}


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        (images_npz(labels=np.arange(8) % 3), "there are 9 images"),
        (images_npz(labels=None), "labels are needed"),
        (images_npz(labels=np.zeros(9, int)), "at least two"),
        (images_npz(labels=np.arange(9)), "at least 3 are needed"),
        (images_npz(labels=np.linspace(0, 1, 9)), "whole numbers"),
        (images_npz(labels=np.array([{}] * 9)), "savez"),
        (images_npz(images=np.zeros((9, 28, 28), np.uint8)), "28x28"),
        (images_npz(images=np.full((9, 32, 32), np.nan)), "outside 0..1"),
        (images_npz(images=np.zeros((9, 32, 32), np.int64)), "uint8"),
        (images_npz(images=np.zeros((9, 32, 32, 2), np.uint8)), "shape"),
        (images_npz(images=np.zeros((0, 32, 32, 3), np.uint8), labels=np.zeros(0, int)), "shape"),
    ],
)
def test_unusable_npz_is_refused_with_the_reason(tmp_path, arrays, words):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(UsageError, match=words) as caught:
        load_data(tmp_path / "a.npz")
    assert "a.npz" in str(caught.value)


def test_damaged_npz_is_refused(tmp_path):
    np.savez(tmp_path / "a.npz", **images_npz())
    content = (tmp_path / "a.npz").read_bytes()
    for damaged in (b"", b"nonsense", content[: len(content) // 2]):
        (tmp_path / "b.npz").write_bytes(damaged)
        with pytest.raises(UsageError, match=r"b\.npz"):
            load_data(tmp_path / "b.npz")


def empty(folder):
    pass


def one_class(folder):
    write_images(folder / "cat", [(32, 32)] * 5)


def empty_class(folder):
    write_images(folder / "cat", [(32, 32)] * 5)
    (folder / "dog").mkdir()


def unreadable_image(folder):
    write_images(folder / "cat", [(32, 32)] * 5)
    write_images(folder / "dog", [(32, 32)] * 5)
    (folder / "dog" / "3.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")


def half_split(folder):
    for name in ("train", "val"):
        write_images(folder / name / "cat", [(32, 32)] * 5)


@pytest.mark.parametrize(
    ("fill", "words"),
    [
        (empty, "no class folders"),
        (one_class, "one class, cat"),
        (empty_class, "dog holds no image files"),
        (unreadable_image, r"3\.png"),
        (half_split, "train, val"),
    ],
)
def test_unusable_folder_is_refused_with_the_reason(tmp_path, fill, words):
    fill(tmp_path)
    with pytest.raises(UsageError, match=words):
        load_data(tmp_path)


def test_missing_source_and_other_file_are_refused(tmp_path):
    with pytest.raises(UsageError, match="there is no"):
        load_data(tmp_path / "nowhere")
    (tmp_path / "a.csv").write_text("1,2")
    with pytest.raises(UsageError, match="none of"):
        load_data(tmp_path / "a.csv")
