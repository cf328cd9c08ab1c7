"""Images in a folder of class folders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ...devices.errors import UsageError
from .source import RESIZE_ADVICE, ImageSource, LabelledImages, resized


def read_folder(source: Path, image_size: int, resize: bool) -> ImageSource:
    """The images of class folders, or of `train` and `test` folders that hold some."""
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
        image = open_image(file)
        if image.size != (image_size, image_size) and not resize:
            raise _size_error(file, files, image_size)
        pixels[index] = resized(image, image_size)
    return LabelledImages(pixels, np.array(labels, dtype=np.int64), tuple(classes))


def _size_error(file: Path, files: Sequence[Path], image_size: int) -> UsageError:
    """Names two files of different size where there are two, else the one size of all."""
    size = open_image(file).size
    wanted = f"images of {image_size}x{image_size} pixels are needed. {RESIZE_ADVICE}"
    for other in files:
        other_size = open_image(other).size
        if other_size != size:
            return UsageError(
                f"the images differ in size: {file} has {size[0]}x{size[1]} pixels, {other} "
                f"{other_size[0]}x{other_size[1]}; {wanted}"
            )
    return UsageError(f"{file} and all others have {size[0]}x{size[1]} pixels; {wanted}")


def open_image(file: Path) -> Image.Image:
    """One image as RGB; `UsageError` where the file is none."""
    try:
        with Image.open(file) as image:
            return image.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UsageError(
            f"can't read {file} as an image: {error}. Repair or remove the file."
        ) from error
