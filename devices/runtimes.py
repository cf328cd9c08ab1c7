"""The host's inference runtimes: load a model file, and run it with as little around as can be.

Runtimes are imported when first used, so that a worker can pin itself before.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import math
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from .device import Placement
from .errors import DeviceError, UsageError

ONNX_DTYPES = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(float16)": "float16",
    "tensor(int8)": "int8",
    "tensor(int16)": "int16",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(uint8)": "uint8",
    "tensor(uint16)": "uint16",
    "tensor(uint32)": "uint32",
    "tensor(uint64)": "uint64",
    "tensor(bool)": "bool",
}


class Session(Protocol):
    """A loaded model with its inputs in place."""

    run: Callable[[], Any]
    """One inference: the call that is timed."""

    placement: Placement | None
    """Where the model's nodes run; `None` where the runtime can't tell."""

    def touch_input(self) -> None:
        """Write the inputs again, with the values they have: as the layer before would have."""

    def outputs(self) -> list[NDArray[Any]]:
        """Copies of what the last run gave."""


@runtime_checkable
class TimedSession(Session, Protocol):
    """A session that has a clock and caches of its own, as a GPU's has."""

    def timed_run(self) -> int:
        """One inference, and the nanoseconds it took, waited for to its end."""

    def evict(self, size_bytes: int) -> None:
        """Have the accelerator's caches hold something else."""


class Runtime(Protocol):
    """One inference runtime. `suffix` is that of the files it eats, `package` its pip name."""

    name: str
    suffix: str
    package: str

    def version(self) -> str:
        """Version of the installed package; `DeviceError` where there is none."""

    def binary(self) -> Path | None:
        """The shared library that holds the kernels; `None` where it is not found."""

    def options(self, threads: int) -> dict[str, Any]:
        """What `load` asks of the runtime."""

    def load(self, path: Path, threads: int) -> Session:
        """Load a model, with inputs of its own shapes and types."""


def onnx_session_options(runtime: ModuleType, threads: int) -> Any:
    """ONNX Runtime's options of every session: what `OnnxRuntime.options` tells."""
    options = runtime.SessionOptions()
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.execution_mode = runtime.ExecutionMode.ORT_SEQUENTIAL
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    if threads == 1:
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


class _OnnxSession:
    """ONNX Runtime with inputs and outputs bound once, so that a run allocates neither."""

    def __init__(self, runtime: ModuleType, path: Path, threads: int) -> None:
        options = onnx_session_options(runtime, threads)
        session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self._bound: list[tuple[Any, NDArray[Any]]] = []
        self._inputs: list[NDArray[Any]] = []
        binding = session.io_binding()
        for number, item in enumerate(session.get_inputs()):
            if item.type not in ONNX_DTYPES:
                raise UsageError(f"input {item.name} of {path} is of type {item.type}")
            values = numbered_input(number, item.name, item.shape, ONNX_DTYPES[item.type])
            bound = runtime.OrtValue.ortvalue_from_numpy(values)
            binding.bind_ortvalue_input(item.name, bound)
            # The bound value may stand in the array's own memory, and must not outlive it.
            self._bound.append((bound, values))
            self._inputs.append(bound.numpy())
        for item in session.get_outputs():
            binding.bind_output(item.name, "cpu")
        session.run_with_iobinding(binding)
        self._outputs = binding.get_outputs()
        binding.clear_binding_outputs()
        for item, value in zip(session.get_outputs(), self._outputs, strict=True):
            binding.bind_ortvalue_output(item.name, value)
        self.placement: Placement | None = None
        self.run: Callable[[], Any] = partial(session.run_with_iobinding, binding)

    def touch_input(self) -> None:
        """Write the inputs again, with the values they have."""
        for values in self._inputs:
            np.maximum(values, values, out=values)

    def outputs(self) -> list[NDArray[Any]]:
        """Copies of what the last run gave."""
        return [np.array(value.numpy()) for value in self._outputs]


