"""Operators that put values together, cut or repeat them: only the axis's place matters here."""

from __future__ import annotations

import math

import numpy as np

from ..errors import UsageError
from .graph import Node
from .layout import Order, view_of
from .translation import Translation, translates


@translates("Concat")
def concatenation(translation: Translation, node: Node) -> None:
    """CONCATENATION."""
    shape = translation.graph.shape(node.outputs[0])
    order = translation.common_order(node.inputs, shape)
    translation.writer.operator(
        "CONCATENATION",
        [translation.tensor(name, order) for name in node.inputs],
        [translation.result(node.outputs[0], order)],
        "Concatenation",
        axis=order.index(node.attributes["axis"] % len(shape)),
    )


@translates("Split")
def split(translation: Translation, node: Node) -> None:
    """SPLIT into equal parts, a SLICE for each of others: delegates know no SPLIT_V."""
    source = node.inputs[0]
    rank, order = len(translation.graph.shape(source)), translation.order(source)
    axis = node.attributes.get("axis", 0) % rank
    sizes = [translation.graph.shape(name)[axis] for name in node.outputs]
    if len(set(sizes)) == 1:
        where = translation.integers(f"{node.outputs[0]}/axis", order.index(axis))
        inputs = [where, translation.tensor(source, order)]
        results = [translation.result(name, order) for name in node.outputs]
        translation.writer.operator("SPLIT", inputs, results, "Split", numSplits=len(sizes))
        return
    start = 0
    for name, size in zip(node.outputs, sizes, strict=True):
        _emit_slice(translation, source, order, {axis: (start, size, 1)}, name)
        start += size


def _emit_slice(
    translation: Translation,
    source: str,
    order: Order,
    cuts: dict[int, tuple[int, int, int]],
    result: str,
    label: str | None = None,
) -> int:
    """SLICE, or STRIDED_SLICE: `cuts` has start, size and step for ONNX axes.

    The tensor is the value `result`, or without being one has the name `label`.
    """
    shape = translation.graph.shape(source)
    whole = [cuts.get(axis, (0, shape[axis], 1)) for axis in order]
    begin = translation.integers(f"{result}/begin", [start for start, _, _ in whole])
    inputs = [translation.tensor(source, order), begin]
    if label is None:
        target = translation.result(result, order)
    else:
        target = translation.between(label, [size for _, size, _ in whole])
    if all(step == 1 for _, _, step in whole):
        inputs.append(translation.integers(f"{result}/size", [size for _, size, _ in whole]))
        translation.writer.operator("SLICE", inputs, [target], "Slice")
        return target
    ends = [start + (size - 1) * step + 1 for start, size, step in whole]
    inputs.append(translation.integers(f"{result}/end", ends))
    inputs.append(translation.integers(f"{result}/steps", [step for _, _, step in whole]))
    translation.writer.operator("STRIDED_SLICE", inputs, [target], "StridedSlice")
    return target


@translates("Slice")
def cut(translation: Translation, node: Node) -> None:
    """SLICE, or STRIDED_SLICE; one for slices that follow each other on other axes."""
    cuts = _cuts(translation, node)
    last = node
    while True:
        reader = translation.graph.only_reader(last.outputs[0])
        if reader is None or reader.op != "Slice" or reader.inputs[0] != last.outputs[0]:
            break
        more = _cuts(translation, reader)
        if cuts.keys() & more.keys():
            break
        cuts, last = cuts | more, reader
        translation.absorbed.add(reader)
    source, result = node.inputs[0], last.outputs[0]
    _emit_slice(translation, source, translation.order(source), cuts, result)


def _cuts(translation: Translation, node: Node) -> dict[int, tuple[int, int, int]]:
    """Start, size and step for each axis that a Slice names."""
    shape = translation.graph.shape(node.inputs[0])
    sizes = translation.graph.shape(node.outputs[0])
    starts, steps = translation.setting(node, "starts", 1), translation.setting(node, "steps", 4)
    assert starts is not None
    axes = translation.axes(node, 3) or list(range(len(starts)))
    if steps is None:
        steps = np.ones(len(starts), dtype=np.int64)
    if np.any(steps < 1):
        raise UsageError(f"{node} has steps {steps.tolist()}; only steps forward are covered")
    cuts = {}
    for axis, start, step in zip(axes, starts.tolist(), steps.tolist(), strict=True):
        first = min(max(start + shape[axis] if start < 0 else start, 0), shape[axis])
        cuts[axis] = (first, sizes[axis], step)
    return cuts


