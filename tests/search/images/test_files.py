"""Image files: listed at once, decoded when they are needed, by the threads that load."""

import os
import shutil
import threading
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from latkit.devices.errors import UsageError
from latkit.search import data as data_module
from latkit.search.data import load_data
from latkit.search.images import files as files_module
from latkit.search.images.crops import RandomCrops
from latkit.search.images.files import ImageFiles
from latkit.search.images.folder import read_folder
from latkit.search.loading import BatchLoader
from latkit.search.recalibration import accuracy, calibration_batches
from PIL import Image

CLASSES = ("cat", "dog")
EACH = 10


def picture(seed, width=24, height=20):
    """A smooth picture, which JPEG keeps well."""
    small = np.random.default_rng(seed).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


@pytest.fixture
def folder(tmp_path):
    for label, name in enumerate(CLASSES):
        (tmp_path / "images" / name).mkdir(parents=True)
        for index in range(EACH):
            file = tmp_path / "images" / name / f"{index}.png"
            picture(100 * label + index).save(file)
    return tmp_path / "images"


def break_all(folder):
    """Spoil every file; give the names."""
    names = sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*.png"))
    for name in names:
        (folder / name).write_bytes(b"no image")
    return names


@pytest.fixture
def readers(monkeypatch):
    """Names of the threads that read image files, one for each time."""
    found = []
    read = ImageFiles.read

    def noted(self, chosen, crops=None):
        found.append(threading.current_thread().name)
        return read(self, chosen, crops)

    monkeypatch.setattr(ImageFiles, "read", noted)
    return found


def test_listing_decodes_nothing(folder):
    names = break_all(folder)
    found = read_folder(folder, 16, resize=True).images
    assert found.classes == CLASSES
    assert found.labels.tolist() == [0] * EACH + [1] * EACH
    with pytest.raises(UsageError, match=rf"can't read .*{names[3]} as an image"):
        found.images.read(np.array([3]))


def test_the_middle_square_of_each_file_is_scaled(folder):
    found = read_folder(folder, 16, resize=True).images.images.read(np.array([12, 0]))
    for pixels, seed in zip(found, (102, 0), strict=True):
        square = picture(seed).crop((2, 0, 22, 20)).resize((16, 16), Image.Resampling.BILINEAR)
        assert np.abs(pixels.astype(int) - np.asarray(square)).mean() < 2


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_large_jpegs_are_decoded_small_and_look_the_same(tmp_path, mode):
    large = picture(1, 640, 400).convert(mode)
    large.save(tmp_path / "a.jpg", quality=95)
    images = ImageFiles(tmp_path, ["a.jpg"], 16)
    crops = RandomCrops.draw(np.random.default_rng(0), 1, 0.3)
    with Image.open(tmp_path / "a.jpg") as image:
        whole = image.convert("RGB")
    for drawn, box in ((None, (120, 0, 520, 400)), (crops, crops.box(0, 640, 400))):
        plain = np.asarray(whole.resize((16, 16), Image.Resampling.BILINEAR, box=box))
        found = images.read(np.array([0]), drawn)[0]
        assert np.abs(found.astype(int) - plain).mean() < 2


def test_decoded_images_are_kept_up_to_a_limit(folder, monkeypatch):
    monkeypatch.setattr(files_module, "KEPT_BYTES", 4 * 16 * 16 * 3 + 1)
    images = read_folder(folder, 16, resize=True).images.images
    before = images.read(np.arange(20))
    break_all(folder)
    assert (images.read(np.arange(4)) == before[:4]).all()
    for index in range(4, 20):
        with pytest.raises(UsageError, match="can't read"):
            images.read(np.array([index]))


def test_a_data_set_is_told_by_its_files(folder, tmp_path):
    def key(place=folder, **options):
        return load_data(place, 16, resize=True, **options).key

    first = key()
    assert key() == first
    shutil.copytree(folder, tmp_path / "copy")
    assert key(tmp_path / "copy") == first, "with its times of change, a copy is the same"
    keys = {first, key(seed=1), load_data(folder, 8, resize=True).key}
    (folder / "cat" / "0.png").rename(folder / "cat" / "zero.png")
    keys.add(key())
    picture(7).save(folder / "cat" / "more.png")
    keys.add(key())
    (folder / "cat" / "more.png").unlink()
    os.utime(folder / "dog" / "1.png", ns=(0, 10**18))
    keys.add(key())
    assert len(keys) == 6