class OnnxRuntime:
    """ONNX Runtime's CPU provider: all graph optimisations, sequential, inputs bound."""

    name = "onnxruntime"
    suffix = ".onnx"
    package = "onnxruntime"

    def version(self) -> str:
        """Version of the installed package; `DeviceError` where there is none."""
        return str(_module(self, "onnxruntime").__version__)

    def binary(self) -> Path | None:
        """The shared library that holds the kernels; `None` where it is not found."""
        return _library(_module(self, "onnxruntime"), "capi/onnxruntime_pybind11_state*")

    def options(self, threads: int) -> dict[str, Any]:
        """What `load` asks of the runtime."""
        return {
            "provider": "CPUExecutionProvider",
            "graph_optimization": "ORT_ENABLE_ALL",
            "execution_mode": "sequential",
            "intra_op_threads": threads,
            "inter_op_threads": 1,
            "spinning": threads > 1,
        }

    def load(self, path: Path, threads: int) -> Session:
        """Load a model, with inputs of its own shapes and types."""
        return _OnnxSession(_module(self, "onnxruntime"), path, threads)


class _LiteRtSession:
    """A LiteRT interpreter with its tensors allocated and its inputs filled."""

    def __init__(self, module: ModuleType, path: Path, threads: int) -> None:
        interpreter = module.Interpreter(model_path=str(path), num_threads=threads)
        interpreter.allocate_tensors()
        inputs = interpreter.get_input_details()
        self._tensors = [interpreter.tensor(item["index"]) for item in inputs]
        for number, (item, tensor) in enumerate(zip(inputs, self._tensors, strict=True)):
            shape = [int(length) for length in item["shape"]]
            tensor()[...] = numbered_input(number, item["name"], shape, item["dtype"])
        interpreter.invoke()
        self._interpreter = interpreter
        self.placement = _delegated(interpreter)
        self.run: Callable[[], Any] = interpreter.invoke

    def touch_input(self) -> None:
        """Write the inputs again, with the values they have."""
        for tensor in self._tensors:
            values = tensor()
            np.maximum(values, values, out=values)

    def outputs(self) -> list[NDArray[Any]]:
        """Copies of what the last run gave."""
        details = self._interpreter.get_output_details()
        return [self._interpreter.get_tensor(item["index"]) for item in details]


class LiteRt:
    """LiteRT's interpreter, with the XNNPACK delegate that its default resolver applies."""

    name = "litert"
    suffix = ".tflite"
    package = "ai-edge-litert"

    def version(self) -> str:
        """Version of the installed package; `DeviceError` where there is none."""
        root = self._root()
        version = str(_module(self, root).__version__)
        return version if root == "ai_edge_litert" else f"{root}-{version}"

    def binary(self) -> Path | None:
        """The shared library that holds the kernels; `None` where it is not found."""
        module = _module(self, self._root())
        return _library(module, "libpywrap_litert_common*", "_pywrap_*interpreter_wrapper*")

    def options(self, threads: int) -> dict[str, Any]:
        """What `load` asks of the runtime."""
        return {
            "interface": f"{self._root()}.interpreter.Interpreter",
            "op_resolver": "AUTO (built-in operations, XNNPACK delegate by default)",
            "threads": threads,
        }

    def load(self, path: Path, threads: int) -> Session:
        """Load a model, with inputs of its own shapes and types."""
        return _LiteRtSession(_module(self, f"{self._root()}.interpreter"), path, threads)

    def _root(self) -> str:
        """The maintained package, or its predecessor where only that one is installed."""
        for root in ("ai_edge_litert", "tflite_runtime"):
            if importlib.util.find_spec(root) is not None:
                return root
        return "ai_edge_litert"


RUNTIMES: dict[str, Runtime] = {"onnxruntime": OnnxRuntime(), "litert": LiteRt()}


