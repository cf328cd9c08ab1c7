"""Operators that only change shapes: views of what is there, until someone needs them moved."""

from __future__ import annotations

from ..errors import UsageError
from .graph import Node, Shape
from .layout import NHWC, View, onnx_order
from .translation import Translation, translates

FLOAT = 1
"""ONNX's number of the element type float32."""

PIECES = frozenset({"Gather", "Slice", "Split"})


@translates("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Dropout")
def reshape(translation: Translation, node: Node) -> None:
    """No operator of its own, only another shape."""
    shape = translation.graph.shape(node.outputs[0])
    translation.describe(node.outputs[0], reshaped(translation, node.inputs[0], shape))


def reshaped(translation: Translation, name: str, shape: Shape) -> View:
    """A value in another shape; moved into ONNX's order first where it can't be seen as it lies."""
    view = translation.view(name).reshaped(shape)
    if view is None:
        order = onnx_order(len(translation.graph.shape(name)))
        view = translation.view_in(name, order).reshaped(shape)
        assert view is not None
    return view


@translates("Transpose")
def transpose(translation: Translation, node: Node) -> None:
    """No operator of its own, but where all that read it cut it: once is less than once a piece."""
    source, result = node.inputs[0], node.outputs[0]
    rank = len(translation.graph.shape(source))
    axes = node.attributes.get("perm", list(range(rank))[::-1])
    if sorted(axes) != list(range(rank)):
        raise UsageError(f"{node} has axes {axes}, which are no order of {rank} axes")
    translation.describe(result, translation.view(source).transposed(axes))
    readers = translation.graph.readers.get(result, ())
    if len(axes) > len(NHWC) and readers and all(reader.op in PIECES for reader in readers):
        translation.describe(result, translation.view_in(result, onnx_order(rank)))


@translates("Cast")
def cast(translation: Translation, node: Node) -> None:
    """Nothing, for float32 that stays float32."""
    if node.attributes["to"] != FLOAT:
        raise UsageError(f"{node} gives other numbers than float32; export without it")
    translation.describe(node.outputs[0], translation.view(node.inputs[0]))


@translates("DepthToSpace", "SpaceToDepth")
def blocks(translation: Translation, node: Node) -> None:
    """DEPTH_TO_SPACE or SPACE_TO_DEPTH; a view where channels are counted before the block."""
    size = node.attributes["blocksize"]
    batch, channels, height, width = translation.graph.shape(node.inputs[0])
    result = node.outputs[0]
    if node.op == "DepthToSpace" and node.attributes.get("mode", b"DCR") == b"CRD":
        parts = (batch, channels // size**2, size, size, height, width)
        view = reshaped(translation, node.inputs[0], parts).transposed((0, 1, 4, 2, 5, 3))
        whole = view.reshaped(translation.graph.shape(result))
        assert whole is not None
        translation.describe(result, whole)
        return
    kind, options = ("DEPTH_TO_SPACE", "DepthToSpace")
    if node.op == "SpaceToDepth":
        kind, options = ("SPACE_TO_DEPTH", "SpaceToDepth")
    value = translation.tensor(node.inputs[0], NHWC)
    target = translation.result(result, NHWC)
    translation.writer.operator(kind, [value], [target], options, blockSize=size)