@translates("Gather")
def gather(translation: Translation, node: Node) -> None:
    """SLICE where the indices are one or follow each other, else GATHER; they must be constant."""
    source, result = node.inputs[0], node.outputs[0]
    shape = translation.graph.shape(source)
    axis = node.attributes.get("axis", 0) % len(shape)
    indices = translation.host_constant(node, 1, "the index")
    places = [int(place) + shape[axis] * (place < 0) for place in indices.reshape(-1)]
    if any(not 0 <= place < shape[axis] for place in places) or not places:
        raise UsageError(f"{node} has indices {places} on an axis of {shape[axis]}")
    order = translation.order(source)
    between = (*shape[:axis], len(places), *shape[axis + 1 :])
    label = None if between == translation.graph.shape(result) else f"{result}/pieces"
    if places == list(range(places[0], places[0] + len(places))):
        cuts = {axis: (places[0], len(places), 1)}
        tensor = _emit_slice(translation, source, order, cuts, result, label)
    else:
        inputs = [
            translation.tensor(source, order),
            translation.integers(f"{result}/places", places),
        ]
        stored = tuple(between[at] for at in order)
        tensor = translation.between(label, stored) if label else translation.result(result, order)
        place = order.index(axis)
        translation.writer.operator("GATHER", inputs, [tensor], "Gather", axis=place)
    if label:
        view = view_of(tensor, between, order).reshaped(translation.graph.shape(result))
        assert view is not None  # only the axis of size 1 is gone
        translation.describe(result, view)


@translates("Pad")
def pad(translation: Translation, node: Node) -> None:
    """PAD with zeros, PADV2 with another constant, MIRROR_PAD with the image's own edge."""
    mode = node.attributes.get("mode", b"constant").decode()
    if mode not in ("constant", "reflect"):
        raise UsageError(f"{node} pads by {mode}, not by a constant or by reflection")
    if len(node.inputs) > 3 and node.inputs[3]:
        raise UsageError(f"{node} has axes of its own; export with an opset below 18")
    source, result = node.inputs[0], node.outputs[0]
    rank, order = len(translation.graph.shape(source)), translation.order(source)
    pads, fill = translation.setting(node, "pads", 1), translation.setting(node, "value", 2)
    assert pads is not None
    if np.any(pads < 0):
        raise UsageError(f"{node} has negative pads {pads.tolist()}; use a Slice")
    amounts = [(pads[axis], pads[rank + axis]) for axis in order]
    value = translation.tensor(source, order)
    inputs = [value, translation.integers(f"{result}/amounts", amounts)]
    target = translation.result(result, order)
    if mode == "reflect":
        reflect = translation.schema.MirrorPadMode.REFLECT
        translation.writer.operator("MIRROR_PAD", inputs, [target], "MirrorPad", mode=reflect)
    elif fill is None or fill == 0:
        translation.writer.operator("PAD", inputs, [target], "Pad")
    else:
        inputs.append(translation.constant(f"{result}/value", fill.reshape(())))
        translation.writer.operator("PADV2", inputs, [target], "PadV2")


@translates("Expand", "Tile")
def repetition(translation: Translation, node: Node) -> None:
    """BROADCAST_TO or TILE; nothing where the shape stays."""
    source, result = node.inputs[0], node.outputs[0]
    before, after = translation.graph.shape(source), translation.graph.shape(result)
    if math.prod(before) == math.prod(after):
        view = translation.view(source).reshaped(after)
        assert view is not None  # only dimensions of size 1 are added
        translation.describe(result, view)
        return
    order = translation.common_order([source], after)
    value = translation.broadcast(source, order)
    shape = [after[axis] for axis in order]
    if node.op == "Expand":
        inputs = [value, translation.integers(f"{result}/shape", shape)]
        target = translation.result(result, order)
        translation.writer.operator("BROADCAST_TO", inputs, [target], "BroadcastTo", 2)
        return
    times = [after[axis] // before[axis] for axis in order]
    inputs = [value, translation.integers(f"{result}/times", times)]
    translation.writer.operator("TILE", inputs, [translation.result(result, order)], "Tile")
