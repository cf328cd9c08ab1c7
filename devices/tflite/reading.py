"""Reading an ONNX model: checked, of static shape, constants evaluated, dead nodes left out."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx.inliner
from onnx import AttributeProto, TensorProto, helper, numpy_helper

from ..errors import UsageError
from .graph import Array, Graph, Node, Shape

PASSED_THROUGH = ("Identity", "Dropout")
"""Operators that give their first input unchanged."""

LARGEST_SHAPE_CONSTANT = 1024
"""Elements of a constant up to which shape inference may need its values (shapes, axes)."""

OLDEST_SEPARATE_CONSTANTS = 4
"""First IR version in which constants need not be inputs too."""


def read_graph(model: onnx.ModelProto, covered: Collection[str]) -> Graph:
    """Check a model and read its graph; a dynamic batch (an input's first dimension) becomes 1.

    Raises `UsageError` where the model is damaged, has another dynamic dimension, an operator
    that is not `covered`, or an input or output that is not float32.
    """
    try:
        return _read(model, covered)
    except (
        onnx.checker.ValidationError,
        onnx.shape_inference.InferenceError,
        ValueError,
        TypeError,
        KeyError,
    ) as error:
        raise UsageError(f"the ONNX model is damaged or not valid: {error}") from error


def _read(model: onnx.ModelProto, covered: Collection[str]) -> Graph:
    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
    for proto in model.graph.node:
        if proto.domain not in ("", "ai.onnx") or not onnx.defs.has(proto.op_type):
            raise _not_covered(proto, covered)
    constants = {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}
    inputs = [item for item in model.graph.input if item.name not in constants]
    outputs = tuple(item.name for item in model.graph.output)
    if not outputs:
        raise UsageError("the ONNX model has no outputs")
    _check_types([*inputs, *model.graph.output])
    skeleton = _skeleton(model)
    opsets = {item.domain: item.version for item in model.opset_import}
    nodes, shapes = _settle(skeleton, _NodeReader(opsets, constants, outputs))
    for node in nodes:
        if node.op not in covered:
            raise _not_covered(node.proto, covered)
    names = tuple(item.name for item in inputs)
    return Graph(opsets.get("", 1), names, outputs, tuple(nodes), constants, shapes)


def _settle(skeleton: onnx.ModelProto, reader: _NodeReader) -> tuple[list[Node], dict[str, Shape]]:
    """Infer shapes and evaluate constants, in turn: sizes computed from shapes make new ones."""
    while True:
        inferred = onnx.shape_inference.infer_shapes(skeleton, strict_mode=True, data_prop=True)
        onnx.checker.check_model(inferred)
        graph, shapes = inferred.graph, {}
        for value in (*graph.value_info, *graph.input, *graph.output):
            shape = _static_shape(value)
            if shape is not None:
                shapes[value.name] = shape
        nodes = reader.live_nodes(skeleton.graph.node, shapes)
        complete = all(name in shapes for node in nodes for name in node.outputs if name)
        if complete or not reader.put_constants(skeleton.graph):
            return nodes, shapes


def _not_covered(proto: onnx.NodeProto, covered: Collection[str]) -> UsageError:
    name = f"{proto.domain}.{proto.op_type}" if proto.domain else proto.op_type
    where = proto.name or ", ".join(proto.output)
    return UsageError(
        f"operator {name} of node {where!r} can't be written as TFLite. "
        f"Covered are: {', '.join(sorted(covered))}. Use the model as .onnx, or without it."
    )


def _skeleton(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with large constants as mere inputs, and a dynamic batch set to 1.

    Checks and shape inference copy all that they are given, and need no weights.
    """
    skeleton = onnx.ModelProto(ir_version=max(model.ir_version, OLDEST_SEPARATE_CONSTANTS))
    skeleton.opset_import.extend(model.opset_import)
    graph = skeleton.graph
    graph.name = model.graph.name or "graph"
    graph.node.extend(model.graph.node)
    constants = {tensor.name for tensor in model.graph.initializer}
    for value in model.graph.input:
        if value.name not in constants:
            graph.input.append(value)
            _fix_batch(graph.input[-1])
    for tensor in model.graph.initializer:
        if math.prod(tensor.dims) <= LARGEST_SHAPE_CONSTANT:
            graph.initializer.append(tensor)
        else:
            shape = list(tensor.dims)
            graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, shape))
    graph.output.extend(model.graph.output)
    for value in graph.output:
        for dim in value.type.tensor_type.shape.dim:
            if dim.HasField("dim_param"):
                dim.Clear()
    return skeleton


def _fix_batch(value: onnx.ValueInfoProto) -> None:
    """Set a dynamic first dimension to 1; `UsageError` for any other dynamic dimension."""
    if not value.type.tensor_type.HasField("shape"):
        raise UsageError(f"input {value.name!r} of the ONNX model has no shape; give it one")
    for axis, dim in enumerate(value.type.tensor_type.shape.dim):
        if dim.HasField("dim_value") and dim.dim_value > 0:
            continue
        if axis > 0:
            raise UsageError(
                f"dimension {axis} ({dim.dim_param or 'unnamed'}) of input {value.name!r} is "
                "dynamic; TFLite models are written for one shape. Export with a fixed one."
            )
        dim.dim_value = 1


