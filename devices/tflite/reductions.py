"""Means, sums and extremes over axes; normalisation by them; softmax."""

from __future__ import annotations

import math

import numpy as np

from ..errors import UsageError
from .formula import Formula
from .graph import Array, Node
from .layout import IMAGE_RANK, Order, onnx_order
from .translation import Translation, translates

FIRST_OPSET_OF_ONE_AXIS_SOFTMAX = 13

REDUCTIONS = {
    "GlobalAveragePool": "MEAN",
    "GlobalMaxPool": "REDUCE_MAX",
    "ReduceL2": "SUM",
    "ReduceMax": "REDUCE_MAX",
    "ReduceMean": "MEAN",
    "ReduceMin": "REDUCE_MIN",
    "ReduceProd": "REDUCE_PROD",
    "ReduceSum": "SUM",
}


@translates(*REDUCTIONS)
def reduction(translation: Translation, node: Node) -> None:
    """MEAN and its like over axes, wherever these are stored.

    Pooled axes are left away where a flattening follows, as TensorFlow's own models have it.
    """
    source, result = node.inputs[0], node.outputs[0]
    shape = translation.graph.shape(source)
    rank, order = len(shape), translation.order(source)
    keep, axes = True, list(range(2, rank))
    if node.op.startswith("Reduce"):
        keep = bool(node.attributes.get("keepdims", 1))
        given = translation.axes(node)
        if not given and node.attributes.get("noop_with_empty_axes", 0):
            translation.describe(result, translation.view(source))
            return
        axes = given or list(range(rank))
    reader = translation.graph.only_reader(result)
    if (
        keep
        and rank == IMAGE_RANK
        and sorted(axes) == [2, 3]
        and node.op != "ReduceL2"
        and reader is not None
        and reader.op in ("Flatten", "Reshape", "Squeeze")
        and translation.graph.shape(reader.outputs[0]) == shape[:2]
    ):
        translation.absorbed.add(reader)
        keep, result = False, reader.outputs[0]
    value = translation.tensor(source, order)
    if node.op == "ReduceL2":
        stored = tuple(shape[axis] for axis in order)
        value = Formula(translation, result, stored)("SQUARE", value)
    places = translation.integers(f"{result}/axes", sorted(order.index(axis) for axis in axes))
    left = [axis for axis in order if axis not in axes]
    after = order if keep else tuple(sorted(left).index(axis) for axis in left)
    target = translation.result(result, after)
    into = target
    if node.op == "ReduceL2":
        kept = [1 if axis in axes else shape[axis] for axis in order if keep or axis not in axes]
        into = translation.between(f"{result}/squared", kept)
    translation.writer.operator(
        REDUCTIONS[node.op], [value, places], [into], "Reducer", keepDims=keep
    )
    if node.op == "ReduceL2":
        translation.writer.operator("SQRT", [into], [target])


@translates("LayerNormalization")
def layer_norm(translation: Translation, node: Node) -> None:
    """Mean and variance over the last axes, then scale and shift (Ba et al. 2016)."""
    if len(node.outputs) > 1 and any(node.outputs[1:]):
        raise UsageError(f"{node} gives mean and deviation too; export the model in eval mode")
    rank = len(translation.graph.shape(node.inputs[0]))
    axes = list(range(node.attributes.get("axis", -1) % rank, rank))
    scale = translation.host_constant(node, 1, "the scale")
    shift = np.zeros((), dtype=np.float32)
    if len(node.inputs) > 2 and node.inputs[2]:
        shift = translation.host_constant(node, 2, "the bias")
    wide = [terms.reshape((1,) * (rank - terms.ndim) + terms.shape) for terms in (scale, shift)]
    _normalize(translation, node, axes, wide[0], wide[1])


@translates("InstanceNormalization")
def instance_norm(translation: Translation, node: Node) -> None:
    """Mean and variance over height and width (Ulyanov et al. 2016)."""
    rank = len(translation.graph.shape(node.inputs[0]))
    per_channel = (1, -1) + (1,) * (rank - 2)
    scale = translation.host_constant(node, 1, "the scale").reshape(per_channel)
    shift = translation.host_constant(node, 2, "the bias").reshape(per_channel)
    _normalize(translation, node, list(range(2, rank)), scale, shift)


def _normalize(
    translation: Translation, node: Node, axes: list[int], scale: Array, shift: Array
) -> None:
    """(x - mean) / sqrt(variance + epsilon) * scale + shift, mean and variance over axes."""
    source, result = node.inputs[0], node.outputs[0]
    shape = translation.graph.shape(source)
    rank = len(shape)
    order = translation.order(source)
    if axes == [rank - 1] and order[-1] != rank - 1:
        order = onnx_order(rank)  # what follows a layer norm reads features, too
    stored = tuple(shape[axis] for axis in order)
    reduced = tuple(1 if axis in axes else shape[axis] for axis in order)
    places = translation.integers(f"{result}/axes", sorted(order.index(axis) for axis in axes))

    def mean(name: str, value: int) -> int:
        into = translation.between(f"{result}/{name}", reduced)
        translation.writer.operator("MEAN", [value, places], [into], "Reducer", keepDims=True)
        return into

    value = translation.tensor(source, order)
    whole = Formula(translation, result, stored)
    small = Formula(translation, f"{result}/deviation", reduced)
    centred = whole("SUB", value, mean("mean", value))
    variance = mean("variance", whole("SQUARE", centred))
    inverse = small("RSQRT", small("ADD", variance, float(node.attributes.get("epsilon", 1e-5))))
    steps = [("MUL", inverse)]
    if np.any(scale != 1):
        steps.append(("MUL", _terms(translation, f"{result}/scale", scale, order)))
    if np.any(shift != 0):
        steps.append(("ADD", _terms(translation, f"{result}/shift", shift, order)))
    target = translation.result(result, order)
    for index, (kind, terms) in enumerate(steps):
        into = target if index == len(steps) - 1 else None
        centred = whole(kind, centred, terms, into=into)


def _terms(translation: Translation, name: str, terms: Array, order: Order) -> int:
    return translation.constant(name, terms.transpose(order))


@translates("Softmax", "LogSoftmax")
def softmax(translation: Translation, node: Node) -> None:
    """SOFTMAX or LOG_SOFTMAX, its axis stored last."""
    source, result = node.inputs[0], node.outputs[0]
    shape = translation.graph.shape(source)
    rank = len(shape)
    modern = translation.graph.opset >= FIRST_OPSET_OF_ONE_AXIS_SOFTMAX
    axis = node.attributes.get("axis", -1 if modern else 1) % rank
    if not modern and math.prod(shape[axis + 1 :]) > 1:
        raise UsageError(
            f"{node} runs over axes {axis} to {rank - 1} at once; export with opset 13"
        )
    order = translation.order(source)
    if order[-1] != axis:
        order = (*(other for other in order if other != axis), axis)
    value, target = translation.tensor(source, order), translation.result(result, order)
    if node.op == "Softmax":
        translation.writer.operator("SOFTMAX", [value], [target], "Softmax", beta=1.0)
    else:
        translation.writer.operator("LOG_SOFTMAX", [value], [target], "LogSoftmax")
