"""ONNX models in int8: QDQ form, by ONNX Runtime's own static quantization."""

from __future__ import annotations

import contextlib
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from .calibration import calibration_inputs
from .silence import silent

WARNING, ERROR = 2, 3
"""ONNX Runtime's severities; the first is its default."""


def to_int8(model: onnx.ModelProto, activation: str) -> onnx.ModelProto:
    """A copy of `model` with int8 weights, a scale for each channel, and `activation` values.

    Inputs and outputs are of `activation` too, as between the layers of a network, where an
    operator that has such a form reads or gives them. Weights take the whole range: on x86-64
    without VNNI, sums of such products may saturate, which changes values and not the latency.
    """
    import onnxruntime
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory(prefix="latkit-") as folder, _quiet(onnxruntime):
        given, folded, quantized = (
            Path(folder) / f"{name}.onnx" for name in ("given", "folded", "quantized")
        )
        onnx.save(model, given)
        quant_pre_process(given, folded, skip_symbolic_shape=True)
        quantize_static(
            folded,
            quantized,
            _Calibration(_inputs(onnx.load(folded).graph)),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8 if activation == "uint8" else QuantType.QInt8,
            weight_type=QuantType.QInt8,
            # Pooling and reshaping alone are quantized too, as they are within a network.
            extra_options={"ForceQuantizeNoInputCheck": True},
        )
        model = with_quantized_edges(onnx.load(quantized))
    # The tool declares all domains that this ONNX Runtime knows; an older one may not know them.
    used = {node.domain for node in model.graph.node}
    declared = [item for item in model.opset_import if item.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(declared)
    return model


def with_quantized_edges(model: onnx.ModelProto) -> onnx.ModelProto:
    """`model`, changed, with inputs and outputs of the quantized type where they were float.

    An input that a `QuantizeLinear` alone reads is taken quantized, and an output that a
    `DequantizeLinear` gives is given quantized, under the names that they had.
    """
    graph = model.graph
    if any(item.HasField("g") or item.graphs for node in graph.node for item in node.attribute):
        return model  # Loops and branches may read any value: nothing is renamed under them.
    types = {item.name: item.data_type for item in graph.initializer}
    readers = Counter(name for node in graph.node for name in node.input)
    outputs = {item.name: item for item in graph.output}
    for item in graph.input:
        quantize = next((node for node in graph.node if item.name in node.input), None)
        if quantize is None or quantize.op_type != "QuantizeLinear" or readers[item.name] > 1:
            continue
        if quantize.output[0] not in outputs:
            item.type.tensor_type.elem_type = _quantized_type(quantize, types)
            graph.node.remove(quantize)
            _rename_inputs(graph, quantize.output[0], item.name)
    fixed = {item.name for item in graph.input} | set(types) | set(outputs)
    for node in [item for item in graph.node if item.op_type == "DequantizeLinear"]:
        name, value = node.output[0], node.input[0]
        if name not in outputs or readers[name] or value in fixed:
            continue
        outputs[name].type.tensor_type.elem_type = _quantized_type(node, types)
        graph.node.remove(node)
        _rename_inputs(graph, value, name)
        for writer in graph.node:
            writer.output[:] = [name if item == value else item for item in writer.output]
        fixed.add(name)
    # Shapes inside are the runtime's to infer: some are of values that were renamed.
    del graph.value_info[:]
    return model


def _quantized_type(node: onnx.NodeProto, types: Mapping[str, int]) -> int:
    """The type that a `QuantizeLinear` gives, or a `DequantizeLinear` reads: its zero point's."""
    return types[node.input[2]] if len(node.input) > 2 else TensorProto.UINT8


def _rename_inputs(graph: onnx.GraphProto, old: str, new: str) -> None:
    for node in graph.node:
        node.input[:] = [new if item == old else item for item in node.input]


def _inputs(graph: onnx.GraphProto) -> list[tuple[str, Sequence[int], Any]]:
    """Name, shape and dtype of each input; an open first axis, the batch, is left open."""
    constants = {item.name for item in graph.initializer}
    found: list[tuple[str, Sequence[int], Any]] = []
    for item in graph.input:
        if item.name not in constants:
            kind = item.type.tensor_type
            shape: list[Any] = [
                axis.dim_value if axis.HasField("dim_value") else None for axis in kind.shape.dim
            ]
            found.append((item.name, shape, helper.tensor_dtype_to_np_dtype(kind.elem_type)))
    return found


@contextlib.contextmanager
def _quiet(onnxruntime: ModuleType) -> Iterator[None]:
    """Nothing told by the tool, nor, but for errors, by the sessions that it opens."""
    onnxruntime.set_default_logger_severity(ERROR)
    try:
        with silent():
            yield
    finally:
        onnxruntime.set_default_logger_severity(WARNING)


class _Calibration:
    """Hands the fixed inputs to ONNX Runtime's calibration, one set after the other."""

    def __init__(self, inputs: Sequence[tuple[str, Sequence[int], Any]]) -> None:
        self._batches = calibration_inputs(inputs)

    def get_next(self) -> Mapping[str, NDArray[Any]] | None:
        """The next set; `None` after the last."""
        return next(self._batches, None)
