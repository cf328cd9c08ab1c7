"""Reading labelled images from what the user has: a folder of class folders, or an .npz file."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..devices.errors import UsageError

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


def read_digits(image_size: int) -> ImageSource:
    """scikit-learn's 1797 handwritten digits, 8x8 pixels, scaled to `image_size`, three channels.

    They come with scikit-learn: nothing is downloaded.
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    gray = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    pixels = np.stack([_resized(Image.fromarray(image), image_size) for image in gray])
    classes = tuple(map(str, digits.target_names))
    return ImageSource("digits", LabelledImages(pixels, digits.target.astype(np.int64), classes))


def read_images(source: Path, image_size: int, resize: bool) -> ImageSource:
    """The images of a folder or an .npz file, as RGB of `image_size` x `image_size` pixels.

    A folder holds one folder of image files for each class, or `train` and `test` folders that
    do. An .npz file holds `images` (N, H, W) or (N, H, W, C), uint8 or float in 0..1, and
    `labels` (N,), or `train_images`, `train_labels`, `test_images`, `test_labels`.
    Raises `UsageError` for everything that can't be used.
    """
    if source.is_dir():
        return _read_folder(source, image_size, resize)
    if source.suffix == ".npz":
        return _read_npz(source, image_size, resize)
    if not source.exists():
        raise UsageError(f"there is no {source}; give a folder of class folders or an .npz file")
    raise UsageError(f"{source} is neither a folder of class folders nor an .npz file")


def _read_folder(source: Path, image_size: int, resize: bool) -> ImageSource:
    names = _folder_names(source)
    if set(names) == {"train", "test"}:
        classes = _folder_names(source / "train")
        if _folder_names(source / "test") != classes:
            raise UsageError(f"{source}: train and test must hold the same class folders")
        train, test = (
            _read_classes(source / part, classes, image_size, resize) for part in ("train", "test")
        )
        return ImageSource(source.name, train, test)
    if "train" in names:
        raise UsageError(
            f"{source} holds the folders {', '.join(names)}; give a folder that holds one folder "
            "for each class, or exactly the folders train and test"
        )
    return ImageSource(source.name, _read_classes(source, names, image_size, resize))


def _folder_names(source: Path) -> list[str]:
    return sorted(
        path.name for path in source.iterdir() if path.is_dir() and not path.name.startswith(".")
    )


def _read_classes(
    source: Path, classes: Sequence[str], image_size: int, resize: bool
) -> LabelledImages:
    if not classes:
        raise UsageError(
            f"{source} holds no class folders; put the images of each class in a folder of its own"
        )
    suffixes = Image.registered_extensions()
    files: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        found = sorted(
            path
            for path in (source / name).rglob("*")
            if path.suffix.lower() in suffixes and not path.name.startswith(".")
        )
        if not found:
            raise UsageError(f"{source / name} holds no image files; add some or remove the folder")
        files += found
        labels += [label] * len(found)
    pixels = np.empty((len(files), image_size, image_size, 3), dtype=np.uint8)
    for index, file in enumerate(files):
        image = _open(file)
        if image.size != (image_size, image_size) and not resize:
            raise _size_error(file, files, image_size)
        pixels[index] = _resized(image, image_size)
    return LabelledImages(pixels, np.array(labels, dtype=np.int64), tuple(classes))


def _size_error(file: Path, files: Sequence[Path], image_size: int) -> UsageError:
    """Names two files of different size where there are two, else the one size of all."""
    size = _open(file).size
    wanted = f"images of {image_size}x{image_size} pixels are needed. {RESIZE_ADVICE}"
    for other in files:
        other_size = _open(other).size
        if other_size != size:
            return UsageError(
                f"the images differ in size: {file} has {size[0]}x{size[1]} pixels, {other} "
                f"{other_size[0]}x{other_size[1]}; {wanted}"
            )
    return UsageError(f"{file} and all others have {size[0]}x{size[1]} pixels; {wanted}")


def _open(file: Path) -> Image.Image:
    try:
        with Image.open(file) as image:
            return image.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UsageError(
            f"can't read {file} as an image: {error}. Repair or remove the file."
        ) from error


def _resized(image: Image.Image, image_size: int) -> Pixels:
    size = (image_size, image_size)
    rgb = image.convert("RGB")
    if rgb.size != size:
        rgb = rgb.resize(size, Image.Resampling.BILINEAR)
    return np.asarray(rgb, dtype=np.uint8)


def _read_npz(source: Path, image_size: int, resize: bool) -> ImageSource:
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


def _npz_pixels(where: str, images: NDArray[Any], image_size: int, resize: bool) -> Pixels:
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
    height, width = images.shape[1:3]
    if (height, width) != (image_size, image_size) and not resize:
        raise UsageError(
            f"{where} holds images of {width}x{height} pixels; {image_size}x{image_size} are "
            f"needed. {RESIZE_ADVICE}"
        )
    rgb = np.broadcast_to(images, (*images.shape[:3], 3))
    if (height, width) == (image_size, image_size):
        return np.ascontiguousarray(rgb)
    return np.stack([_resized(Image.fromarray(np.array(image)), image_size) for image in rgb])


def _npz_labels(where: str, labels: NDArray[Any], count: int) -> NDArray[Any]:
    if labels.shape != (count,):
        raise UsageError(f"{where} has shape {labels.shape}; there are {count} images")
    if labels.dtype.kind not in "iuU":
        raise UsageError(f"{where} is of {labels.dtype}; whole numbers or text are needed")
    return labels
