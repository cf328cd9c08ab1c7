"""Times models in this Python process through a runtime's C library, as the phone's runner does.

Reads a `Job` as JSON from standard input and writes JSON to standard output. The library is loaded
by ctypes, so it is the very file that a runner loads, and its C interface is called in the same
way; the loops around the calls are those of the cpu device.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
from latkit.devices.job import CANARY
from latkit.devices.runtimes import numbered_input
from latkit.devices.worker import SETTLE_S, Evictor, switch_counter, timed_runs
from numpy.typing import NDArray

Floats = NDArray[np.float32]

ORT_VERSION = 12
ORT = {
    "GetErrorMessage": (2, "p"),
    "CreateEnv": (3, "ipp"),
    "DisableTelemetryEvents": (6, "p"),
    "CreateSession": (7, "pppp"),
    "CreateSessionOptions": (10, "p"),
    "SetSessionExecutionMode": (13, "pi"),
    "SetSessionGraphOptimizationLevel": (23, "pi"),
    "SetIntraOpNumThreads": (24, "pi"),
    "SetInterOpNumThreads": (25, "pi"),
    "SessionGetInputName": (36, "pzpp"),
    "SessionGetOutputName": (37, "pzpp"),
    "CreateRunOptions": (39, "p"),
    "CreateTensorWithDataAsOrtValue": (49, "ppzpzip"),
    "GetTensorMutableData": (51, "pp"),
    "GetTensorShapeElementCount": (64, "pp"),
    "GetTensorTypeAndShape": (65, "pp"),
    "CreateCpuMemoryInfo": (69, "iip"),
    "GetAllocatorWithDefaultOptions": (78, "p"),
    "AddSessionConfigEntry": (130, "ppp"),
    "RunWithBinding": (133, "ppp"),
    "CreateIoBinding": (134, "pp"),
    "BindInput": (136, "ppp"),
    "BindOutput": (137, "ppp"),
    "BindOutputToDevice": (138, "ppp"),
    "GetBoundOutputValues": (140, "pppp"),
    "ClearBoundOutputs": (142, "p"),
}
"""Places in ONNX Runtime's table of functions, which only ever grows, and their arguments."""

KINDS = {"p": ctypes.c_void_p, "i": ctypes.c_int, "z": ctypes.c_size_t}
WARNING, ENABLE_ALL, SEQUENTIAL, FLOAT = 2, 99, 0, 1
ARENA_ALLOCATOR, DEFAULT_MEMORY = 1, 0
FLOAT_BYTES, CACHE_LINE_BYTES = 4, 64


@dataclass(frozen=True)
class Job:
    """Models to time: each a path and its one input's shape; inputs and outputs are float32.

    `plan` is the order of visits, as numbers and runs; the canary, the last model, is -1.
    """

    runtime: str
    library: str
    accelerator: str
    threads: int
    cores: list[int] | None
    models: list[tuple[str, list[int]]]
    warmups: int
    warmup_ms: float
    plan: list[tuple[int, int]]

    def to_json(self) -> str:
        """The job as JSON."""
        return json.dumps(asdict(self))


class Session:
    """A loaded model: what `timed_runs` asks for."""

    def __init__(self, run: Callable[[], Any], values: Floats, output: Floats) -> None:
        self.run = run
        self.placement = None
        self.values = values
        self.output = output

    def touch_input(self) -> None:
        """Write the input again, with the values it has."""
        np.maximum(self.values, self.values, out=self.values)

    def outputs(self) -> list[NDArray[Any]]:
        """A copy of what the last run gave."""
        return [self.output.copy()]


def floats(address: int | None, count: int) -> Floats:
    """The memory of a tensor as an array."""
    assert address is not None
    return np.ctypeslib.as_array((ctypes.c_float * count).from_address(address))


