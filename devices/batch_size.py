"""Gives an ONNX model another batch size: the first axis of every input and output."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper, shape_inference

from .errors import UsageError

CHANGED = "_of_batch"
"""Suffix of shapes that are written anew beside the old ones, which other nodes may read too."""


def with_batch_size(model: onnx.ModelProto, batch_size: int) -> onnx.ModelProto:
    """A copy of `model` for inputs of `batch_size`; `model` itself stays as it is.

    The first axis of every input is taken as the batch; it must be 1, or open. A `Reshape` to a
    constant shape that begins with 1 leads to `batch_size` instead. Raises `UsageError` where
    an input has no such axis, or the shapes inside or of the outputs no longer fit: the batch
    is mixed with other axes, or its size is built in elsewhere. What mixes images and keeps all
    shapes, as a mean over the batch that is added to each, goes unseen.
    """
    if batch_size < 1:
        raise UsageError(f"the batch size is {batch_size}, and must be at least 1")
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    initializers = {item.name for item in graph.initializer}
    inputs = [item for item in graph.input if item.name not in initializers]
    for item in inputs:
        shape = item.type.tensor_type.shape
        first = shape.dim[0] if shape.dim else None
        size = first.dim_value if first is not None and first.HasField("dim_value") else None
        if first is None or (size is not None and size != 1):
            raise UsageError(
                f"the input {item.name} has the shape {_shape_of(item)}, whose first axis is not "
                "a batch of 1; leave the batch size out, or export the model with a batch of 1"
            )
        first.Clear()
        first.dim_value = batch_size
    _change_reshapes(copy, batch_size)
    del graph.value_info[:]
    declared = {item.name: _shape_of(item) for item in graph.output}
    for item in graph.output:
        item.type.tensor_type.ClearField("shape")
    return _inferred(copy, declared, batch_size)


def _inferred(
    model: onnx.ModelProto, declared: Mapping[str, list[int | str]], batch_size: int
) -> onnx.ModelProto:
    """The model with all its shapes; the outputs' must be those declared, but for the batch."""
    try:
        inferred = shape_inference.infer_shapes(
            model, check_type=True, strict_mode=True, data_prop=True
        )
    except Exception as error:
        raise UsageError(
            f"the model can't be given the batch size {batch_size}: {error}. Leave the batch size "
            "out, or export the model with that batch"
        ) from error
    _check_reshapes(inferred.graph, batch_size)
    for item in inferred.graph.output:
        before, now = declared[item.name], _shape_of(item)
        if not before:
            raise _mixed(item.name, before, now, batch_size)
        if not now:
            # What inference can't follow is taken as declared; the runtime will check it.
            shape = [batch_size, *before[1:]]
            kind = item.type.tensor_type.elem_type
            item.CopyFrom(helper.make_tensor_value_info(item.name, kind, shape))
            continue
        fits = len(now) == len(before) and now[0] == batch_size
        known = zip(before[1:], now[1:], strict=False)
        if not fits or any(isinstance(old, int) and old != new for old, new in known):
            raise _mixed(item.name, before, now, batch_size)
    return inferred


def _mixed(name: str, before: list[int | str], now: list[int | str], batch_size: int) -> UsageError:
    return UsageError(
        f"the model can't be given the batch size {batch_size}: its output {name} of shape "
        f"{before} would become {now}. Leave the batch size out, or export it with that batch"
    )


def _change_reshapes(model: onnx.ModelProto, batch_size: int) -> None:
    """Let every `Reshape` of a value to a constant shape that begins with 1 keep the batch."""
    graph = model.graph
    constants = dict(_constants(graph))
    depends = {item.name for item in graph.input} - {item.name for item in graph.initializer}
    for node in graph.node:
        if not depends.intersection(node.input):
            continue
        depends.update(node.output)
        if node.op_type != "Reshape" or node.input[0] not in depends:
            continue
        shape = constants.get(node.input[1])
        if shape is None or shape.size == 0 or shape[0] != 1:
            continue
        # A 0 would copy the first axis, which need not be the batch where axes were folded.
        changed = np.concatenate((np.array([batch_size], np.int64), shape[1:]))
        name = f"{node.output[0]}{CHANGED}"
        graph.initializer.append(numpy_helper.from_array(changed, name))
        node.input[1] = name


def _check_reshapes(graph: onnx.GraphProto, batch_size: int) -> None:
    """Refuse a `Reshape` that would have to make more or fewer values than it gets."""
    constants = dict(_constants(graph))
    shapes = {item.name: _shape_of(item) for item in (*graph.input, *graph.value_info)}
    for node in graph.node:
        given = shapes.get(node.input[0]) if node.op_type == "Reshape" else None
        wanted = constants.get(node.input[1]) if given else None
        if given is None or wanted is None or wanted.min(initial=1) < 1:
            continue
        sizes = [size for size in given if isinstance(size, int)]
        if len(sizes) == len(given) and math.prod(sizes) != wanted.prod():
            raise UsageError(
                f"the model can't be given the batch size {batch_size}: {node.output[0]} is "
                f"reshaped from {given} to {wanted.tolist()}, so a batch of 1 is built in before. "
                "Leave the batch size out, or export it with that batch"
            )


def _constants(graph: onnx.GraphProto) -> Iterator[tuple[str, NDArray[np.int64]]]:
    """Names and values of all constant whole numbers."""
    tensors = [(item.name, item) for item in graph.initializer]
    for node in graph.node:
        if node.op_type == "Constant":
            tensors += [(node.output[0], item.t) for item in node.attribute if item.name == "value"]
    for name, tensor in tensors:
        if tensor.data_type == onnx.TensorProto.INT64:
            yield name, numpy_helper.to_array(tensor)


def _shape_of(item: onnx.ValueInfoProto) -> list[int | str]:
    """Lengths of the axes; the name, or `?`, of an open one."""
    return [
        axis.dim_value if axis.HasField("dim_value") else axis.dim_param or "?"
        for axis in item.type.tensor_type.shape.dim
    ]
