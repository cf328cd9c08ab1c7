"""Which part of an image is read: its middle square, or a random part to learn from."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

IMAGENET_CROP = 0.08
"""Smallest share of an image's area that is usual on ImageNet (Szegedy et al. 2015, section 6;
recalled, not checked)."""

RATIOS = (3 / 4, 4 / 3)
"""Smallest and largest width of a random part over its height (as above)."""

TRIES = 10
"""Draws of a part that may not fit into the image, before its middle is taken."""

Box = tuple[float, float, float, float]
"""Left, upper, right and lower edge, in pixels."""


@dataclass(frozen=True, slots=True, eq=False)
class RandomCrops:
    """Random parts of some images, each of at least the share `smallest` of its image's area.

    `seeds` has a number for each image: its part depends on that and on its size alone, not on
    which thread reads it.
    """

    smallest: float
    seeds: NDArray[np.int64]

    @classmethod
    def draw(cls, random: np.random.Generator, count: int, smallest: float) -> RandomCrops:
        """Parts of `count` images."""
        return cls(smallest, random.integers(2**63, size=count))

    def share(self, number: int, count: int) -> RandomCrops:
        """The parts of one of equal shares of the images, of `count` each."""
        return RandomCrops(self.smallest, self.seeds[number * count : (number + 1) * count])

    def box(self, place: int, width: int, height: int) -> Box:
        """The part of the image that is read at this place, which has this width and height.

        Its area is uniform, the logarithm of its ratio too; what does not fit is drawn again.
        """
        random = np.random.default_rng(self.seeds[place])
        low, high = RATIOS
        for _ in range(TRIES):
            area = width * height * random.uniform(self.smallest, 1)
            ratio = math.exp(random.uniform(math.log(low), math.log(high)))
            part_width, part_height = math.sqrt(area * ratio), math.sqrt(area / ratio)
            if part_width <= width and part_height <= height:
                left = random.uniform(0, width - part_width)
                upper = random.uniform(0, height - part_height)
                return left, upper, left + part_width, upper + part_height
        return centre(width, height)


def centre(width: int, height: int) -> Box:
    """The middle square of an image, as large as it can be."""
    side = min(width, height)
    left, upper = (width - side) // 2, (height - side) // 2
    return left, upper, left + side, upper + side


def cut(image: Image.Image, box: Box, size: int) -> NDArray[np.uint8]:
    """A part of an RGB image, scaled to (size, size, 3)."""
    if box != (0, 0, size, size) or image.size != (size, size):
        left, upper, right, lower = box
        # Rounding may have moved an edge out of the image by a hair.
        inside = (left, upper, min(right, image.width), min(lower, image.height))
        image = image.resize((size, size), Image.Resampling.BILINEAR, box=inside)
    return np.asarray(image, dtype=np.uint8)
