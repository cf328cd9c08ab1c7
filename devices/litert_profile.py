"""LiteRT's own profile of each operator, asked through the C interface of its shared library.

The Python interpreter tells nothing of single operators; the library beside it, `libLiteRt.so`,
has a profiler. A profile is taken in a process of its own, where a crash hurts no one (`per_op`).
"""

from __future__ import annotations

import ctypes
import importlib.util
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from .errors import DeviceError
from .profiled import ProfiledOperation
from .runtimes import LiteRt, numbered_input

PACKAGE = "ai_edge_litert"
LIBRARY = "libLiteRt.so"
VERSIONS = ("2.3.",)
"""Beginnings of the versions whose C interface is the one that is spoken here."""

CPU = 1
"""The set of accelerators that holds the processor alone."""

PROFILING = (b"runtime_options_string", b"enable_profiling = true\n")
"""Name and content of the options that switch the profiler on."""

WRITE = 1
INVOKE = ("Invoke", 1)
"""The event that is the whole run."""

OPERATOR, DELEGATE_OPERATOR = 1 << 1, 1 << 3
"""Kinds of events: an operator of the interpreter, and one within a delegate."""

DELEGATE = "TfLiteXNNPackDelegate"
"""The interpreter's name for a piece that XNNPACK runs, whose operators are told one by one."""

CUT_US = 0.5
"""What the profiler leaves out of each time on average: it cuts to whole microseconds."""

_TYPES = re.compile(r" \([^)]*\)")
"""What XNNPACK's names have in parentheses: layout and element types. The rest is the kind."""

_ELEMENT_TYPES = {
    1: "float32",
    2: "int32",
    3: "uint8",
    4: "int64",
    6: "bool",
    7: "int16",
    9: "int8",
    10: "float16",
    11: "float64",
}


class _Layout(ctypes.Structure):
    _fields_ = (
        ("rank", ctypes.c_uint32, 7),
        ("has_strides", ctypes.c_uint32, 1),
        ("dimensions", ctypes.c_int32 * 8),
        ("strides", ctypes.c_uint32 * 8),
    )


class _TensorType(ctypes.Structure):
    _fields_ = (("element_type", ctypes.c_int32), ("layout", _Layout))


class _Event(ctypes.Structure):
    _fields_ = (
        ("tag", ctypes.c_char_p),
        ("kind", ctypes.c_int32),
        ("start_us", ctypes.c_uint64),
        ("elapsed_us", ctypes.c_uint64),
        ("memory", ctypes.c_int64 * 6),
        ("metadata", ctypes.c_uint64 * 2),
        ("source", ctypes.c_int32),
    )


_KEEP = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(lambda _: None)
"""How the library frees options: not at all, they are Python's."""


