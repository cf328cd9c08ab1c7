"""Turns a model file into what a runtime eats, once for each content."""

from __future__ import annotations

import hashlib
import os
import platform
import sys
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from .device import PRECISIONS, Precision
from .errors import DeviceError, LatkitError, UsageError
from .files import write_atomically
from .precision import described, onnx_in, tflite_in

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


def prepare(
    path: Path,
    runtime: str,
    cache: Path,
    batch_size: int = 1,
    precision: Precision = "float32",
    machine: str = platform.machine(),
) -> Path:
    """The file that `runtime` eats, in this batch size and precision: `path` or a cached one.

    A conversion is filed under the sha256 of the model and of the converter, and the versions of
    the tools that it uses, so that neither an edited model nor a new converter meets an old file.
    `machine`, the processor that the file is for, as `platform.machine` names it, decides the form
    of int8. A file in float32 is used as it is, whatever it holds; only a float32 .onnx file is
    written in another precision. Raises `UsageError` where the file is not there or can't be used
    on this runtime, `DeviceError` where it can't be converted.
    """
    if runtime not in SUFFIXES:
        raise DeviceError(f"there is no runtime {runtime!r}; there are {', '.join(SUFFIXES)}")
    check_precision(precision)
    suffix = SUFFIXES[runtime]
    if not path.is_file():
        raise UsageError(f"there is no model file {path}")
    if path.suffix == suffix and batch_size == 1 and precision == "float32":
        return path
    if path.suffix != ".onnx":
        raise UsageError(_refusal(path, runtime, batch_size, precision))
    import onnx

    try:
        model = onnx.load(path)
        content = model.SerializeToString()
    except Exception as error:
        raise UsageError(f"{path} is no ONNX model that can be read: {error}") from error
    if precision != "float32":
        _require_float32(path, model, precision)
    form = described(suffix, precision, machine) if precision != "float32" else {}
    parts = [hashlib.sha256(content).hexdigest(), _converter_sha256(*form.values())[:16]]
    parts += [] if batch_size == 1 else [str(batch_size)]
    parts += [] if precision == "float32" else [precision]
    converted = cache / f"{'-'.join(parts)}{suffix}"
    if converted.is_file():
        return converted
    try:
        write_atomically(converted, _converted(model, suffix, batch_size, precision, machine))
    except LatkitError:
        raise
    except Exception as error:
        form_wanted = suffix if precision == "float32" else f"{precision} {suffix}"
        raise DeviceError(
            f"{path} can't be converted to {form_wanted}: {type(error).__name__}: {error}"
        ) from error
    return converted


def check_precision(precision: str, able: Sequence[Precision] = PRECISIONS) -> None:
    """Raise `UsageError` where there is no such precision, `DeviceError` where it isn't `able`."""
    if precision not in PRECISIONS:
        raise UsageError(f"there is no precision {precision!r}; there are {', '.join(PRECISIONS)}")
    if precision not in able:
        raise DeviceError(f"this device does not time {precision}; it times {', '.join(able)}")


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


def _refusal(path: Path, runtime: str, batch_size: int, precision: Precision) -> str:
    """Why a file that is not ONNX can't be used, and what to do."""
    suffix = SUFFIXES[runtime]
    if path.suffix != suffix:
        return f"{path} can't run on {runtime}, which eats {suffix} files; give the .onnx file"
    if batch_size != 1:
        return f"{path} can't run on {runtime} in another batch size; give the .onnx file"
    return (
        f"{path} can't be made {precision}, since only float32 .onnx files can; give that file, or "
        "leave the precision out to time this one as it is"
    )


def _require_float32(path: Path, model: onnx.ModelProto, precision: Precision) -> None:
    """Raise `UsageError` where a model is quantized, or in float16, already."""
    from onnx import TensorProto

    operators = {node.op_type for node in model.graph.node}
    types = {item.data_type for item in model.graph.initializer}
    types |= {item.type.tensor_type.elem_type for item in model.graph.input}
    is_quantized = any(
        name.startswith("QLinear") for name in operators
    ) or not operators.isdisjoint(
        ("QuantizeLinear", "DequantizeLinear", "ConvInteger", "MatMulInteger")
    )
    if is_quantized or not types.isdisjoint((TensorProto.FLOAT16, TensorProto.BFLOAT16)):
        raise UsageError(
            f"{path} is {'quantized' if is_quantized else 'in 16 bits'} already, and can't be made "
            f"{precision}: leave the precision out to time it as it is, or give the float32 model"
        )


def _converted(
    model: onnx.ModelProto, suffix: str, batch_size: int, precision: Precision, machine: str
) -> bytes:
    if batch_size != 1:
        from .batch_size import with_batch_size

        model = with_batch_size(model, batch_size)
    if suffix == ".onnx":
        model = onnx_in(model, precision, machine)
        return bytes(model.SerializeToString(deterministic=True))
    from .tflite import convert

    return tflite_in(convert(model), precision)


@lru_cache(maxsize=8)
def _converter_sha256(*tools: str) -> str:
    """Of this package's converters, and of what other packages' are named as."""
    digest = hashlib.sha256("\n".join(tools).encode())
    folder = Path(__file__).parent
    sources = [path for name in ("tflite", "precision") for path in (folder / name).glob("*.py")]
    for source in (folder / "batch_size.py", *sorted(sources)):
        digest.update(source.read_bytes())
    return digest.hexdigest()
