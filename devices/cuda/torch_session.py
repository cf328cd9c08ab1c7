"""torch with CUDA graphs: each model is captured once, its replays are timed by CUDA events."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..device import Placement
from ..errors import DeviceError, UsageError
from ..runtimes import TimedSession, numbered_input
from .process import imported, show_only

if TYPE_CHECKING:
    import onnx

CAPTURE_WARMUPS = 3
"""Runs before a CUDA graph is captured, in which libraries choose kernels and take memory."""


class TorchSession:
    """A graph run by torch, operation by operation, on any of torch's devices."""

    def __init__(self, torch: ModuleType, path: Path, device: str) -> None:
        import onnx

        from ..torch_onnx.program import translate

        model = onnx.load(path)
        self._torch = torch
        self._originals = [torch.from_numpy(values).to(device) for values in graph_inputs(model)]
        self._inputs = [values.clone() for values in self._originals]
        self._program = translate(model, self._inputs, device)
        self._results: list[Any] = []
        count = self._program.operations
        self.placement: Placement | None = Placement(device, 1 if count else 0, count, count)
        self.run: Callable[[], Any] = self._run

    def _run(self) -> None:
        with self._torch.inference_mode():
            self._results = self._program(*self._inputs)

    def touch_input(self) -> None:
        """Write the inputs again, with the values they have."""
        for values, original in zip(self._inputs, self._originals, strict=True):
            values.copy_(original)

    def outputs(self) -> list[NDArray[Any]]:
        """Copies of what the last run gave."""
        return [np.array(value.cpu().numpy()) for value in self._results]


class TorchGraphSession(TorchSession):
    """A graph captured as a CUDA graph, whose replays are timed by CUDA events."""

    def __init__(self, torch: ModuleType, path: Path, device: str, evicted: Any) -> None:
        super().__init__(torch, path, device)
        self._evicted = evicted
        cuda = torch.cuda
        self._start, self._stop = (cuda.Event(enable_timing=True) for _ in range(2))
        side = cuda.Stream()
        side.wait_stream(cuda.current_stream())
        with cuda.stream(side):
            for _ in range(CAPTURE_WARMUPS):
                self._run()
        cuda.current_stream().wait_stream(side)
        self._results = []
        self._graph = cuda.CUDAGraph()
        with cuda.graph(self._graph):
            self._run()
        self.run = self.timed_run

    def timed_run(self) -> int:
        """One inference, and the nanoseconds it took by the GPU's clock, its launch included."""
        cuda = self._torch.cuda
        try:
            # With work still in the queue, the launch would be hidden behind it.
            cuda.synchronize()
            self._start.record()
            self._graph.replay()
            self._stop.record()
            self._stop.synchronize()
            milliseconds: float = self._start.elapsed_time(self._stop)
            return round(1e6 * milliseconds)
        except RuntimeError as error:
            # A failed kernel takes all of the process's GPU state with it.
            raise SystemExit(f"the GPU can't go on in this process: {error}") from error

    def evict(self, size_bytes: int) -> None:
        """Have the GPU's caches hold something else: so much of other memory is written."""
        self._evicted(size_bytes).zero_()


class CudaTorch:
    """torch, each model captured as one CUDA graph; cuDNN chooses kernels by its heuristics."""

    name = "torch"
    suffix = ".onnx"
    package = "torch"

    def __init__(self, uuid: str) -> None:
        self._uuid = uuid
        self._evicted: Any = None

    def version(self) -> str:
        """Version of the installed package; `DeviceError` where it has no CUDA."""
        return str(self._module().__version__)

    def binary(self) -> Path | None:
        """The shared library that holds torch's own kernels; `None` where it is not found."""
        folder = Path(self._module().__path__[0]) / "lib"
        return next(iter(sorted(folder.glob("*torch_cuda.*"))), None)

    def options(self, threads: int) -> dict[str, Any]:
        """What `load` asks of the runtime."""
        del threads
        torch = self._module()
        return {
            "execution": "CUDA graph",
            "clock": "CUDA events around a replay on an idle GPU",
            "tf32": False,
            "cudnn_benchmark": False,
            "memory_format": "contiguous",
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
            "build": torch.version.git_version,
        }

    def load(self, path: Path, threads: int) -> TimedSession:
        """Load a model, with inputs of its own shapes and types, on the GPU."""
        del threads
        show_only(self._uuid)
        torch = self._module()
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cudnn.benchmark = False
        try:
            return TorchGraphSession(torch, path, "cuda", self._memory)
        except RuntimeError:
            # Too little memory is this model's failure alone; a failed kernel is the process's.
            try:
                torch.cuda.synchronize()
            except RuntimeError as lost:
                raise SystemExit(f"the GPU can't go on in this process: {lost}") from lost
            raise

    def _memory(self, size_bytes: int) -> Any:
        """So much memory of the GPU that no model uses."""
        torch = self._module()
        if self._evicted is None or self._evicted.numel() < size_bytes:
            self._evicted = torch.empty(size_bytes, dtype=torch.uint8, device="cuda")
        return self._evicted[:size_bytes]

    def _module(self) -> ModuleType:
        torch = imported("torch", self.package)
        if torch.version.cuda is None:
            raise DeviceError(
                f"this torch build, {torch.__version__}, has no CUDA; install one that has: pip "
                "install --force-reinstall torch, from an index that offers CUDA builds"
            )
        return torch


def graph_inputs(model: onnx.ModelProto) -> list[NDArray[Any]]:
    """Values for every input of a graph, as every runtime gets them."""
    from onnx import helper

    constants = {item.name for item in model.graph.initializer}
    values: list[NDArray[Any]] = []
    for item in model.graph.input:
        if item.name in constants:
            continue
        kind = item.type.tensor_type
        shape = [
            axis.dim_value if axis.HasField("dim_value") else axis.dim_param or None
            for axis in kind.shape.dim
        ]
        try:
            dtype = helper.tensor_dtype_to_np_dtype(kind.elem_type)
        except KeyError:
            raise UsageError(f"input {item.name} is of a type that can't be filled") from None
        values.append(numbered_input(len(values), item.name, shape, dtype))
    return values
