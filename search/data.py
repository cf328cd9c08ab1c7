"""Images to train on: split into training, validation and test images, normalised, augmented."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from ..devices.errors import UsageError
from .images.crops import RandomCrops
from .images.digits import read_digits
from .images.files import ImageFiles
from .images.reading import read_images
from .images.source import Images, ImageSource, LabelledImages
from .prefetch import prefetched

SMALLEST_DEVIATION = 1.0
"""Standard deviations are at least this many of 256 levels: a constant channel has none."""

STATISTICS_FILES = 4096
"""Of more training images in files, this many are drawn for their mean and deviation."""

READ_AT_ONCE = 64
"""Images that are read together where all of many are needed."""


Numbers = Tensor | NDArray[np.int64] | range
"""Which images of a part are meant, each from 0 to its length."""


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """Images of one part of a data set: those of `images` at `places`, and their classes (N,)."""

    images: Images
    places: NDArray[np.int64]
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, chosen: Numbers, crops: RandomCrops | None = None) -> Tensor:
        """The images with these numbers, uint8 (n, 3, size, size).

        Of each, a random part with `crops`. Files are decoded here, which takes long: read in
        the threads of `prefetch`. Raises `UsageError` with the name of a file that can't be read.
        """
        pixels = self.images.read(self.places[np.asarray(chosen)], crops)
        return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()

    def only(self, chosen: Tensor) -> Part:
        """The part that has just the images with these numbers."""
        return Part(self.images, self.places[chosen.numpy()], self.labels[chosen])


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """Three disjoint parts of a data set, and the statistics that normalise it.

    `train` teaches weights, `validation` scores architectures during a search, `test` is for
    final numbers only. `mean` and `deviation` are the training images', by channel, in 0..255; of
    more than `STATISTICS_FILES` image files, those of that many, drawn always alike. `key` is the
    identity of the images and their split, a short sha256: over all pixels of images in memory,
    over the names, sizes and times of change of image files (`ImageFiles.identity`).
    """

    name: str
    classes: tuple[str, ...]
    train: Part
    validation: Part
    test: Part
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    key: str

    def inputs(self, pixels: Tensor) -> Tensor:
        """What a network reads: normalised float32, channels last in memory."""
        mean = torch.tensor(self.mean).view(1, 3, 1, 1)
        deviation = torch.tensor(self.deviation).view(1, 3, 1, 1)
        values = (pixels.float() - mean) / deviation
        return values.contiguous(memory_format=torch.channels_last)


def load_data(
    source: Path | None = None,
    image_size: int = 32,
    seed: int = 0,
    *,
    resize: bool = False,
    validation_share: float = 0.2,
    test_share: float = 0.2,
) -> Dataset:
    """Images of a folder of class folders or an .npz file; scikit-learn's digits for `None`.

    The split is stratified (each class is in each part) and drawn by `seed`. A source that has
    test images of its own keeps them. Image files are decoded when they are needed, all else is
    held in memory. Raises `UsageError` where the source can't be used; images of another size
    than `image_size` are refused unless `resize` is set, which takes the middle square of each
    and scales it. Networks that read several resolutions want the largest here.
    """
    found = read_digits(image_size) if source is None else read_images(source, image_size, resize)
    where = "the digits" if source is None else str(source)
    return split(found, where, seed, validation_share=validation_share, test_share=test_share)


def split(
    found: ImageSource,
    where: str,
    seed: int = 0,
    *,
    validation_share: float = 0.2,
    test_share: float = 0.2,
) -> Dataset:
    """The data set that a source's images make, as `load_data` splits them.

    Errors name the source by `where`.
    """
    images = found.images
    if len(images.classes) < 2:
        raise UsageError(f"{where} has one class, {images.classes[0]}; at least two are needed")
    shares = [validation_share] if found.test is not None else [validation_share, test_share]
    train, validation, *rest = _drawn(images, shares, seed, where)
    if found.test is not None:
        test_part = _part(found.test, np.arange(len(found.test.labels)))
    else:
        test_part = _part(images, rest[0])
    train_part, validation_part = _part(images, train), _part(images, validation)
    mean, deviation = _mean_and_deviation(train_part)
    return Dataset(
        name=found.name,
        classes=images.classes,
        train=train_part,
        validation=validation_part,
        test=test_part,
        mean=tuple(mean.tolist()),
        deviation=tuple(deviation.clip(min=SMALLEST_DEVIATION).tolist()),
        key=_key((train_part, validation_part, test_part)),
    )


def halves(data: Dataset, seed: int = 0) -> tuple[Dataset, Dataset]:
    """The data set twice, each with one half of the training images; all else is shared.

    The halves differ by at most one image of each class.
    """
    return divided(data, 0.5, seed)


def divided(data: Dataset, share: float, seed: int = 0) -> tuple[Dataset, Dataset]:
    """The data set twice: with this share of the training images, and with the others.

    All else is shared. Each class is divided so, to within an image. Raises `UsageError` where one
    of them would have no image.
    """
    random = np.random.default_rng(seed)
    labels = data.train.labels.numpy()
    parts: tuple[list[int], list[int]] = ([], [])
    for label in range(len(data.classes)):
        members = random.permutation(np.flatnonzero(labels == label)).tolist()
        wanted = math.floor(share * (len(parts[0]) + len(parts[1]) + len(members)))
        count = min(max(wanted - len(parts[0]), 0), len(members))
        parts[0].extend(members[:count])
        parts[1].extend(members[count:])
    if not all(parts):
        raise UsageError(
            f"a share of {share} of {len(labels)} training images leaves one part without any"
        )
    found = []
    for number, chosen in enumerate(parts):
        part = data.train.only(torch.tensor(sorted(chosen)))
        key = f"{data.key} part {number} at {share} of {seed}"
        found.append(replace(data, train=part, key=key))
    return found[0], found[1]


def at_resolution(images: Tensor, size: Sequence[int]) -> Tensor:
    """Inputs (N, 3, H, W) brought to another height and width; the same ones where they have it."""
    if tuple(images.shape[2:]) == tuple(size):
        return images
    return functional.interpolate(images, tuple(size), mode="bilinear", antialias=True)


def augment(
    pixels: Tensor,
    random: np.random.Generator,
    *,
    shift: int = 0,
    flip: bool = False,
    rank: int = 0,
    replicas: int = 1,
) -> Tensor:
    """Move each image by up to `shift` pixels; with `flip`, mirror every second one or so.

    What moves in at an edge repeats the edge. Digits and text must not be flipped. The images are
    share `rank` of `replicas` equal ones: all are drawn for, whoever has the others.
    """
    count, _, height, width = pixels.shape
    own = slice(rank * count, (rank + 1) * count)
    down, right = random.integers(-shift, shift + 1, size=(2, replicas * count, 1))[:, own]
    rows = np.clip(np.arange(height) + down, 0, height - 1)
    columns = np.clip(np.arange(width) + right, 0, width - 1)
    if flip:
        mirrored = random.random((replicas * count, 1))[own] < 0.5
        columns = np.where(mirrored, columns[:, ::-1], columns)
    image = torch.arange(count)[:, None, None]
    row, column = torch.from_numpy(rows)[:, :, None], torch.from_numpy(columns)[:, None, :]
    return pixels[image, :, row, column].permute(0, 3, 1, 2)


def _key(parts: Sequence[Part]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        for piece in part.images.identity(part.places):
            digest.update(piece)
        digest.update(str((len(part),)).encode())
        digest.update(part.labels.numpy().data)
    return digest.hexdigest()[:32]


def _mean_and_deviation(part: Part) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Of the pixels of a part, by channel."""
    numbers = np.arange(len(part))
    if isinstance(part.images, ImageFiles) and len(part) > STATISTICS_FILES:
        numbers = np.random.default_rng(0).permutation(numbers)[:STATISTICS_FILES]
    count, total, squares = 0, np.zeros(3), np.zeros(3)
    pieces = np.array_split(numbers, -(-len(numbers) // READ_AT_ONCE))
    for pixels in prefetched(part.read, pieces, os.cpu_count() or 1):
        values = pixels.long()
        count += values.numel() // 3
        total += values.sum((0, 2, 3)).numpy()
        squares += values.square().sum((0, 2, 3)).numpy()
    mean = total / count
    return mean, np.sqrt(np.maximum(0, squares / count - mean**2))


def _drawn(
    images: LabelledImages, shares: list[float], seed: int, where: str
) -> list[NDArray[np.int64]]:
    """Indices of the training images, then of one part for each of `shares`."""
    random = np.random.default_rng(seed)
    parts: list[list[NDArray[np.int64]]] = [[] for _ in range(len(shares) + 1)]
    for label, name in enumerate(images.classes):
        members = random.permutation(np.flatnonzero(images.labels == label))
        counts = [max(1, round(share * len(members))) for share in shares]
        if len(members) <= sum(counts):
            raise UsageError(
                f"{where}: class {name} has {len(members)} images; at least "
                f"{len(shares) + 1} are needed, so that each part of the data has one"
            )
        for part, chosen in zip(parts, np.split(members, np.cumsum(counts)), strict=True):
            part.append(chosen)
    *others, train = (np.sort(np.concatenate(part)) for part in parts)
    return [train, *others]


def _part(found: LabelledImages, places: NDArray[np.int64]) -> Part:
    return Part(found.images, places, torch.from_numpy(found.labels[places]))
