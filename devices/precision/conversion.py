"""Every precision by one name: what makes it, what the file then holds, and making it."""

from __future__ import annotations

import importlib.util
from importlib.metadata import version
from typing import TYPE_CHECKING

from ..device import Precision
from ..errors import DeviceError

if TYPE_CHECKING:
    import onnx

QUANTIZER = "ai-edge-quantizer"
X86_MACHINES = ("x86_64", "AMD64", "x86", "i386", "i686")


def made_by(suffix: str, precision: Precision) -> str:
    """The tool that writes files of `suffix` in this precision, with its version.

    Raises `DeviceError`, with what to install, where it is not there.
    """
    if precision == "float32":
        return "latkit"
    if suffix == ".onnx":
        import onnxruntime

        tool = "transformers.float16" if precision == "float16" else "quantization.quantize_static"
        return f"onnxruntime.{tool} {onnxruntime.__version__}"
    if precision == "float16":
        return "latkit"
    if importlib.util.find_spec("ai_edge_quantizer") is None:
        raise DeviceError(
            f"int8 {suffix} files are written by {QUANTIZER}, which is not installed: "
            "pip install 'latkit[int8]'"
        )
    return f"{QUANTIZER} {version(QUANTIZER)}, ai-edge-litert {version('ai-edge-litert')}"


def described(suffix: str, precision: Precision, machine: str) -> dict[str, str]:
    """What files of `suffix` hold in this precision on `machine`: for a device's info.

    `machine` is the processor that the file is for, as `platform.machine` names it. Raises
    `DeviceError` as `made_by`.
    """
    facts = {"name": precision, "made_by": made_by(suffix, precision)}
    if precision == "float32":
        return {"name": precision, "file": f"as it is given, or {suffix} written from .onnx"}
    if precision == "float16":
        return facts | {
            "weights": "float16",
            "inputs_and_outputs": "float32" if suffix == ".tflite" else "float16",
            "computed_in": "float16 where the runtime has such kernels for this processor, else "
            "float32, with conversions around them",
        }
    values = _values_of_int8(suffix, machine)
    return facts | {
        "weights": "int8, a scale for each channel",
        "values": f"{values}, ranges from fixed random inputs",
        "inputs_and_outputs": f"{values}, where the first or last operator has that form",
        "computed_in": "integers where the runtime has such kernels, else float32",
    }


def onnx_in(model: onnx.ModelProto, precision: Precision, machine: str) -> onnx.ModelProto:
    """A float32 ONNX model in another precision; the given one stays as it is."""
    if precision == "float32":
        return model
    if precision == "float16":
        from .onnx_float16 import to_float16

        return to_float16(model)
    from .onnx_int8 import to_int8

    return to_int8(model, _values_of_int8(".onnx", machine))


def tflite_in(content: bytes, precision: Precision) -> bytes:
    """A float32 .tflite file of ours in another precision. Raises `DeviceError` as `made_by`."""
    if precision == "float32":
        return content
    if precision == "float16":
        from .tflite_float16 import to_float16

        return to_float16(content)
    from .tflite_int8 import to_int8

    made_by(".tflite", precision)
    return to_int8(content)


def _values_of_int8(suffix: str, machine: str) -> str:
    """What values between layers are quantized to.

    ONNX Runtime's guide (Quantize ONNX models, Data type selection) takes int8 for weights and
    values. On x86-64, though, its kernels are of uint8 values and int8 weights: version 1.31 left
    additions, multiplications, and convolutions that are read twice in float32 where values were
    int8.
    """
    return "uint8" if suffix == ".onnx" and machine in X86_MACHINES else "int8"
