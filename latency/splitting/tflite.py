"""Reads a .tflite file as plain values: operators with the tensors that they read and write."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import numpy as np

from ...devices.errors import UsageError
from ...devices.tflite.flatbuffer import FILE_IDENTIFIER, schema

IMAGE_RANK = 4
LARGEST_READ = 64
"""Elements of a constant that is read: shapes, axes and paddings are no longer."""

_DTYPES = {
    "FLOAT32": "float32",
    "FLOAT16": "float16",
    "FLOAT64": "float64",
    "INT8": "int8",
    "INT16": "int16",
    "INT32": "int32",
    "INT64": "int64",
    "UINT8": "uint8",
    "UINT32": "uint32",
    "BOOL": "bool",
}


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor of the file. `values` are those of a small integer constant."""

    index: int
    shape: tuple[int, ...]
    dtype: str
    constant: bool
    values: tuple[int, ...] = ()

    @property
    def elements(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)

    @property
    def size_bytes(self) -> int:
        """How much memory it takes."""
        return self.elements * np.dtype(self.dtype).itemsize


@dataclass(frozen=True, slots=True)
class Operator:
    """An operator of the file. `inputs` are those given; an empty place has `None`.

    `options` are the schema's own, `None` where the operator has none. `activation` is what the
    operator applies itself, by the schema's name; `NONE` for nothing. `padded`: an explicit
    padding of its input became a part of it.
    """

    kind: str
    inputs: tuple[Tensor | None, ...]
    outputs: tuple[Tensor, ...]
    options: Any = field(compare=False, default=None)
    padded: bool = False

    @property
    def activation(self) -> str:
        """What is applied to the result, as the schema calls it."""
        number = self.option("fusedActivationFunction", 0)
        return _names("ActivationFunctionType")[number]

    @property
    def same_padding(self) -> bool:
        """Whether the operator pads so that its output covers its input."""
        return bool(self.option("padding", 1) == schema().Padding.SAME)

    @property
    def window(self) -> tuple[int, ...]:
        """Height and width of a convolution's weights."""
        return self.given(1).shape[1:3]

    @property
    def pool_window(self) -> tuple[int, int]:
        """Height and width of a pool."""
        return int(self.option("filterHeight", 1)), int(self.option("filterWidth", 1))

    @property
    def stride(self) -> tuple[int, int]:
        """Rows and columns from one window to the next."""
        return int(self.option("strideH", 1)), int(self.option("strideW", 1))

    @property
    def dilation(self) -> tuple[int, int]:
        """Rows and columns from one element of the window to the next."""
        return (
            int(self.option("dilationHFactor", 1)),
            int(self.option("dilationWFactor", 1)),
        )

    @property
    def groups(self) -> int:
        """In how many groups of channels a convolution works."""
        channels = self.given(0).shape[-1]
        if self.kind == "DEPTHWISE_CONV_2D":
            return channels
        return channels // max(self.given(1).shape[-1], 1)

    @property
    def squares(self) -> bool:
        """Whether a tensor is multiplied by itself."""
        return self.kind == "SQUARE" or (self.kind == "MUL" and len(set(self.inputs)) == 1)

    def given(self, place: int) -> Tensor:
        """The input at a place that is never empty."""
        tensor = self.inputs[place]
        assert tensor is not None
        return tensor

    def option(self, name: str, default: Any) -> Any:
        """One of the operator's options."""
        return getattr(self.options, name, default)

    def read(self) -> list[Tensor]:
        """The tensors that are computed or given at run time, each once."""
        given = dict.fromkeys(tensor for tensor in self.inputs if tensor is not None)
        return [tensor for tensor in given if not tensor.constant]

    def constants(self) -> list[Tensor]:
        """The tensors known ahead of time, each once."""
        given = dict.fromkeys(tensor for tensor in self.inputs if tensor is not None)
        return [tensor for tensor in given if tensor.constant]