class OnnxRuntime:
    """ONNX Runtime's C interface, called as the runner calls it."""

    def __init__(self, job: Job) -> None:
        library = ctypes.CDLL(job.library)
        library.OrtGetApiBase.restype = ctypes.POINTER(ctypes.c_void_p)
        get_table = ctypes.CFUNCTYPE(ctypes.POINTER(ctypes.c_void_p), ctypes.c_uint32)
        table = get_table(library.OrtGetApiBase()[0])(ORT_VERSION)
        self.functions = {
            name: ctypes.CFUNCTYPE(ctypes.c_void_p, *(KINDS[kind] for kind in kinds))(table[place])
            for name, (place, kinds) in ORT.items()
        }
        self.environment = self.made("CreateEnv", WARNING, b"latkit")
        self.call("DisableTelemetryEvents", self.environment)
        self.allocator = self.made("GetAllocatorWithDefaultOptions")
        self.memory = self.made("CreateCpuMemoryInfo", ARENA_ALLOCATOR, DEFAULT_MEMORY)
        self.run_options = self.made("CreateRunOptions")
        self.options = self.made("CreateSessionOptions")
        self.call("SetSessionGraphOptimizationLevel", self.options, ENABLE_ALL)
        self.call("SetSessionExecutionMode", self.options, SEQUENTIAL)
        self.call("SetIntraOpNumThreads", self.options, job.threads)
        self.call("SetInterOpNumThreads", self.options, 1)
        if job.threads == 1:
            self.call(
                "AddSessionConfigEntry", self.options, b"session.intra_op.allow_spinning", b"0"
            )
        self._kept: list[Any] = []

    def call(self, name: str, *arguments: Any) -> None:
        """Call a function that gives a status; end the program where it is an error."""
        status = self.functions[name](*arguments)
        if status:
            text = ctypes.string_at(self.functions["GetErrorMessage"](status))
            raise SystemExit(f"{name}: {text.decode(errors='replace')}")

    def made(self, name: str, *arguments: Any) -> int:
        """What a function puts into its last argument."""
        value = ctypes.c_void_p()
        self.call(name, *arguments, ctypes.byref(value))
        assert value.value is not None
        return value.value

    def load(self, path: str, shape: list[int]) -> Session:
        """Load a model, and bind its input and output so that no run allocates."""
        session = self.made("CreateSession", self.environment, os.fsencode(path), self.options)
        binding = self.made("CreateIoBinding", session)
        input_name = self.made("SessionGetInputName", session, 0, self.allocator)
        output_name = self.made("SessionGetOutputName", session, 0, self.allocator)
        given = numbered_input(0, "input", shape, np.float32)
        # At the start of a cache line, as the runner's and the runtime's own are.
        room = np.empty(given.nbytes + CACHE_LINE_BYTES, np.uint8)
        start = -room.ctypes.data % CACHE_LINE_BYTES
        values = room[start : start + given.nbytes].view(np.float32)
        values[:] = given.ravel()
        sizes = (ctypes.c_int64 * len(shape))(*shape)
        value = self.made(
            "CreateTensorWithDataAsOrtValue",
            *(self.memory, values.ctypes.data, given.nbytes, sizes, len(shape), FLOAT),
        )
        self.call("BindInput", binding, input_name, value)
        self.call("BindOutputToDevice", binding, output_name, self.memory)
        run = partial(self.functions["RunWithBinding"], session, self.run_options, binding)
        if run():
            raise SystemExit(f"{path} can't be run")
        bound, count = ctypes.POINTER(ctypes.c_void_p)(), ctypes.c_size_t()
        self.call(
            "GetBoundOutputValues",
            *(binding, self.allocator, ctypes.byref(bound), ctypes.byref(count)),
        )
        assert count.value == 1
        output = bound[0]
        self.call_plain("ClearBoundOutputs", binding)
        self.call("BindOutput", binding, output_name, output)
        size = self.made("GetTensorShapeElementCount", self.made("GetTensorTypeAndShape", output))
        self._kept.append(room)
        return Session(run, values, floats(self.made("GetTensorMutableData", output), size))

    def call_plain(self, name: str, *arguments: Any) -> None:
        """Call a function that gives nothing."""
        self.functions[name](*arguments)


class RoomyOptions(ctypes.Structure):
    """Options of a delegate, which grow from version to version and begin with the threads."""

    _fields_ = (("threads", ctypes.c_int32), ("rest", ctypes.c_char * 1020))


