"""Images in a folder of class folders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ...devices.errors import UsageError
from .files import ImageFiles, image_size
from .source import RESIZE_ADVICE, ImageSource, LabelledImages


def read_folder(source: Path, size: int, resize: bool) -> ImageSource:
    """The images of class folders, or of `train` and `test` folders that hold some.

    They are listed here, and decoded when they are needed. Without `resize` all are looked at,
    whether they are of `size` x `size` pixels.
    """
    names = _folder_names(source)
    if set(names) == {"train", "test"}:
        classes = _folder_names(source / "train")
        if _folder_names(source / "test") != classes:
            raise UsageError(f"{source}: train and test must hold the same class folders")
        train, test = (
            _list_classes(source / part, classes, size, resize) for part in ("train", "test")
        )
        return ImageSource(source.name, train, test)
    if "train" in names:
        raise UsageError(
            f"{source} holds the folders {', '.join(names)}; give a folder that holds one folder "
            "for each class, or exactly the folders train and test"
        )
    return ImageSource(source.name, _list_classes(source, names, size, resize))


def _folder_names(source: Path) -> list[str]:
    return sorted(
        path.name for path in source.iterdir() if path.is_dir() and not path.name.startswith(".")
    )


def _list_classes(source: Path, classes: Sequence[str], size: int, resize: bool) -> LabelledImages:
    if not classes:
        raise UsageError(
            f"{source} holds no class folders; put the images of each class in a folder of its own"
        )
    suffixes = Image.registered_extensions()
    names: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        found = sorted(
            path
            for path in (source / name).rglob("*")
            if path.suffix.lower() in suffixes and not path.name.startswith(".")
        )
        if not found:
            raise UsageError(f"{source / name} holds no image files; add some or remove the folder")
        names += [path.relative_to(source).as_posix() for path in found]
        labels += [label] * len(found)
    if not resize:
        _check_sizes([source / name for name in names], size)
    files = ImageFiles(source, names, size)
    return LabelledImages(files, np.array(labels, dtype=np.int64), tuple(classes))


def _check_sizes(files: Sequence[Path], size: int) -> None:
    """Raise a `UsageError` that names two files of different size, or the one size of all."""
    sizes = [image_size(file) for file in files]
    wrong = next((index for index, found in enumerate(sizes) if found != (size, size)), None)
    if wrong is None:
        return
    width, height = sizes[wrong]
    wanted = f"images of {size}x{size} pixels are needed. {RESIZE_ADVICE}"
    for file, other in zip(files, sizes, strict=True):
        if other != sizes[wrong]:
            raise UsageError(
                f"the images differ in size: {files[wrong]} has {width}x{height} pixels, {file} "
                f"{other[0]}x{other[1]}; {wanted}"
            )
    raise UsageError(f"{files[wrong]} and all others have {width}x{height} pixels; {wanted}")
