"""ONNX Runtime's CUDA provider, with inputs and outputs on the GPU, timed by the host's clock."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..device import Placement
from ..errors import DeviceError, UsageError
from ..runtimes import ONNX_DTYPES, TimedSession, numbered_input, onnx_session_options
from .process import imported, show_only

PROVIDER = "CUDAExecutionProvider"
PROVIDER_OPTIONS = {
    "device_id": "0",
    "use_tf32": "0",
    "enable_cuda_graph": "0",
    "cudnn_conv_algo_search": "EXHAUSTIVE",
    # Each model has its own memory; doubling it at every request would soon fill the GPU.
    "arena_extend_strategy": "kSameAsRequested",
}
"""Options of the CUDA provider. Searching kernels by trial is its default; others have no option
here that differs from theirs."""

LOST_CONTEXT = re.compile(r"CUDA failure 7\d\d\b")
"""Errors after which no kernel can be run in this process: illegal addresses, timeouts, traps."""


class OnnxEvictor:
    """Reads half of some memory of a device and writes the other half: so much leaves its caches.

    An addition, run by ONNX Runtime itself, so that nothing else need be installed.
    """

    def __init__(self, runtime: ModuleType, providers: Sequence[Any], place: str) -> None:
        from onnx import TensorProto, helper

        kind = TensorProto.FLOAT
        graph = helper.make_graph(
            [helper.make_node("Add", ["x", "x"], ["y"])],
            "evict",
            [helper.make_tensor_value_info("x", kind, ["words"])],
            [helper.make_tensor_value_info("y", kind, ["words"])],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        options = onnx_session_options(runtime, 1)
        content = model.SerializeToString()
        self._session = runtime.InferenceSession(content, options, providers=providers)
        self._runtime = runtime
        self._place = place
        self._bindings: dict[int, Any] = {}

    def evict(self, size_bytes: int) -> None:
        """Walk through `size_bytes`."""
        words = max(1, size_bytes // 8)
        if words not in self._bindings:
            binding = self._session.io_binding()
            for name, bind in (
                ("x", binding.bind_ortvalue_input),
                ("y", binding.bind_ortvalue_output),
            ):
                zeros = np.zeros(words, np.float32)
                bind(name, self._runtime.OrtValue.ortvalue_from_numpy(zeros, self._place, 0))
            self._bindings[words] = binding
        self._session.run_with_iobinding(self._bindings[words])


class OnnxGpuSession:
    """ONNX Runtime with inputs and outputs bound on the GPU, timed by the host's clock.

    `place` is what ONNX Runtime calls the kind of memory that `provider` works on.
    """

    def __init__(
        self,
        runtime: ModuleType,
        path: Path,
        provider: tuple[str, dict[str, str]],
        place: str,
        evictor: OnnxEvictor,
    ) -> None:
        options = onnx_session_options(runtime, 1)
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        providers = [provider, "CPUExecutionProvider"]
        session = runtime.InferenceSession(str(path), options, providers=providers)
        # Else a failing run would quietly make a new session, on the processor.
        session.disable_fallback()
        if provider[0] not in session.get_providers():
            raise DeviceError(
                f"ONNX Runtime could not start its {provider[0]}; it needs the CUDA and cuDNN of "
                "its build, which its log names: pip install 'onnxruntime-gpu[cuda,cudnn]'"
            )
        self._session = session
        self._binding = session.io_binding()
        self._evictor = evictor
        self._inputs: list[tuple[Any, NDArray[Any]]] = []
        for number, item in enumerate(session.get_inputs()):
            if item.type not in ONNX_DTYPES:
                raise UsageError(f"input {item.name} of {path} is of type {item.type}")
            values = numbered_input(number, item.name, item.shape, ONNX_DTYPES[item.type])
            bound = runtime.OrtValue.ortvalue_from_numpy(values, place, 0)
            self._binding.bind_ortvalue_input(item.name, bound)
            self._inputs.append((bound, values.copy()))
        names = [item.name for item in session.get_outputs()]
        for name in names:
            self._binding.bind_output(name, place, 0)
        self._run()
        self._outputs = self._binding.get_outputs()
        self._binding.clear_binding_outputs()
        for name, value in zip(names, self._outputs, strict=True):
            self._binding.bind_ortvalue_output(name, value)
        self.placement = assigned(session, provider[0])
        self.run: Callable[[], Any] = self._run

    def _run(self) -> None:
        try:
            self._session.run_with_iobinding(self._binding)
            self._binding.synchronize_outputs()
        except Exception as error:
            if LOST_CONTEXT.search(str(error)):
                raise SystemExit(f"the GPU can't go on in this process: {error}") from error
            raise

    def timed_run(self) -> int:
        """One inference, and the nanoseconds it took, waited for to its end."""
        self._binding.synchronize_inputs()
        start = time.perf_counter_ns()
        self._run()
        return time.perf_counter_ns() - start

    def evict(self, size_bytes: int) -> None:
        """Have the GPU's caches hold something else."""
        self._evictor.evict(size_bytes)

    def touch_input(self) -> None:
        """Write the inputs again, with the values they have."""
        for bound, values in self._inputs:
            bound.update_inplace(values)

    def outputs(self) -> list[NDArray[Any]]:
        """Copies of what the last run gave."""
        return [np.array(value.numpy()) for value in self._outputs]