class LiteRtProfile:
    """A compiled model with the profiler on, its inputs filled as those of a timed session.

    Raises `DeviceError` where another version is installed, or a call of the library fails.
    """

    def __init__(self, path: Path, threads: int) -> None:
        self._library = _library()
        self._kept: list[Any] = []
        self._environment = self._made("LiteRtCreateEnvironment", ctypes.c_int(0), None)
        self._model = self._made("LiteRtCreateModelFromFile", self._environment, str(path).encode())
        options = self._made("LiteRtCreateOptions")
        self._call("LiteRtSetOptionsHardwareAccelerators", options, ctypes.c_int(CPU))
        self._add_options(options, *PROFILING)
        self._add_options(options, b"xnnpack", f"num_threads = {threads}\n".encode())
        self._compiled = self._made(
            "LiteRtCreateCompiledModel", self._environment, self._model, options
        )
        self._profiler = self._made("LiteRtCompiledModelGetProfiler", self._compiled)
        signature = self._made("LiteRtGetModelSignature", self._model, ctypes.c_size_t(0))
        inputs = self._buffers(signature, "Input")
        outputs = self._buffers(signature, "Output")
        for number, (values, kind) in enumerate(inputs):
            self._fill(values, kind, number)
        self._arguments = (
            self._compiled,
            ctypes.c_size_t(0),
            ctypes.c_size_t(len(inputs)),
            (ctypes.c_void_p * len(inputs))(*(buffer.value for buffer, _ in inputs)),
            ctypes.c_size_t(len(outputs)),
            (ctypes.c_void_p * len(outputs))(*(buffer.value for buffer, _ in outputs)),
        )
        self._runs: list[list[tuple[str, int, int]]] = []
        self.run: Callable[[], Any] = self._run

    def operations(self, counted: Sequence[bool]) -> tuple[list[ProfiledOperation], list[float]]:
        """Each operator in the order they run, and the milliseconds of each whole run.

        `counted` tells of every run so far whether it counts or was a warm-up. Raises
        `DeviceError` where the runs don't have the same operators.
        """
        runs = [run for run, counts in zip(self._runs, counted, strict=True) if counts]
        return operator_times(runs), whole_times_ms(runs)

    def _run(self) -> None:
        """One inference, and what the profiler says of it."""
        self._call("LiteRtResetProfiler", self._profiler)
        self._call("LiteRtStartProfiler", self._profiler)
        self._call("LiteRtRunCompiledModel", *self._arguments)
        count = ctypes.c_int()
        self._call("LiteRtGetNumProfilerEvents", self._profiler, ctypes.byref(count))
        events = (_Event * max(count.value, 1))()
        self._call("LiteRtGetProfilerEvents", self._profiler, count, events)
        self._runs.append(
            [(event.tag.decode(), event.kind, event.elapsed_us) for event in events[: count.value]]
        )

    def _buffers(
        self, signature: ctypes.c_void_p, side: str
    ) -> list[tuple[ctypes.c_void_p, _TensorType]]:
        """A buffer for each input or output, with its type."""
        count = ctypes.c_size_t()
        self._call(f"LiteRtGetNumSignature{side}s", signature, ctypes.byref(count))
        buffers = []
        for index in map(ctypes.c_size_t, range(count.value)):
            tensor = self._made(f"LiteRtGetSignature{side}TensorByIndex", signature, index)
            kind = _TensorType()
            self._call("LiteRtGetRankedTensorType", tensor, ctypes.byref(kind))
            wanted = self._made(
                f"LiteRtGetCompiledModel{side}BufferRequirements",
                self._compiled,
                ctypes.c_size_t(0),
                index,
            )
            buffer = self._made(
                "LiteRtCreateManagedTensorBufferFromRequirements",
                self._environment,
                ctypes.byref(kind),
                wanted,
            )
            buffers.append((buffer, kind))
        return buffers

    def _fill(self, buffer: ctypes.c_void_p, kind: _TensorType, number: int) -> None:
        if kind.element_type not in _ELEMENT_TYPES:
            raise DeviceError(f"input {number} is of a type that can't be filled")
        shape = list(kind.layout.dimensions)[: kind.layout.rank]
        dtype = _ELEMENT_TYPES[kind.element_type]
        values = numbered_input(number, str(number), shape, dtype).tobytes()
        address = ctypes.c_void_p()
        self._call("LiteRtLockTensorBuffer", buffer, ctypes.byref(address), ctypes.c_int(WRITE))
        ctypes.memmove(address, values, len(values))
        self._call("LiteRtUnlockTensorBuffer", buffer)

    def _add_options(self, options: ctypes.c_void_p, name: bytes, content: bytes) -> None:
        text = ctypes.create_string_buffer(content)
        self._kept += [text, name]
        added = self._made(
            "LiteRtCreateOpaqueOptions", name, ctypes.cast(text, ctypes.c_void_p), _KEEP
        )
        self._call("LiteRtAddOpaqueOptions", options, added)

    def _made(self, function: str, *arguments: Any) -> ctypes.c_void_p:
        """What a function writes to its last argument, a pointer."""
        pointer = ctypes.c_void_p()
        self._call(function, *arguments, ctypes.byref(pointer))
        return pointer

    def _call(self, function: str, *arguments: Any) -> None:
        called = getattr(self._library, function)
        called.restype = ctypes.c_int
        status = called(*arguments)
        if status != 0:
            raise DeviceError(f"LiteRT's {function} failed with status {status}")


def operator_times(runs: Sequence[Sequence[tuple[str, int, int]]]) -> list[ProfiledOperation]:
    """Each operator's times, from the profiler's events (name, kind, microseconds) of some runs.

    What a delegate runs is told by its own operators. `DeviceError` where runs differ.
    """
    told = [
        [
            (name, elapsed)
            for name, kind, elapsed in run
            if kind == DELEGATE_OPERATOR or (kind == OPERATOR and name != DELEGATE)
        ]
        for run in runs
    ]
    names = [[name for name, _ in run] for run in told]
    if any(other != names[0] for other in names):
        raise DeviceError("LiteRT's profile names other operators in each run")
    return [
        ProfiledOperation(
            name, _TYPES.sub("", name), tuple((run[index][1] + CUT_US) / 1e3 for run in told)
        )
        for index, name in enumerate(names[0])
    ]


def whole_times_ms(runs: Sequence[Sequence[tuple[str, int, int]]]) -> list[float]:
    """How long each run took as a whole, by the profiler's clock."""
    return [
        sum(elapsed for name, kind, elapsed in run if (name, kind) == INVOKE) / 1e3 for run in runs
    ]


def _library() -> Any:
    """LiteRT's shared library; `DeviceError` where it isn't there or is of another version."""
    runtime = LiteRt()
    version = runtime.version()
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations or not version.startswith(VERSIONS):
        raise DeviceError(
            f"{runtime.name} {version} tells no times of single operators; "
            f"pip install '{runtime.package}=={VERSIONS[0]}*'"
        )
    path = Path(spec.submodule_search_locations[0]) / LIBRARY
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise DeviceError(f"LiteRT's library {path} can't be loaded: {error}") from error
