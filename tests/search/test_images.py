"""Reading the binary files of CIFAR-10 and of MNIST."""

import gzip
import struct

import numpy as np
import pytest
from latkit.devices.errors import UsageError
from latkit.search.data import load_data
from latkit.search.images.reading import read_images

NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def write_cifar10(folder, rows=20):
    random = np.random.default_rng(0)
    written = {}
    names = [f"data_batch_{number}.bin" for number in range(1, 6)] + ["test_batch.bin"]
    for name in names:
        labels = np.arange(rows, dtype=np.uint8) % 10
        pixels = random.integers(0, 256, (rows, 3, 32, 32), dtype=np.uint8)
        content = np.concatenate([labels[:, None], pixels.reshape(rows, -1)], axis=1)
        (folder / name).write_bytes(content.tobytes())
        written[name] = (pixels, labels)
    (folder / "batches.meta.txt").write_text("\n".join(NAMES) + "\n")
    return written


def idx(values):
    header = bytes((0, 0, 8, values.ndim)) + struct.pack(f">{values.ndim}I", *values.shape)
    return header + values.tobytes()


def write_mnist(folder, mark="-", packed=False, count=30):
    random = np.random.default_rng(1)
    written = {}
    for part in ("train", "t10k"):
        images = random.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = np.arange(count, dtype=np.uint8) % 10
        for kind, values in (("images", images), ("labels", labels)):
            name = f"{part}-{kind}{mark}idx{values.ndim}-ubyte"
            content = idx(values)
            if packed:
                (folder / f"{name}.gz").write_bytes(gzip.compress(content))
            else:
                (folder / name).write_bytes(content)
        written[part] = (images, labels)
    return written


def test_cifar10_keeps_its_test_images_and_names(tmp_path):
    written = write_cifar10(tmp_path)
    found = read_images(tmp_path, 32, resize=False)
    assert found.images.classes == tuple(NAMES)
    pixels, labels = written["data_batch_3.bin"]
    assert (found.images.images.pixels[40:60] == pixels.transpose(0, 2, 3, 1)).all()
    assert (found.images.labels[40:60] == labels).all()
    assert (found.test.images.pixels == written["test_batch.bin"][0].transpose(0, 2, 3, 1)).all()
    data = load_data(tmp_path)
    assert [len(data.train), len(data.validation), len(data.test)] == [80, 20, 20]


@pytest.mark.parametrize(
    ("break_it", "told"),
    [
        (lambda folder: (folder / "data_batch_2.bin").unlink(), "data_batch_2.bin"),
        (lambda folder: (folder / "test_batch.bin").write_bytes(b"\0" * 3000), "cut off"),
        (lambda folder: (folder / "test_batch.bin").write_bytes(b"\x0b" * 3073), "class 11"),
        (lambda folder: (folder / "test_batch.bin").write_bytes(b""), "0 bytes"),
    ],
)
def test_broken_cifar10_is_refused(tmp_path, break_it, told):
    write_cifar10(tmp_path)
    break_it(tmp_path)
    with pytest.raises(UsageError, match=told):
        read_images(tmp_path, 32, resize=False)


@pytest.mark.parametrize("mark", ["-", "."])
@pytest.mark.parametrize("packed", [False, True])
def test_mnist_is_read_plain_and_packed(tmp_path, mark, packed):
    written = write_mnist(tmp_path, mark, packed)
    found = read_images(tmp_path, 28, resize=False)
    for part, name in ((found.images, "train"), (found.test, "t10k")):
        images, labels = written[name]
        assert (part.images.pixels == images[..., None]).all()
        assert part.images.pixels.shape == (30, 28, 28, 3)
        assert (part.labels == labels).all()
    with pytest.raises(UsageError, match=r"28x28.*--resize"):
        read_images(tmp_path, 32, resize=False)
    assert read_images(tmp_path, 32, resize=True).test.images.pixels.shape == (30, 32, 32, 3)


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("train-labels-idx1-ubyte", b"", "does not begin"),
        ("train-labels-idx1-ubyte", idx(np.zeros(30, np.uint8))[:-1], "cut off"),
        ("train-labels-idx1-ubyte", idx(np.zeros(29, np.uint8)), "30 train images and 29"),
        ("t10k-images-idx3-ubyte", idx(np.zeros((30, 28), np.uint8)), "does not begin"),
        ("t10k-images-idx3-ubyte", None, "lacks t10k-images"),
    ],
)
def test_broken_mnist_is_refused(tmp_path, name, content, told):
    write_mnist(tmp_path)
    if content is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match=told):
        read_images(tmp_path, 28, resize=False)


def test_damaged_gzip_is_refused(tmp_path):
    write_mnist(tmp_path, packed=True)
    file = tmp_path / "train-images-idx3-ubyte.gz"
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(UsageError, match="can't read"):
        read_images(tmp_path, 28, resize=False)
