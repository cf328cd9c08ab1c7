"""TFLite models with float16 weights, which runtimes may compute in float16."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..tflite.flatbuffer import FILE_IDENTIFIER, AlignedBuffer, schema

WEIGHTED = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV")
"""Operators whose constants become float16: what the format's own converter does as well."""

METADATA = "reduced_precision_support"
ALLOWED = b"fp16accfp16"
"""What TFLite's converter writes where values may be float16 too: XNNPACK then computes in it on
processors that can (ARMv8.2's), and else widens the weights once and computes in float32 (XNNPACK
backend for TensorFlow Lite, Floating-Point (IEEE FP16) Operators)."""


def to_float16(tflite: bytes) -> bytes:
    """The model with its weights and biases in float16; inputs and outputs stay float32.

    Each goes through a DEQUANTIZE to where it was, the form of TensorFlow's float16 quantization.
    """
    from flatbuffers import Builder

    tables = schema()
    model = tables.ModelT.InitFromPackedBuf(bytearray(tflite), 0)
    contents = [_content(buffer) for buffer in model.buffers]
    codes = {getattr(tables.BuiltinOperator, name) for name in WEIGHTED}
    weighted = {index for index, code in enumerate(model.operatorCodes) if _builtin(code) in codes}
    dequantize = tables.OperatorCodeT()
    dequantize.builtinCode = dequantize.deprecatedBuiltinCode = tables.BuiltinOperator.DEQUANTIZE
    dequantize.version = 3  # The first that reads float16.
    model.operatorCodes.append(dequantize)
    for graph in model.subgraphs:
        _narrow_weights(graph, contents, weighted, len(model.operatorCodes) - 1)
    used = {tensor.buffer for graph in model.subgraphs for tensor in graph.tensors}
    used |= {item.buffer for item in model.metadata or ()}
    contents = [content if index in used else b"" for index, content in enumerate(contents)]
    note = tables.MetadataT()
    note.name, note.buffer = METADATA, len(contents)
    contents.append(ALLOWED)
    model.metadata = [*(model.metadata or ()), note]
    model.buffers = [AlignedBuffer(content) for content in contents]
    builder = Builder(sum(map(len, contents)) + 1024)
    builder.Finish(model.Pack(builder), FILE_IDENTIFIER)
    return bytes(builder.Output())


def _narrow_weights(graph: Any, contents: list[bytes], weighted: set[int], dequantize: int) -> None:
    """Make float16 the constants of the operators whose codes are `weighted`."""
    widened: dict[int, int] = {}
    added = []
    for operator in graph.operators:
        for position, index in enumerate(operator.inputs):
            if operator.opcodeIndex not in weighted or index < 0:
                continue
            tensor = graph.tensors[index]
            is_wide = tensor.type == schema().TensorType.FLOAT32 and contents[tensor.buffer]
            if is_wide:
                widened[index] = len(graph.tensors)
                graph.tensors.append(_narrow(tensor, contents))
                added.append(_dequantize(index, widened[index], dequantize))
            operator.inputs[position] = widened.get(index, index)
    graph.operators = [*added, *graph.operators]


def _content(buffer: Any) -> bytes:
    return b"" if buffer.data is None else np.asarray(buffer.data, np.uint8).tobytes()


def _builtin(code: Any) -> int:
    """Old readers' field holds small codes, the newer one all of them."""
    return max(code.builtinCode or 0, code.deprecatedBuiltinCode or 0)


def _narrow(tensor: Any, contents: list[bytes]) -> Any:
    """Make a constant float16, in a buffer of its own; return the float32 value it widens to."""
    tables = schema()
    values = np.frombuffer(contents[tensor.buffer], np.float32)
    largest = np.finfo(np.float16).max
    contents.append(np.clip(values, -largest, largest).astype(np.float16).tobytes())
    wide = tables.TensorT()
    wide.name = f"{_text(tensor.name)}_float32"
    wide.shape, wide.type, wide.buffer = tensor.shape, tables.TensorType.FLOAT32, 0
    wide.hasRank = tensor.hasRank
    tensor.type, tensor.buffer = tables.TensorType.FLOAT16, len(contents) - 1
    return wide


def _text(name: Any) -> str:
    return name.decode() if isinstance(name, bytes) else str(name)


def _dequantize(narrow: int, wide: int, code: int) -> Any:
    tables = schema()
    operator = tables.OperatorT()
    operator.opcodeIndex = code
    operator.inputs = np.array([narrow], np.int32)
    operator.outputs = np.array([wide], np.int32)
    operator.builtinOptionsType = tables.BuiltinOptions.DequantizeOptions
    operator.builtinOptions = tables.DequantizeOptionsT()
    return operator