def _static_shape(value: onnx.ValueInfoProto) -> Shape | None:
    tensor = value.type.tensor_type
    if not tensor.HasField("shape") or not all(d.HasField("dim_value") for d in tensor.shape.dim):
        return None
    return tuple(dim.dim_value for dim in tensor.shape.dim)


def _check_types(values: Sequence[onnx.ValueInfoProto]) -> None:
    for value in values:
        kind = value.type.tensor_type.elem_type
        if kind != TensorProto.FLOAT:
            raise UsageError(
                f"{value.name!r} of the ONNX model is of type {TensorProto.DataType.Name(kind)}; "
                "only models that read and give float32 are written as TFLite"
            )


class _NodeReader:
    """Reads nodes in order; takes away those that pass through or that read only constants."""

    def __init__(
        self,
        opsets: dict[str, int],
        constants: dict[str, Array],
        outputs: tuple[str, ...],
    ) -> None:
        self._opsets = opsets
        self._constants = constants
        self._outputs = outputs
        self._renamed: dict[str, str] = {}

    def live_nodes(
        self, protos: Iterable[onnx.NodeProto], shapes: Mapping[str, Shape]
    ) -> list[Node]:
        """The nodes that are left, and that an output depends on."""
        nodes = [node for proto in protos if (node := self._read(proto, shapes)) is not None]
        return _live(nodes, self._outputs)

    def put_constants(self, graph: onnx.GraphProto) -> bool:
        """Replace a skeleton's nodes by the constants they gave; `False` where there were none."""
        left = []
        for proto in graph.node:
            if not all(name in self._constants for name in proto.output):
                left.append(proto)
                continue
            for name in proto.output:
                graph.initializer.append(numpy_helper.from_array(self._constants[name], name))
        found = len(left) < len(graph.node)
        del graph.node[:]
        graph.node.extend(left)
        return found

    def _read(self, proto: onnx.NodeProto, shapes: Mapping[str, Shape]) -> Node | None:
        inputs = tuple(self._renamed.get(name, name) for name in proto.input)
        if proto.op_type in PASSED_THROUGH and inputs[0] in self._constants:
            self._constants[proto.output[0]] = self._constants[inputs[0]]
            return None
        if proto.op_type in PASSED_THROUGH and proto.output[0] not in self._outputs:
            self._renamed[proto.output[0]] = inputs[0]
            return None
        if proto.op_type == "Shape" and not proto.attribute and inputs[0] in shapes:
            shape = np.array(shapes[inputs[0]], dtype=np.int64)
            self._constants[proto.output[0]] = shape
            return None
        if self._is_constant(proto, inputs):
            self._evaluate(proto, inputs)
            return None
        return Node(proto, inputs, tuple(proto.output))

    def _is_constant(self, proto: onnx.NodeProto, inputs: tuple[str, ...]) -> bool:
        if any(item.type == AttributeProto.GRAPH for item in proto.attribute):
            return False
        if not inputs:
            return proto.op_type == "Constant"
        return all(name in self._constants for name in inputs if name)

    def _evaluate(self, proto: onnx.NodeProto, inputs: tuple[str, ...]) -> None:
        from onnx.reference import ReferenceEvaluator  # takes long to import, and is seldom needed

        given = {name: self._constants[name] for name in inputs if name}
        copy = onnx.NodeProto()
        copy.CopyFrom(proto)
        copy.input[:] = inputs
        body = onnx.GraphProto(name="constant", node=[copy])
        body.input.extend(onnx.ValueInfoProto(name=name) for name in given)
        body.output.extend(onnx.ValueInfoProto(name=name) for name in proto.output)
        imports = [helper.make_opsetid(*item) for item in self._opsets.items()]
        whole = onnx.ModelProto(ir_version=OLDEST_SEPARATE_CONSTANTS, graph=body)
        whole.opset_import.extend(imports)
        try:
            results: Any = ReferenceEvaluator(whole).run(None, given)
        except Exception as error:  # whatever an operator's reference code raises
            raise UsageError(
                f"node {proto.name or proto.output[0]!r} ({proto.op_type}) reads only constants, "
                f"and can't be evaluated: {error}"
            ) from error
        for name, result in zip(proto.output, results, strict=True):
            self._constants[name] = np.asarray(result)


def _live(nodes: list[Node], outputs: tuple[str, ...]) -> list[Node]:
    """The nodes that an output depends on."""
    needed = set(outputs)
    live = []
    for node in reversed(nodes):
        if needed.intersection(node.outputs):
            needed.update(node.inputs)
            live.append(node)
    return live[::-1]