def test_statistics_are_a_samples_where_files_are_many(folder, monkeypatch):
    whole = load_data(folder, 16, resize=True)
    pixels = whole.train.read(range(len(whole.train))).double()
    assert whole.mean == pytest.approx(pixels.mean((0, 2, 3)).tolist())
    assert whole.deviation == pytest.approx(pixels.std((0, 2, 3), correction=0).tolist())
    monkeypatch.setattr(data_module, "STATISTICS_FILES", 5)
    sampled, again = load_data(folder, 16, resize=True), load_data(folder, 16, resize=True)
    assert sampled.mean == again.mean != whole.mean
    assert sampled.mean == pytest.approx(whole.mean, abs=40)
    break_all(folder)
    read = 0
    for number in range(len(sampled.train)):
        try:
            sampled.train.read(range(number, number + 1))
            read += 1
        except UsageError:
            continue
    assert read == 5, "no others were decoded"


def loader_of(data, **options):
    settings = {"shift": 1, "flip": True, "label_smoothing": 0, "crop": 0.2, **options}
    return BatchLoader(data, 2, 4, 0, **settings)


def test_random_parts_are_alike_whoever_reads_them(folder):
    data = load_data(folder, 16, resize=True)
    alone = [loader_of(data).batch(step) for step in range(loader_of(data).steps)]
    for workers in (1, 3):
        for one, other in zip(alone, loader_of(data, workers=workers).batches(0), strict=True):
            assert torch.equal(one.inputs, other.inputs)
            assert one.random.bit_generator.state == other.random.bit_generator.state
    plain = loader_of(data, crop=1.0).batch(0)
    assert torch.equal(plain.labels, alone[0].labels)
    assert not torch.equal(plain.inputs, alone[0].inputs)


def test_only_threads_of_their_own_decode(folder, readers):
    data = load_data(folder, 16, resize=True)
    list(loader_of(data).batches(0))
    calibration_batches(data, 2, 4, seed=0)

    class First(torch.nn.Module):
        def forward(self, images):
            return torch.nn.functional.one_hot(torch.zeros(len(images)).long(), 2)

    assert accuracy(First(), data, data.validation) == 0.5
    assert len(readers) > 5
    assert all(name.startswith("latkit-batches") for name in readers), readers


def test_a_file_that_breaks_while_training_ends_it_with_its_name(folder):
    data = load_data(folder, 16, resize=True)
    broken = folder / "dog" / "4.png"
    content = broken.read_bytes()
    broken.write_bytes(content[: len(content) // 2])
    # In the training part, whatever the split: the loader below sees all images.
    everything = replace(
        data, train=replace(data.train, places=np.arange(20), labels=torch.arange(20) // EACH)
    )
    seen = 0
    with pytest.raises(UsageError, match=r"can't read .*dog/4\.png .*Repair or remove"):
        for _ in loader_of(everything, workers=2).batches(0):
            seen += 1
    assert seen < loader_of(everything).steps
    assert not any(t.name.startswith("latkit-batches") for t in threading.enumerate())


@settings(deadline=None, max_examples=150)
@given(
    kind=st.sampled_from(["png", "jpg", "gif", "bmp", "webp", "tif"]),
    places=st.lists(st.integers(0, 10**9), max_size=4),
    cut=st.booleans(),
    value=st.integers(0, 255),
)
def test_damage_of_any_kind_is_an_error_that_names_the_file(
    tmp_path_factory, kind, places, cut, value
):
    folder = tmp_path_factory.mktemp("damage")
    file = folder / f"a.{kind}"
    picture(0).save(file)
    content = bytearray(file.read_bytes())
    for place in places:
        content[place % len(content)] = value
    if cut and places:
        del content[places[0] % len(content) :]
    file.write_bytes(content)
    warnings.simplefilter("ignore")  # Pillow's, of files that are cut off
    try:
        found = ImageFiles(folder, [file.name], 8).read(np.array([0]))
        assert found.shape == (1, 8, 8, 3)
    except UsageError as error:
        assert str(file) in str(error)
