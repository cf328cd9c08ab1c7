"""What a source of images holds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...devices.errors import UsageError
from .crops import RandomCrops, centre, cut

Pixels = NDArray[np.uint8]
"""Images of shape (count, height, width, 3)."""

RESIZE_ADVICE = "Add --resize to have every image scaled to that size."


class Images(Protocol):
    """Images of one size, by their index: in memory, or files that are decoded when read."""

    def __len__(self) -> int:
        """How many there are."""

    def read(self, chosen: NDArray[np.int64], crops: RandomCrops | None = None) -> Pixels:
        """The images of these indices, (n, size, size, 3), each cut out at random with `crops`."""

    def identity(self, chosen: NDArray[np.int64]) -> Iterator[bytes]:
        """What tells these images from others, in pieces, for a hash."""


@dataclass(frozen=True, slots=True, eq=False)
class HeldImages:
    """Images in memory, (N, size, size, 3). They are told from others by all their pixels."""

    pixels: Pixels

    def __len__(self) -> int:
        return len(self.pixels)

    def read(self, chosen: NDArray[np.int64], crops: RandomCrops | None = None) -> Pixels:
        """The images of these indices, (n, size, size, 3), each cut out at random with `crops`."""
        pixels = self.pixels[chosen]
        if crops is not None:
            _, height, width, _ = pixels.shape
            for place, image in enumerate(pixels):
                box = crops.box(place, width, height)
                pixels[place] = cut(Image.fromarray(image), box, height)
        return pixels

    def identity(self, chosen: NDArray[np.int64]) -> Iterator[bytes]:
        """The shape of all, and their pixels, plane by plane."""
        yield str((len(chosen), 3, *self.pixels.shape[1:3])).encode()
        for index in chosen:
            yield self.pixels[index].transpose(2, 0, 1).tobytes()


@dataclass(frozen=True, slots=True, eq=False)
class LabelledImages:
    """Images and the index of each one's class; `classes` names the classes."""

    images: Images
    labels: NDArray[np.int64]
    classes: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class ImageSource:
    """What a source holds: images to learn from and, where it is split already, test images."""

    name: str
    images: LabelledImages
    test: LabelledImages | None = None


def resized(image: Image.Image, image_size: int) -> Pixels:
    """The middle square of one image as RGB of `image_size` x `image_size` pixels."""
    return cut(image.convert("RGB"), centre(*image.size), image_size)


def fitted(where: str, images: Pixels, image_size: int, resize: bool) -> HeldImages:
    """Images (N, H, W, 1 or 3) as RGB of `image_size` x `image_size` pixels.

    Raises `UsageError`, which names them by `where`, where they have another size and `resize` is
    not set.
    """
    height, width = images.shape[1:3]
    rgb = np.broadcast_to(images, (*images.shape[:3], 3))
    if (height, width) == (image_size, image_size):
        return HeldImages(np.ascontiguousarray(rgb))
    if not resize:
        raise UsageError(
            f"{where} holds images of {width}x{height} pixels; {image_size}x{image_size} are "
            f"needed. {RESIZE_ADVICE}"
        )
    return HeldImages(
        np.stack([resized(Image.fromarray(np.array(image)), image_size) for image in rgb])
    )
