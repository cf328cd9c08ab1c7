"""Operators that move, cut or reduce values: axes and order are what matters here."""

from __future__ import annotations

import math

import numpy as np

from ..errors import UsageError
from .graph import Node, Shape
from .translation import (
    IMAGE_RANK,
    Translation,
    same_order,
    stored_axis,
    stored_order,
    translates,
)

FIRST_OPSET_OF_ONE_AXIS_SOFTMAX = 13


@translates("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Dropout")
def reshape(translation: Translation, node: Node) -> None:
    """RESHAPE, between transpositions where the elements' order differs from ONNX's.

    A flattened image that only a fully connected layer reads stays in stored order: the layer's
    weights take the permutation.
    """
    source, result = node.inputs[0], node.outputs[0]
    before, after = translation.graph.shape(source), translation.graph.shape(result)
    if _shuffled_channels(translation, node):
        return
    value = translation.tensor(source)
    if before == after and result not in translation.graph.outputs:
        translation.alias(result, value)
        return
    if not same_order(before) and _feeds_layer(translation, result, before):
        translation.stored_flat[result] = before[1:]
        before = after
    translation.reshape(result, value, before, after, translation.output(result))


def _shuffled_channels(translation: Translation, node: Node) -> bool:
    """Translate a channel shuffle (ShuffleNet, Zhang et al. 2018), if `node` begins one.

    ONNX has it as (N, a b, H, W) -> (N, a, b, H, W) -> (N, b, a, H, W) -> (N, b a, H, W); where
    channels come last, it needs no other transposition than that of a and b.
    """
    graph = translation.graph
    image, split = graph.shape(node.inputs[0]), graph.shape(node.outputs[0])
    swap = graph.only_reader(node.outputs[0])
    if len(image) != IMAGE_RANK or swap is None or swap.attributes.get("perm") != [0, 2, 1, 3, 4]:
        return False
    merge = graph.only_reader(swap.outputs[0])
    if merge is None or merge.op != "Reshape" or graph.shape(merge.outputs[0]) != image:
        return False
    if split[0] != image[0] or split[3:] != image[2:]:
        return False
    translation.absorbed.update((swap, merge))
    pixels = image[0] * image[2] * image[3]
    first, second = (pixels, *split[1:3]), (pixels, *split[2:0:-1])
    value = translation.tensor(node.inputs[0])
    value = translation.reshape_stored(node.outputs[0], value, first)
    value = translation.transpose_stored(swap.outputs[0], value, (0, 2, 1), second)
    result = merge.outputs[0]
    shape = translation.stored_shape(result)
    translation.reshape_stored(result, value, shape, translation.output(result))
    return True


def _feeds_layer(translation: Translation, name: str, image: Shape) -> bool:
    """Whether a value is an image flattened for one fully connected layer, and nothing else."""
    graph = translation.graph
    reader = graph.only_reader(name)
    return (
        graph.shape(name) == (image[0], math.prod(image[1:]))
        and reader is not None
        and reader.op in ("Gemm", "MatMul")
        and reader.inputs[0] == name
        and reader.inputs[1] in graph.constants
    )


@translates("Transpose")
def transpose(translation: Translation, node: Node) -> None:
    """TRANSPOSE, its axes those of the stored layouts."""
    rank = len(translation.graph.shape(node.inputs[0]))
    axes = node.attributes.get("perm", list(range(rank))[::-1])
    if sorted(axes) != list(range(rank)):
        raise UsageError(f"{node} has axes {axes}, which are no order of {rank} axes")
    stored = [stored_axis(axes[axis], rank) for axis in stored_order(rank)]
    inputs = [
        translation.tensor(node.inputs[0]),
        translation.integers(f"{node.outputs[0]}/axes", stored),
    ]
    result = translation.output(node.outputs[0])
    translation.writer.operator("TRANSPOSE", inputs, [result], "Transpose")


@translates("GlobalAveragePool", "ReduceMean")
def mean(translation: Translation, node: Node) -> None:
    """MEAN; without the reduced axes where a flattening follows, as TensorFlow's models have it."""
    source, result = node.inputs[0], node.outputs[0]
    shape = translation.graph.shape(source)
    rank = len(shape)
    keep = True
    axes = list(range(2, rank))
    if node.op == "ReduceMean":
        keep = bool(node.attributes.get("keepdims", 1))
        given = translation.setting(node, "axes", 1)
        axes = list(range(rank)) if given is None else [int(axis) % rank for axis in given]
    reader = translation.graph.only_reader(result)
    if (
        keep
        and rank == IMAGE_RANK
        and sorted(axes) == [2, 3]
        and reader is not None
        and reader.op in ("Flatten", "Reshape", "Squeeze")
        and translation.graph.shape(reader.outputs[0]) == shape[:2]
    ):
        translation.absorbed.add(reader)
        keep, result = False, reader.outputs[0]
    left = [axis for axis in stored_order(rank) if axis not in axes]
    if not keep and left != sorted(left):
        raise UsageError(f"{node} takes axes {axes} away; use keepdims=1 and a Squeeze after it")
    stored = sorted(stored_axis(axis, rank) for axis in axes)
    inputs = [translation.tensor(source), translation.integers(f"{result}/axes", stored)]
    target = translation.output(result)
    translation.writer.operator("MEAN", inputs, [target], "Reducer", keepDims=keep)


