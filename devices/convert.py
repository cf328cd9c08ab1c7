"""Turns a model file into what a runtime eats, once for each content."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import DeviceError, LatkitError, UsageError
from .files import write_atomically

if TYPE_CHECKING:
    import onnx

SUFFIXES = {
    "onnxruntime": ".onnx",
    "torch": ".onnx",
    "litert": ".tflite",
    "benchmark_model-mean": ".tflite",
    "benchmark_model-median": ".tflite",
}
"""What each runtime's model files end in."""


def default_cache() -> Path:
    """Where converted models are kept: the user's cache folder of this platform."""
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "latkit"
    given = os.environ.get("XDG_CACHE_HOME", "")
    root = Path(given) if given.startswith("/") else Path.home() / ".cache"
    return root / "latkit"


def prepare(path: Path, runtime: str, cache: Path, batch_size: int = 1) -> Path:
    """The file that `runtime` eats, for inputs of `batch_size`: `path` or a cached one.

    A conversion is filed under the sha256 of the model and of the converter, so that neither an
    edited model nor a new converter meets an old file. Raises `UsageError` where the file is not
    there or can't be used on this runtime, `DeviceError` where it can't be converted.
    """
    if runtime not in SUFFIXES:
        raise DeviceError(f"there is no runtime {runtime!r}; there are {', '.join(SUFFIXES)}")
    suffix = SUFFIXES[runtime]
    if not path.is_file():
        raise UsageError(f"there is no model file {path}")
    if path.suffix == suffix and batch_size == 1:
        return path
    if path.suffix != ".onnx":
        wanted = f"which eats {suffix} files" if path.suffix != suffix else "in another batch size"
        raise UsageError(f"{path} can't run on {runtime}, {wanted}; give the .onnx file")
    import onnx

    try:
        model = onnx.load(path)
        content = model.SerializeToString()
    except Exception as error:
        raise UsageError(f"{path} is no ONNX model that can be read: {error}") from error
    name = f"{hashlib.sha256(content).hexdigest()}-{_converter_sha256()[:16]}"
    converted = cache / f"{name}{'' if batch_size == 1 else f'-{batch_size}'}{suffix}"
    if converted.is_file():
        return converted
    try:
        write_atomically(converted, _converted(model, suffix, batch_size))
    except LatkitError:
        raise
    except Exception as error:
        raise DeviceError(
            f"{path} can't be converted to {suffix}: {type(error).__name__}: {error}"
        ) from error
    return converted


def each_prepared(
    paths: Sequence[Path], prepare_one: Callable[[Path], Path]
) -> list[Path | LatkitError]:
    """Prepare files one by one; for each that can't be used, its error."""
    found: list[Path | LatkitError] = []
    for path in paths:
        try:
            found.append(prepare_one(path))
        except LatkitError as error:
            found.append(error)
    return found


def _converted(model: onnx.ModelProto, suffix: str, batch_size: int) -> bytes:
    if batch_size != 1:
        from .batch_size import with_batch_size

        model = with_batch_size(model, batch_size)
    if suffix == ".onnx":
        return bytes(model.SerializeToString(deterministic=True))
    from .tflite import convert

    return convert(model)


@lru_cache(maxsize=1)
def _converter_sha256() -> str:
    digest = hashlib.sha256()
    folder = Path(__file__).parent
    for source in (folder / "batch_size.py", *sorted((folder / "tflite").glob("*.py"))):
        digest.update(source.read_bytes())
    return digest.hexdigest()
