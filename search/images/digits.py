"""scikit-learn's handwritten digits, which come with it."""

from __future__ import annotations

import numpy as np
from PIL import Image

from .source import HeldImages, ImageSource, LabelledImages, resized


def read_digits(image_size: int) -> ImageSource:
    """scikit-learn's 1797 handwritten digits, 8x8 pixels, scaled to `image_size`, three channels.

    They come with scikit-learn: nothing is downloaded.
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    gray = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    pixels = np.stack([resized(Image.fromarray(image), image_size) for image in gray])
    classes = tuple(map(str, digits.target_names))
    labels = digits.target.astype(np.int64)
    return ImageSource("digits", LabelledImages(HeldImages(pixels), labels, classes))
