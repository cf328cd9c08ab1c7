"""Turns a model file into what a runtime eats, once for each content."""

from __future__ import annotations

import hashlib
import os
import sys
from functools import lru_cache
from pathlib import Path

from .errors import DeviceError, LatkitError, UsageError
from .files import write_atomically
from .runtimes import find_runtime


def default_cache() -> Path:
    """Where converted models are kept: the user's cache folder of this platform."""
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "latkit"
    given = os.environ.get("XDG_CACHE_HOME", "")
    root = Path(given) if given.startswith("/") else Path.home() / ".cache"
    return root / "latkit"


def prepare(path: Path, runtime: str, cache: Path) -> Path:
    """The file that `runtime` eats: `path` itself, or its conversion, kept in `cache`.

    A conversion is filed under the sha256 of the model and of the converter, so that neither an
    edited model nor a new converter meets an old file. Raises `UsageError` where the file is not
    there or can't be used on this runtime, `DeviceError` where it can't be converted.
    """
    suffix = find_runtime(runtime).suffix
    if not path.is_file():
        raise UsageError(f"there is no model file {path}")
    if path.suffix == suffix:
        return path
    if path.suffix != ".onnx":
        raise UsageError(
            f"{path} can't run on {runtime}, which eats {suffix} files; give the .onnx file"
        )
    import onnx

    try:
        model = onnx.load(path)
        content = model.SerializeToString()
    except Exception as error:
        raise UsageError(f"{path} is no ONNX model that can be read: {error}") from error
    name = hashlib.sha256(content).hexdigest()
    converted = cache / f"{name}-{_converter_sha256()[:16]}{suffix}"
    if converted.is_file():
        return converted
    from .tflite import convert

    try:
        flatbuffer = convert(model)
    except LatkitError:
        raise
    except Exception as error:
        raise DeviceError(
            f"{path} can't be converted to {suffix}: {type(error).__name__}: {error}"
        ) from error
    write_atomically(converted, flatbuffer)
    return converted


@lru_cache(maxsize=1)
def _converter_sha256() -> str:
    digest = hashlib.sha256()
    for source in sorted((Path(__file__).parent / "tflite").glob("*.py")):
        digest.update(source.read_bytes())
    return digest.hexdigest()
