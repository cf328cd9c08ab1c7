"""CIFAR-10 from an .npz file that holds its images as JPEG, for benchmarks.

The file has, for `train` and `test`, the JPEG files one after another (`train_jpeg`), where each
begins and the last one ends (`train_offset`, one more than images), their classes (`train_label`);
and `class_names`.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from latkit.devices.errors import UsageError
from latkit.search.data import Dataset, split
from latkit.search.images.source import HeldImages, ImageSource, LabelledImages
from numpy.typing import NDArray
from PIL import Image

SIZE = 32


def load(
    path: Path,
    images: int | None = None,
    seed: int = 0,
    *,
    size: int = SIZE,
    validation_share: float = 0.2,
) -> Dataset:
    """Training, validation and test parts; the latter are the file's own test images, all of them.

    Only `images` of its training images are used where that is given, as many of each class,
    drawn by `seed` as is the validation part, a share of them. A `size` below 32 averages pixels.
    Raises `UsageError` where the file is not of this form or has too few images.
    """
    try:
        with np.load(path, allow_pickle=False) as content:
            arrays = {name: content[name] for name in content.files}
        classes = tuple(map(str, arrays["class_names"]))
        labels = {part: arrays[f"{part}_label"].astype(np.int64) for part in ("train", "test")}
        chosen = np.arange(len(labels["train"]))
        if images is not None:
            chosen = _subset(labels["train"], len(classes), images, seed)
        train = LabelledImages(
            _decoded(arrays, "train", chosen, size), labels["train"][chosen], classes
        )
        test = LabelledImages(
            _decoded(arrays, "test", np.arange(len(labels["test"])), size), labels["test"], classes
        )
    except (OSError, KeyError, ValueError, IndexError) as error:
        raise UsageError(f"can't read {path} as images of CIFAR-10: {error}") from error
    source = ImageSource("cifar10", train, test)
    return split(source, str(path), seed, validation_share=validation_share)


def _subset(labels: NDArray[np.int64], classes: int, count: int, seed: int) -> NDArray[np.int64]:
    """Which images make `count`, in the file's order; classes differ by one at most."""
    random = np.random.default_rng(seed)
    found = []
    for label in range(classes):
        members = np.flatnonzero(labels == label)
        wanted = count // classes + (label < count % classes)
        if wanted > len(members):
            raise UsageError(f"class {label} has {len(members)} images, and {wanted} are wanted")
        found.append(random.permutation(members)[:wanted])
    return np.sort(np.concatenate(found))


def _decoded(
    arrays: dict[str, NDArray[Any]], part: str, chosen: NDArray[np.int64], size: int
) -> HeldImages:
    content, offsets = arrays[f"{part}_jpeg"], arrays[f"{part}_offset"]
    if not 1 <= size <= SIZE:
        raise UsageError(f"images of CIFAR-10 can be made 1 to {SIZE} pixels large, not {size}")
    pixels = np.empty((len(chosen), size, size, 3), np.uint8)
    for place, index in enumerate(chosen):
        file = io.BytesIO(content[offsets[index] : offsets[index + 1]].tobytes())
        with Image.open(file) as image:
            pixels[place] = image.convert("RGB").resize((size, size), Image.Resampling.BOX)
    return HeldImages(pixels)