def assigned(session: Any, provider: str) -> Placement | None:
    """How many nodes the provider took, as ONNX Runtime tells; `None` in versions that don't."""
    if not hasattr(session, "get_provider_graph_assignment_info"):
        return None
    counts: dict[str, int] = {}
    for part in session.get_provider_graph_assignment_info():
        counts[part.ep_name] = counts.get(part.ep_name, 0) + len(part.get_nodes())
    taken = counts.get(provider, 0)
    return Placement("cuda" if taken else "cpu", None, taken, sum(counts.values()))


class CudaOnnxRuntime:
    """ONNX Runtime's CUDA provider: all graph optimisations, no CUDA graph."""

    name = "onnxruntime"
    suffix = ".onnx"
    package = "onnxruntime-gpu"

    def __init__(self, uuid: str) -> None:
        self._uuid = uuid
        self._evictor: OnnxEvictor | None = None

    def version(self) -> str:
        """Version of the installed package; `DeviceError` where it has no CUDA provider."""
        return str(self._module().__version__)

    def binary(self) -> Path | None:
        """The shared library that holds the kernels; `None` where it is not found."""
        folder = Path(self._module().__path__[0]) / "capi"
        return next(iter(sorted(folder.glob("*onnxruntime_providers_cuda.*"))), None)

    def options(self, threads: int) -> dict[str, Any]:
        """What `load` asks of the runtime."""
        return {
            "provider": PROVIDER,
            **PROVIDER_OPTIONS,
            "graph_optimization": "ORT_ENABLE_ALL",
            "execution_mode": "sequential",
            "intra_op_threads": threads,
            "clock": "host, from an idle GPU until the outputs are there",
            "cuda": getattr(self._module(), "cuda_version", None),
        }

    def load(self, path: Path, threads: int) -> TimedSession:
        """Load a model, with inputs of its own shapes and types, on the GPU."""
        del threads
        show_only(self._uuid)
        runtime = self._module()
        provider = (PROVIDER, dict(PROVIDER_OPTIONS))
        if self._evictor is None:
            # CUDA's libraries may come as Python packages, where the loader does not look.
            runtime.preload_dlls()
            self._evictor = OnnxEvictor(runtime, [provider, "CPUExecutionProvider"], "cuda")
        return OnnxGpuSession(runtime, path, provider, "cuda", self._evictor)

    def _module(self) -> ModuleType:
        runtime = imported("onnxruntime", self.package)
        if PROVIDER not in runtime.get_available_providers():
            raise DeviceError(
                f"this onnxruntime, {runtime.__version__}, has no CUDA provider: pip uninstall "
                "onnxruntime; pip install 'onnxruntime-gpu[cuda,cudnn]', or use --runtime torch"
            )
        return runtime
