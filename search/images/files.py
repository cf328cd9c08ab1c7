"""Image files that are decoded when a batch needs them."""

from __future__ import annotations

import struct
import threading
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...devices.errors import UsageError
from .crops import RandomCrops, centre, cut
from .source import Pixels

KEPT_BYTES = 2**30
"""Of each folder's decoded images, at most this much stays in memory."""

UNREADABLE = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    IndexError,
    TypeError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
"""What Pillow raises for files that are damaged, or no images."""


class ImageFiles:
    """Image files, each decoded when it is read: its middle square, scaled to `size`.

    Those that were read without a random crop are kept, the first ones, up to `KEPT_BYTES`; any
    number of threads may read. A file that can't be read is a `UsageError` with its name.
    """

    def __init__(self, folder: Path, names: Sequence[str], size: int) -> None:
        self._folder = folder
        self._names = tuple(names)
        self._size = size
        self._kept: dict[int, Pixels] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._names)

    def read(self, chosen: NDArray[np.int64], crops: RandomCrops | None = None) -> Pixels:
        """The images of these indices, (n, size, size, 3), each cut out at random with `crops`."""
        pixels = np.empty((len(chosen), self._size, self._size, 3), np.uint8)
        for place, index in enumerate(chosen.tolist()):
            if crops is None:
                pixels[place] = self._whole(index)
            else:
                pixels[place] = self._decoded(index, crops, place)
        return pixels

    def identity(self, chosen: NDArray[np.int64]) -> Iterator[bytes]:
        """The files' names, sizes and times of change, and the size that they are brought to.

        So files that are added, removed, renamed or written anew are noticed without reading
        them; a copy of a folder is the same where it keeps the times of change (`cp -a`, tar).
        """
        yield f"{self._size}\n".encode()
        for index in chosen.tolist():
            name = self._names[index]
            try:
                found = (self._folder / name).stat()
            except OSError as error:
                raise UsageError(f"can't read {self._folder / name}: {error}") from error
            yield f"{name}\0{found.st_size}\0{found.st_mtime_ns}\n".encode()

    def _whole(self, index: int) -> Pixels:
        kept = self._kept.get(index)
        if kept is None:
            kept = self._decoded(index)
            with self._lock:
                if (len(self._kept) + 1) * kept.nbytes <= KEPT_BYTES:
                    self._kept[index] = kept
        return kept

    def _decoded(self, index: int, crops: RandomCrops | None = None, place: int = 0) -> Pixels:
        file = self._folder / self._names[index]
        try:
            with Image.open(file) as image:
                width, height = image.size
                box = centre(width, height) if crops is None else crops.box(place, width, height)
                left, upper, right, lower = box
                # A JPEG is decoded at a half, a quarter or an eighth where that is still enough.
                shrink = max(1, min(right - left, lower - upper) / self._size)
                image.draft("RGB", (round(width / shrink), round(height / shrink)))
                across, down = image.size[0] / width, image.size[1] / height
                box = (left * across, upper * down, right * across, lower * down)
                return cut(image.convert("RGB"), box, self._size)
        except UNREADABLE as error:
            raise unreadable(file, error) from error


def image_size(file: Path) -> tuple[int, int]:
    """Width and height of an image, as its file begins; `UsageError` where it is none."""
    try:
        with Image.open(file) as image:
            return image.size
    except UNREADABLE as error:
        raise unreadable(file, error) from error


def unreadable(file: Path, error: Exception) -> UsageError:
    """The error of a file that is no image, or a damaged one."""
    return UsageError(f"can't read {file} as an image: {error}. Repair or remove the file.")
