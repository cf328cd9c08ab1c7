"""CIFAR-10 in its own binary form: rows of a class and 3 x 32 x 32 bytes, plane by plane."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...devices.errors import UsageError
from .source import ImageSource, LabelledImages, Pixels, fitted

SIZE = 32
ROW_BYTES = 1 + 3 * SIZE * SIZE
TRAIN_FILES = tuple(f"data_batch_{number}.bin" for number in range(1, 6))
TEST_FILE = "test_batch.bin"
NAMES_FILE = "batches.meta.txt"
CLASSES = 10


def is_cifar10(folder: Path) -> bool:
    """Whether the folder looks like the one that CIFAR-10's binary archive unpacks to."""
    return any((folder / name).is_file() for name in (*TRAIN_FILES, TEST_FILE))


def read_cifar10(folder: Path, image_size: int, resize: bool) -> ImageSource:
    """The five training files and the test file; `UsageError` where one is missing or cut off."""
    missing = [name for name in (*TRAIN_FILES, TEST_FILE) if not (folder / name).is_file()]
    if missing:
        raise UsageError(
            f"{folder} has some of CIFAR-10's binary files, and lacks {', '.join(missing)}. Unpack "
            "the whole archive."
        )
    classes = _class_names(folder)
    batches = [_read(folder / name) for name in TRAIN_FILES]
    train = _part(
        str(folder),
        np.concatenate([pixels for pixels, _ in batches]),
        np.concatenate([labels for _, labels in batches]),
        classes,
        image_size,
        resize,
    )
    test = _part(str(folder), *_read(folder / TEST_FILE), classes, image_size, resize)
    return ImageSource("cifar10", train, test)


def _read(file: Path) -> tuple[Pixels, NDArray[np.int64]]:
    try:
        content = np.fromfile(file, np.uint8)
    except OSError as error:
        raise UsageError(f"can't read {file}: {error}") from error
    if not content.size or content.size % ROW_BYTES:
        raise UsageError(
            f"{file} has {content.size} bytes, and CIFAR-10's files are a multiple of {ROW_BYTES}: "
            "it is cut off, or another file. Unpack the archive again."
        )
    rows = content.reshape(-1, ROW_BYTES)
    labels = rows[:, 0].astype(np.int64)
    if labels.max() >= CLASSES:
        raise UsageError(f"{file} has the class {labels.max()}; CIFAR-10's are 0 to 9")
    return rows[:, 1:].reshape(-1, 3, SIZE, SIZE).transpose(0, 2, 3, 1), labels


def _class_names(folder: Path) -> tuple[str, ...]:
    file = folder / NAMES_FILE
    lines = file.read_text(encoding="utf-8").split() if file.is_file() else []
    return tuple(lines) if len(lines) == CLASSES else tuple(map(str, range(CLASSES)))


def _part(
    where: str,
    pixels: Pixels,
    labels: NDArray[np.int64],
    classes: tuple[str, ...],
    image_size: int,
    resize: bool,
) -> LabelledImages:
    return LabelledImages(fitted(where, pixels, image_size, resize), labels, classes)
