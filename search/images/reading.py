"""Reading labelled images from what the user has."""

from __future__ import annotations

from pathlib import Path

from ...devices.errors import UsageError
from .cifar10 import is_cifar10, read_cifar10
from .folder import read_folder
from .mnist import is_mnist, read_mnist
from .npz import read_npz
from .source import ImageSource

FORMS = "a folder of class folders, of CIFAR-10's binary files or of MNIST's, or an .npz file"


def read_images(source: Path, image_size: int, resize: bool) -> ImageSource:
    """The images of a folder or an .npz file, as RGB of `image_size` x `image_size` pixels.

    A folder holds one folder of image files for each class, or `train` and `test` folders that
    do, or the binary files of CIFAR-10, or the idx files of MNIST. An .npz file holds `images`
    (N, H, W) or (N, H, W, C), uint8 or float in 0..1, and `labels` (N,), or `train_images`,
    `train_labels`, `test_images`, `test_labels`.
    Raises `UsageError` for everything that can't be used.
    """
    if source.is_dir():
        if is_cifar10(source):
            return read_cifar10(source, image_size, resize)
        if is_mnist(source):
            return read_mnist(source, image_size, resize)
        return read_folder(source, image_size, resize)
    if source.suffix == ".npz":
        return read_npz(source, image_size, resize)
    if not source.exists():
        raise UsageError(f"there is no {source}; give {FORMS}")
    raise UsageError(f"{source} is none of: {FORMS}")