@translates("Concat")
def concatenation(translation: Translation, node: Node) -> None:
    """CONCATENATION."""
    rank = len(translation.graph.shape(node.outputs[0]))
    translation.writer.operator(
        "CONCATENATION",
        [translation.tensor(name) for name in node.inputs],
        [translation.output(node.outputs[0])],
        "Concatenation",
        axis=stored_axis(node.attributes["axis"], rank),
    )


@translates("Split")
def split(translation: Translation, node: Node) -> None:
    """SPLIT into equal parts, SPLIT_V into others."""
    rank = len(translation.graph.shape(node.inputs[0]))
    axis = node.attributes.get("axis", 0) % rank
    sizes = [translation.graph.shape(name)[axis] for name in node.outputs]
    value = translation.tensor(node.inputs[0])
    where = translation.integers(f"{node.outputs[0]}/axis", stored_axis(axis, rank))
    results = [translation.output(name) for name in node.outputs]
    if len(set(sizes)) == 1:
        inputs, kind, options = [where, value], "SPLIT", "Split"
    else:
        lengths = translation.integers(f"{node.outputs[0]}/sizes", sizes)
        inputs, kind, options = [value, lengths, where], "SPLIT_V", "SplitV"
    translation.writer.operator(kind, inputs, results, options, numSplits=len(sizes))


@translates("Slice")
def cut(translation: Translation, node: Node) -> None:
    """SLICE; only steps of 1 are covered."""
    shape = translation.graph.shape(node.inputs[0])
    sizes = translation.graph.shape(node.outputs[0])
    starts, axes = translation.setting(node, "starts", 1), translation.setting(node, "axes", 3)
    steps = translation.setting(node, "steps", 4)
    assert starts is not None
    if steps is not None and np.any(steps != 1):
        raise UsageError(f"{node} has steps {steps.tolist()}; only steps of 1 are covered")
    begin = [0] * len(shape)
    for axis, start in zip(range(len(starts)) if axes is None else axes, starts, strict=True):
        length = shape[int(axis)]
        begin[int(axis)] = int(np.clip(start + length if start < 0 else start, 0, length))
    order = stored_order(len(shape))
    inputs = [
        translation.tensor(node.inputs[0]),
        translation.integers(f"{node.outputs[0]}/begin", [begin[axis] for axis in order]),
        translation.integers(f"{node.outputs[0]}/size", [sizes[axis] for axis in order]),
    ]
    result = translation.output(node.outputs[0])
    translation.writer.operator("SLICE", inputs, [result], "Slice")


@translates("Pad")
def pad(translation: Translation, node: Node) -> None:
    """PAD with zeros, PADV2 with another constant."""
    if node.attributes.get("mode", b"constant") != b"constant":
        raise UsageError(f"{node} pads by {node.attributes['mode'].decode()}, not by a constant")
    if len(node.inputs) > 3 and node.inputs[3]:
        raise UsageError(f"{node} has axes of its own; export with an opset below 18")
    rank = len(translation.graph.shape(node.inputs[0]))
    pads, fill = translation.setting(node, "pads", 1), translation.setting(node, "value", 2)
    assert pads is not None
    if np.any(pads < 0):
        raise UsageError(f"{node} has negative pads {pads.tolist()}; use a Slice")
    amounts = [(pads[axis], pads[rank + axis]) for axis in stored_order(rank)]
    inputs = [
        translation.tensor(node.inputs[0]),
        translation.integers(f"{node.outputs[0]}/amounts", amounts),
    ]
    result = translation.output(node.outputs[0])
    if fill is None or fill == 0:
        translation.writer.operator("PAD", inputs, [result], "Pad")
    else:
        inputs.append(translation.constant(f"{node.outputs[0]}/value", fill.reshape(())))
        translation.writer.operator("PADV2", inputs, [result], "PadV2")


@translates("Softmax", "LogSoftmax")
def softmax(translation: Translation, node: Node) -> None:
    """SOFTMAX or LOG_SOFTMAX, over the last stored axis: classes, or the channels of an image."""
    shape = translation.graph.shape(node.inputs[0])
    rank = len(shape)
    modern = translation.graph.opset >= FIRST_OPSET_OF_ONE_AXIS_SOFTMAX
    axis = node.attributes.get("axis", -1 if modern else 1) % rank
    flattens = not modern and math.prod(shape[axis + 1 :]) > 1
    if flattens or stored_axis(axis, rank) != rank - 1:
        raise UsageError(f"{node} runs over axis {axis} of {rank}; TFLite's runs over channels")
    value, result = translation.tensor(node.inputs[0]), translation.output(node.outputs[0])
    if node.op == "Softmax":
        translation.writer.operator("SOFTMAX", [value], [result], "Softmax", beta=1.0)
    else:
        translation.writer.operator("LOG_SOFTMAX", [value], [result], "LogSoftmax")
