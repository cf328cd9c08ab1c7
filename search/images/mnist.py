"""MNIST's idx files, plain or packed with gzip; Fashion-MNIST and others have the same form."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...devices.errors import UsageError
from .source import ImageSource, LabelledImages, fitted

UNSIGNED_BYTES = 0x08
PARTS = ("train", "t10k")
KINDS = {"images": 3, "labels": 1}
"""What files hold, and how many dimensions."""


def is_mnist(folder: Path) -> bool:
    """Whether the folder holds one of MNIST's files."""
    return any(_find(folder, part, kind) is not None for part in PARTS for kind in KINDS)


def read_mnist(folder: Path, image_size: int, resize: bool) -> ImageSource:
    """Training and test images; `UsageError` where a file is missing, cut off or another one."""
    parts = []
    for part in PARTS:
        images, labels = (_read(folder, part, kind) for kind in KINDS)
        if len(images) != len(labels) or not len(images):
            raise UsageError(
                f"{folder} has {len(images)} {part} images and {len(labels)} labels of them"
            )
        parts.append((fitted(str(folder), images[..., None], image_size, resize), labels))
    values = np.unique(np.concatenate([labels for _, labels in parts]))
    classes = tuple(map(str, values.tolist()))
    train, test = (
        LabelledImages(pixels, np.searchsorted(values, labels).astype(np.int64), classes)
        for pixels, labels in parts
    )
    return ImageSource(folder.name, train, test)


def _find(folder: Path, part: str, kind: str) -> Path | None:
    for mark in ("-", "."):
        for packed in ("", ".gz"):
            file = folder / f"{part}-{kind}{mark}idx{KINDS[kind]}-ubyte{packed}"
            if file.is_file():
                return file
    return None


def _read(folder: Path, part: str, kind: str) -> NDArray[np.uint8]:
    file = _find(folder, part, kind)
    if file is None:
        raise UsageError(f"{folder} lacks {part}-{kind}-idx{KINDS[kind]}-ubyte")
    try:
        packed = file.suffix == ".gz"
        content = gzip.decompress(file.read_bytes()) if packed else file.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise UsageError(f"can't read {file}: {error}. Load it down again.") from error
    dimensions = KINDS[kind]
    start = 4 * (1 + dimensions)
    if len(content) < start or content[:4] != bytes((0, 0, UNSIGNED_BYTES, dimensions)):
        raise UsageError(f"{file} does not begin as an idx file of {dimensions} dimensions does")
    shape = struct.unpack(f">{dimensions}I", content[4:start])
    if len(content) - start != math.prod(shape):
        raise UsageError(
            f"{file} says that it holds {math.prod(shape)} bytes, and has {len(content) - start}: "
            "it is cut off. Load it down again."
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)
