"""Images in the arrays of an .npz file."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...devices.errors import UsageError
from .source import HeldImages, ImageSource, LabelledImages, fitted


def read_npz(source: Path, image_size: int, resize: bool) -> ImageSource:
    """The images of an .npz file, split already or not."""
    arrays = _npz_arrays(source)
    parts = ("", "test_") if "images" in arrays else ("train_", "test_")
    read = []
    for part in parts:
        images, labels = arrays.get(f"{part}images"), arrays.get(f"{part}labels")
        if images is None and labels is None and part == "test_":
            break
        if images is None or labels is None:
            raise UsageError(
                f"{source} holds the arrays {', '.join(sorted(arrays)) or '(none)'}; "
                f"{part}images and {part}labels are needed"
            )
        pixels = _npz_pixels(f"{source}, {part}images", images, image_size, resize)
        read.append((pixels, _npz_labels(f"{source}, {part}labels", labels, len(pixels))))
    values = np.unique(read[0][1])
    classes = tuple(map(str, values.tolist()))
    found = []
    for pixels, labels in read:
        unknown = np.setdiff1d(labels, values)
        if unknown.size:
            raise UsageError(f"{source}: label {unknown[0]} is in the test part only")
        found.append(
            LabelledImages(pixels, np.searchsorted(values, labels).astype(np.int64), classes)
        )
    return ImageSource(source.stem, found[0], found[1] if len(found) > 1 else None)


def _npz_arrays(source: Path) -> dict[str, NDArray[Any]]:
    names = [f"{part}{kind}" for part in ("", "train_", "test_") for kind in ("images", "labels")]
    try:
        with np.load(source, allow_pickle=False) as content:
            return {name: content[name] for name in names if name in content}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise UsageError(
            f"can't read {source}: {error}. Write it by numpy.savez, with arrays of numbers or "
            "text only."
        ) from error


def _npz_pixels(where: str, images: NDArray[Any], image_size: int, resize: bool) -> HeldImages:
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or images.shape[-1] not in (1, 3) or not images.size:
        raise UsageError(
            f"{where} has shape {images.shape}; (N, H, W), (N, H, W, 1) or (N, H, W, 3) is needed"
        )
    if np.issubdtype(images.dtype, np.floating):
        if not (np.isfinite(images).all() and images.min() >= 0 and images.max() <= 1):
            raise UsageError(f"{where} holds floats outside 0..1; scale them, or give uint8")
        images = np.rint(images * 255).astype(np.uint8)
    if images.dtype != np.uint8:
        raise UsageError(f"{where} is of {images.dtype}; uint8, or float in 0..1, is needed")
    return fitted(where, images, image_size, resize)


def _npz_labels(where: str, labels: NDArray[Any], count: int) -> NDArray[Any]:
    if labels.shape != (count,):
        raise UsageError(f"{where} has shape {labels.shape}; there are {count} images")
    if labels.dtype.kind not in "iuU":
        raise UsageError(f"{where} is of {labels.dtype}; whole numbers or text are needed")
    return labels
