"""The runtimes that a GPU can be timed with: ONNX Runtime's CUDA provider, and torch.

Both keep inputs and outputs on the GPU. A sample begins with the GPU idle and ends when the GPU is
done: launch and waiting are part of it. float32 is computed as float32, without TF32.
"""

from __future__ import annotations

from ..device import Precision
from ..errors import DeviceError
from ..runtimes import Runtime
from .onnx_session import CudaOnnxRuntime
from .torch_session import CudaTorch

NAMES = ("onnxruntime", "torch")
"""The first one that can use a GPU here is taken by default."""

PRECISIONS: tuple[Precision, ...] = ("float32", "float16")
"""Not int8: quantized models would run partly in float32, between conversions."""


def find_cuda_runtime(name: str, uuid: str = "") -> Runtime:
    """The runtime of this name, for the GPU `uuid`; `DeviceError` lists the known ones."""
    if name == "onnxruntime":
        return CudaOnnxRuntime(uuid)
    if name == "torch":
        return CudaTorch(uuid)
    raise DeviceError(f"there is no runtime {name!r} for GPUs; there are {', '.join(NAMES)}")
