"""Writing the TFLite flatbuffer (schema version 3) of one graph of operators."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DeviceError, UsageError

SCHEMA_VERSION = 3
FILE_IDENTIFIER = b"TFL3"
BUFFER_ALIGNMENT = 16
"""Bytes on which the schema wants constants to lie, so that runtimes can map the file."""

SIGNATURE = "serving_default"


@cache
def schema() -> Any:
    """The generated TFLite schema. Raises `DeviceError` where ai-edge-litert is not installed."""
    try:
        from ai_edge_litert import schema_py_generated
    except ImportError as error:
        raise DeviceError(
            "writing TFLite models needs the schema that ai-edge-litert carries (tflite_runtime "
            "has none): pip install ai-edge-litert"
        ) from error
    return schema_py_generated


def int32(values: Any) -> NDArray[np.int32]:
    """Sizes and axes as the schema has them. Raises `UsageError` where one needs more bits."""
    try:
        return np.array(values, dtype=np.int32)
    except OverflowError as error:
        raise UsageError(
            f"{values} in the ONNX model does not fit into the 32 bits that TFLite has for sizes"
        ) from error


class AlignedBuffer:
    """Constant bytes that the schema's own classes would pack without their alignment."""

    def __init__(self, data: bytes = b"") -> None:
        self.data = data

    def Pack(self, builder: Any) -> Any:  # noqa: N802 (the object API's name)
        """Write the buffer's table, as the object API's own would."""
        vector = None
        if self.data:
            builder.Prep(BUFFER_ALIGNMENT, len(self.data))
            vector = builder.CreateByteVector(self.data)
        schema().BufferStart(builder)
        if vector is not None:
            schema().BufferAddData(builder, vector)
        return schema().BufferEnd(builder)


class FlatbufferWriter:
    """Collects tensors and operators, then writes them as a model with one signature."""

    def __init__(self) -> None:
        self._schema = schema()
        self._tensors: list[Any] = []
        self._buffers = [AlignedBuffer()]
        self._codes: dict[tuple[str, int], int] = {}
        self._operators: list[Any] = []
        self._constants: dict[tuple[bytes, tuple[int, ...], str], int] = {}
        self._names: Counter[str] = Counter()

    def value(self, name: str, shape: Sequence[int]) -> int:
        """Index of a new float32 tensor that an operator, or the caller, will fill."""
        return self._tensor(name, shape, self._schema.TensorType.FLOAT32, 0)

    def constant(self, name: str, array: NDArray[Any]) -> int:
        """Index of a tensor that holds `array` (float32 or int32); equal arrays share one."""
        kinds = {"float32": "FLOAT32", "int32": "INT32"}
        kind = getattr(self._schema.TensorType, kinds[array.dtype.name])
        content = np.ascontiguousarray(array).tobytes()
        key = (content, array.shape, array.dtype.name)
        if key not in self._constants:
            self._buffers.append(AlignedBuffer(content))
            index = self._tensor(name, array.shape, kind, len(self._buffers) - 1)
            self._constants[key] = index
        return self._constants[key]

    def _tensor(self, name: str, shape: Sequence[int], kind: int, buffer: int) -> int:
        tensor = self._schema.TensorT()
        # tools that quantise know tensors by their names
        tensor.name = f"{name};{self._names[name]}" if self._names[name] else name
        self._names[name] += 1
        tensor.shape = int32(shape)
        tensor.type = kind
        tensor.buffer = buffer
        tensor.hasRank = True
        self._tensors.append(tensor)
        return len(self._tensors) - 1

    def name(self, index: int) -> str:
        """The name that a tensor was given."""
        name: str = self._tensors[index].name
        return name

    def operator(
        self,
        kind: str,
        inputs: Sequence[int],
        outputs: Sequence[int],
        options: str = "",
        version: int = 1,
        **settings: Any,
    ) -> None:
        """Append a builtin operator. `options` names its table without "Options": "Conv2D"."""
        operator = self._schema.OperatorT()
        operator.opcodeIndex = self._codes.setdefault((kind, version), len(self._codes))
        operator.inputs = int32(inputs)
        operator.outputs = int32(outputs)
        if options:
            table = getattr(self._schema, f"{options}OptionsT")()
            for name, value in settings.items():
                setattr(table, name, value)
            operator.builtinOptionsType = getattr(self._schema.BuiltinOptions, f"{options}Options")
            operator.builtinOptions = table
        self._operators.append(operator)

    def finish(
        self, inputs: Sequence[tuple[str, int]], outputs: Sequence[tuple[str, int]]
    ) -> bytes:
        """The file's bytes; `inputs` and `outputs` are (name, tensor index), in order."""
        from flatbuffers import Builder

        subgraph = self._schema.SubGraphT()
        subgraph.name = "main"
        subgraph.tensors = self._tensors
        subgraph.operators = self._operators
        subgraph.inputs = int32([index for _, index in inputs])
        subgraph.outputs = int32([index for _, index in outputs])
        model = self._schema.ModelT()
        model.version = SCHEMA_VERSION
        model.description = "latkit"
        model.subgraphs = [subgraph]
        model.buffers = self._buffers
        model.operatorCodes = [self._code(*key) for key in self._codes]
        model.signatureDefs = [self._signature(inputs, outputs)]
        size = sum(len(buffer.data) + 64 for buffer in self._buffers)
        builder = Builder(size + 256 * (len(self._tensors) + len(self._operators)) + 1024)
        builder.Finish(model.Pack(builder), FILE_IDENTIFIER)
        return bytes(builder.Output())

    def _code(self, kind: str, version: int) -> Any:
        code = self._schema.OperatorCodeT()
        code.builtinCode = getattr(self._schema.BuiltinOperator, kind)
        placeholder = self._schema.BuiltinOperator.PLACEHOLDER_FOR_GREATER_OP_CODES
        code.deprecatedBuiltinCode = min(code.builtinCode, placeholder)
        code.version = version
        return code

    def _signature(
        self, inputs: Sequence[tuple[str, int]], outputs: Sequence[tuple[str, int]]
    ) -> Any:
        signature = self._schema.SignatureDefT()
        signature.signatureKey = SIGNATURE
        signature.inputs = [self._named(*item) for item in inputs]
        signature.outputs = [self._named(*item) for item in outputs]
        return signature

    def _named(self, name: str, index: int) -> Any:
        entry = self._schema.TensorMapT()
        entry.name = name
        entry.tensorIndex = index
        return entry
