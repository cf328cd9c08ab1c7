"""What a source of images holds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...devices.errors import UsageError

Pixels = NDArray[np.uint8]
"""Images of shape (count, height, width, 3)."""

RESIZE_ADVICE = "Add --resize to have every image scaled to that size."


@dataclass(frozen=True, slots=True, eq=False)
class LabelledImages:
    """Images and the index of each one's class; `classes` names the classes."""

    pixels: Pixels
    labels: NDArray[np.int64]
    classes: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class ImageSource:
    """What a source holds: images to learn from and, where it is split already, test images."""

    name: str
    images: LabelledImages
    test: LabelledImages | None = None


def resized(image: Image.Image, image_size: int) -> Pixels:
    """One image as RGB of `image_size` x `image_size` pixels."""
    size = (image_size, image_size)
    rgb = image.convert("RGB")
    if rgb.size != size:
        rgb = rgb.resize(size, Image.Resampling.BILINEAR)
    return np.asarray(rgb, dtype=np.uint8)


def fitted(where: str, images: Pixels, image_size: int, resize: bool) -> Pixels:
    """Images (N, H, W, 1 or 3) as RGB of `image_size` x `image_size` pixels.

    Raises `UsageError`, which names them by `where`, where they have another size and `resize` is
    not set.
    """
    height, width = images.shape[1:3]
    rgb = np.broadcast_to(images, (*images.shape[:3], 3))
    if (height, width) == (image_size, image_size):
        return np.ascontiguousarray(rgb)
    if not resize:
        raise UsageError(
            f"{where} holds images of {width}x{height} pixels; {image_size}x{image_size} are "
            f"needed. {RESIZE_ADVICE}"
        )
    return np.stack([resized(Image.fromarray(np.array(image)), image_size) for image in rgb])