class TfLite:
    """TensorFlow Lite's C interface, called as the runner calls it."""

    def __init__(self, job: Job) -> None:
        self._library = ctypes.CDLL(job.library)
        self._threads = job.threads
        self._xnnpack = job.accelerator == "xnnpack"
        self._function("InterpreterOptionsSetNumThreads", None, "pi")
        for name in ("InterpreterAllocateTensors", "InterpreterInvoke"):
            self._function(name, ctypes.c_int, "p")
        for name in ("InterpreterOptionsCreate", "ModelCreateFromFile", "TensorData"):
            self._function(name, ctypes.c_void_p, "" if name == "InterpreterOptionsCreate" else "p")
        self._function("InterpreterCreate", ctypes.c_void_p, "pp")
        self._function("InterpreterOptionsAddDelegate", None, "pp")
        for name in ("InterpreterGetInputTensor", "InterpreterGetOutputTensor"):
            self._function(name, ctypes.c_void_p, "pi")
        self._function("TensorByteSize", ctypes.c_size_t, "p")

    def _function(self, name: str, result: Any, kinds: str) -> Any:
        function = self._library[f"TfLite{name}"]
        function.restype, function.argtypes = result, [KINDS[kind] for kind in kinds]
        setattr(self, name, function)
        return function

    def load(self, path: str, shape: list[int]) -> Session:
        """Load a model and fill its input."""
        del shape  # The model tells it.
        call: Any = self
        options = call.InterpreterOptionsCreate()
        call.InterpreterOptionsSetNumThreads(options, self._threads)
        if self._xnnpack:
            call.InterpreterOptionsAddDelegate(options, self._delegate())
        interpreter = call.InterpreterCreate(call.ModelCreateFromFile(os.fsencode(path)), options)
        if not interpreter or call.InterpreterAllocateTensors(interpreter):
            raise SystemExit(f"{path} can't be loaded")
        values = self._tensor(call.InterpreterGetInputTensor(interpreter, 0))
        values[:] = numbered_input(0, "input", [values.size], np.float32)
        run = partial(call.InterpreterInvoke, interpreter)
        if run():
            raise SystemExit(f"{path} can't be run")
        output = self._tensor(call.InterpreterGetOutputTensor(interpreter, 0))
        return Session(run, values, output)

    def _delegate(self) -> int:
        self._library.TfLiteXNNPackDelegateOptionsDefault.restype = RoomyOptions
        options = self._library.TfLiteXNNPackDelegateOptionsDefault()
        options.threads = self._threads
        create = self._function("XNNPackDelegateCreate", ctypes.c_void_p, "p")
        delegate = create(ctypes.byref(options))
        assert isinstance(delegate, int)
        return delegate

    def _tensor(self, tensor: int) -> Floats:
        call: Any = self
        return floats(call.TensorData(tensor), call.TensorByteSize(tensor) // FLOAT_BYTES)


def main() -> None:
    job = Job(**json.load(sys.stdin))
    if job.cores is not None:
        os.sched_setaffinity(0, job.cores)
    runtime = OnnxRuntime(job) if job.runtime == "onnxruntime" else TfLite(job)
    sessions = [runtime.load(path, shape) for path, shape in job.models]
    canary = sessions[CANARY]
    settled_at = time.perf_counter() + SETTLE_S
    while time.perf_counter() < settled_at:
        canary.run()
    gc.collect()
    gc.disable()
    count_switches = switch_counter(job.threads)
    nothing = Evictor(0).lines(0)
    visits = [
        (
            number,
            *timed_runs(
                sessions[number], nothing, job.warmups, job.warmup_ms, runs, count_switches
            ),
        )
        for number, runs in job.plan
    ]
    outputs = []
    for session in sessions:
        session.run()
        # One after the other in double precision, as the runner adds them up.
        sums = [np.cumsum(values.astype(np.float64))[-1] for values in session.outputs()]
        outputs.append(float(sums[0]))
    json.dump({"visits": visits, "outputs": outputs}, sys.stdout)


if __name__ == "__main__":
    main()