@dataclass(frozen=True, slots=True)
class TfliteGraph:
    """The main graph of a file. `outputs` are the numbers of the tensors that it gives."""

    operators: tuple[Operator, ...]
    outputs: frozenset[int]

    def consumers(self) -> dict[int, list[int]]:
        """For each tensor's number, which operators read it."""
        found: dict[int, list[int]] = {}
        for number, operator in enumerate(self.operators):
            for tensor in operator.read():
                found.setdefault(tensor.index, []).append(number)
        return found


def read_tflite(content: bytes, name: str) -> TfliteGraph:
    """The main graph of a .tflite file's bytes; `name` is what errors call it.

    Raises `UsageError` where the file is damaged or has a dynamic shape.
    """
    if content[4:8] != FILE_IDENTIFIER:
        raise UsageError(f"{name} is no TFLite model")
    try:
        model = schema().ModelT.InitFromObj(schema().Model.GetRootAs(content, 0))
        graph = model.subgraphs[0]
        tensors = [
            _tensor(index, tensor, _content(model.buffers[tensor.buffer], content), name)
            for index, tensor in enumerate(graph.tensors)
        ]
        operators = tuple(
            Operator(
                _kind(model.operatorCodes[operator.opcodeIndex]),
                tuple(None if index < 0 else tensors[index] for index in _each(operator.inputs)),
                tuple(tensors[index] for index in _each(operator.outputs)),
                operator.builtinOptions,
            )
            for operator in _each(graph.operators)
        )
        outputs = frozenset(int(index) for index in graph.outputs)
        return TfliteGraph(_without_widening(operators), outputs)
    except UsageError:
        raise
    except Exception as error:  # whatever damaged bytes have the schema's classes raise
        raise UsageError(
            f"{name} is damaged or no TFLite model: {type(error).__name__}: {error}"
        ) from error


def _tensor(index: int, tensor: Any, data: bytes, name: str) -> Tensor:
    shape = tuple(int(length) for length in _each(tensor.shape))
    if tensor.shapeSignature is not None and min(_each(tensor.shapeSignature), default=1) < 0:
        raise UsageError(
            f"tensor {tensor.name!r} of {name} has a dynamic shape; export with fixed shapes"
        )
    dtype = _DTYPES.get(_names("TensorType")[tensor.type], "uint8")
    values: tuple[int, ...] = ()
    if data and np.dtype(dtype).kind == "i" and math.prod(shape) <= LARGEST_READ:
        values = tuple(int(value) for value in np.frombuffer(data, dtype)[: math.prod(shape)])
    return Tensor(index, shape, dtype, bool(data), values)


def _content(buffer: Any, content: bytes) -> bytes:
    """A constant's bytes, in the buffer itself or, for large files, behind the tables."""
    if buffer.data is not None and len(buffer.data):
        return bytes(buffer.data)
    start, size = int(buffer.offset), int(buffer.size)
    return content[start : start + size] if start > 1 else b""


def _without_widening(operators: Sequence[Operator]) -> tuple[Operator, ...]:
    """The operators, but for those that widen constants: runtimes do that once, when they load.

    What they make is a constant of half the width then.
    """
    narrow: dict[int, Tensor] = {}
    left = []
    for operator in operators:
        source = operator.inputs[0] if operator.inputs else None
        if operator.kind == "DEQUANTIZE" and source is not None and source.constant:
            made = operator.outputs[0]
            narrow[made.index] = replace(made, constant=True, dtype=source.dtype)
            continue
        inputs = tuple(item and narrow.get(item.index, item) for item in operator.inputs)
        left.append(replace(operator, inputs=inputs))
    return tuple(left)


def _each(values: Iterable[Any] | None) -> Iterable[Any]:
    return () if values is None else values


def _kind(code: Any) -> str:
    number = max(code.builtinCode, code.deprecatedBuiltinCode)
    kind = _names("BuiltinOperator")[number]
    return code.customCode.decode() if kind == "CUSTOM" and code.customCode else kind


@cache
def _names(enumeration: str) -> dict[int, str]:
    """The names of one of the schema's enumerations, by number."""
    found = vars(getattr(schema(), enumeration))
    return {value: name for name, value in found.items() if isinstance(value, int)}