def find_runtime(name: str) -> Runtime:
    """The runtime of this name, installed or not; `DeviceError` lists the known ones.

    A name with a GPU behind it, as in `torch@GPU-UUID`, is that runtime on the GPU.
    """
    name, _, gpu = name.partition("@")
    if gpu:
        from .cuda.runtimes import find_cuda_runtime

        return find_cuda_runtime(name, gpu)
    if name not in RUNTIMES:
        raise DeviceError(f"there is no runtime {name!r}; there are {', '.join(RUNTIMES)}")
    return RUNTIMES[name]


def runtime_facts(runtime: Runtime, threads: int) -> dict[str, Any]:
    """Version, binary with its sha256, and options: what could explain a latency."""
    binary = runtime.binary()
    facts = {
        "runtime": runtime.name,
        "runtime_version": runtime.version(),
        "runtime_binary": None if binary is None else binary.name,
        "runtime_binary_sha256": binary_sha256(runtime),
        "runtime_options": runtime.options(threads),
    }
    if binary is None:
        facts["runtime_binary_reason"] = f"no known shared library in {runtime.package}"
    return facts


def binary_sha256(runtime: Runtime) -> str | None:
    """Checksum of the shared library that holds the kernels; `None` where it is not found."""
    binary = runtime.binary()
    return None if binary is None else _file_sha256(binary, binary.stat().st_mtime_ns)


def numbered_input(
    number: int, name: str, shape: Sequence[int | str | None], dtype: Any
) -> NDArray[Any]:
    """Values for input `number` of a model: the same on every device.

    Floats lie in [-1, 1), 8-bit integers take all values, wider ones and bools 0 and 1: they are
    often indices, where a large value would reach outside of a table. Value i is SplitMix64's
    output (Steele et al. 2014) for ((number + 1) << 40) + i. An open first dimension, the batch,
    becomes 1; another one is a `UsageError`.
    """
    fixed = [1 if not isinstance(shape[0], int) else shape[0], *shape[1:]] if shape else []
    if not all(isinstance(length, int) and length > 0 for length in fixed):
        raise UsageError(
            f"input {name} has the open shape {list(shape)}; export the model with fixed shapes"
        )
    size = tuple(int(length) for length in fixed if length is not None)
    kind = np.dtype(dtype)
    if kind.kind not in "fbiu":
        raise UsageError(f"input {name} is of type {kind}, which can't be filled")
    mixed = np.arange(math.prod(size), dtype=np.uint64) + np.uint64((number + 1) << 40)
    mixed += np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    if kind.kind == "f":
        values = (mixed >> np.uint64(40)).astype(np.float64) * 2.0**-23 - 1
        return np.asarray(values.astype(kind).reshape(size))
    if kind.kind != "b" and kind.itemsize == 1:
        return np.asarray((mixed & np.uint64(0xFF)).astype(np.uint8).view(kind).reshape(size))
    return np.asarray((mixed & np.uint64(1)).astype(kind).reshape(size))


def _delegated(interpreter: Any) -> Placement | None:
    """How many pieces run in the XNNPACK delegate, read from the interpreter's execution plan."""
    try:
        operations = [item["op_name"] for item in interpreter._get_ops_details()]
    except (AttributeError, KeyError, ValueError):
        return None
    delegates = operations.count("DELEGATE")
    return Placement("xnnpack" if delegates else "cpu", delegates)


def _module(runtime: Runtime, name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise DeviceError(
            f"the runtime {runtime.name} can't be used here ({error}); "
            f"pip install {runtime.package}"
        ) from error


def _library(module: ModuleType, *patterns: str) -> Path | None:
    folder = Path(module.__path__[0])
    for pattern in patterns:
        for path in sorted(folder.glob(pattern)):
            if path.suffix in (".so", ".dylib", ".pyd", ".dll"):
                return path
    return None


@lru_cache(maxsize=16)
def _file_sha256(path: Path, modified_ns: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
