"""Resizing images: which of TFLite's ways to place pixels gives what ONNX asks for."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..errors import UsageError
from .graph import Array, Node
from .layout import IMAGE_RANK, NHWC
from .translation import Translation, translates

VERSION = 3
PLACEMENTS = ((False, False), (False, True), (True, False))
"""TFLite's flags `align_corners` and `half_pixel_centers`, as they may go together."""

CLOSE = 1e-4
"""Pixels by which places may differ: ONNX's scales are rounded, TFLite's are ratios of sizes."""


@translates("Resize", "Upsample")
def resize(translation: Translation, node: Node) -> None:
    """RESIZE_BILINEAR or RESIZE_NEAREST_NEIGHBOR, if one of its placements is the node's."""
    source, result = node.inputs[0], node.outputs[0]
    before, after = translation.graph.shape(source), translation.graph.shape(result)
    mode = node.attributes.get("mode", b"nearest").decode()
    if len(before) != IMAGE_RANK or before[:2] != after[:2]:
        raise UsageError(f"{node} resizes {before} to {after}; only height and width are covered")
    if mode not in ("nearest", "linear") or node.attributes.get("antialias", 0):
        raise UsageError(f"{node} resizes by {mode}, or smoothly; TFLite has nearest and linear")
    places = [_places(translation, node, axis, before[axis], after[axis], mode) for axis in (2, 3)]
    for align, half in PLACEMENTS:
        own = [_own_places(before[axis], after[axis], align, half, mode) for axis in (2, 3)]
        if all(np.allclose(*pair, atol=CLOSE, rtol=0) for pair in zip(places, own, strict=True)):
            break
    else:
        raise UsageError(
            f"{node} places pixels by {_text(node, 'coordinate_transformation_mode', '')} and "
            f"{_text(node, 'nearest_mode', '')}; TFLite has nothing that gives the same"
        )
    kind, options = "RESIZE_BILINEAR", "ResizeBilinear"
    if mode == "nearest":
        kind, options = "RESIZE_NEAREST_NEIGHBOR", "ResizeNearestNeighbor"
    size = translation.integers(f"{result}/size", after[2:])
    inputs = [translation.tensor(source, NHWC), size]
    target = translation.result(result, NHWC)
    translation.writer.operator(
        kind, inputs, [target], options, VERSION, alignCorners=align, halfPixelCenters=half
    )


def _text(node: Node, name: str, default: str) -> str:
    value: bytes = node.attributes.get(name, default.encode())
    return value.decode()


def _places(
    translation: Translation, node: Node, axis: int, size: int, resized: int, mode: str
) -> Array:
    """The place in the input that ONNX reads for each pixel of the output, along one axis."""
    if node.op == "Upsample" or translation.graph.opset < 11:
        kind, rounding, scales = "asymmetric", "floor", translation.setting(node, "scales", 1)
    else:
        kind = _text(node, "coordinate_transformation_mode", "half_pixel")
        rounding = _text(node, "nearest_mode", "round_prefer_floor")
        scales = translation.setting(node, "scales", 2)
    rank = len(translation.graph.shape(node.inputs[0]))
    scale = resized / size if scales is None or scales.size < rank else float(scales[axis])
    pixel = np.arange(resized, dtype=np.float64)
    if kind == "asymmetric":
        place = pixel / scale
    elif kind == "align_corners":
        place = pixel * (size - 1) / max(resized - 1, 1)
    elif kind == "half_pixel" or (kind == "pytorch_half_pixel" and resized > 1):
        place = (pixel + 0.5) / scale - 0.5
    elif kind == "pytorch_half_pixel":
        place = pixel * 0
    else:
        raise UsageError(f"{node} places pixels by {kind}, which TFLite does not know")
    if mode == "nearest":
        near = np.round(place, 6)
        roundings = {
            "floor": np.floor(near),
            "ceil": np.ceil(near),
            "round_prefer_floor": np.ceil(near - 0.5),
            "round_prefer_ceil": np.floor(near + 0.5),
        }
        place = roundings[rounding]
    return np.asarray(np.clip(place, 0, size - 1))


def _own_places(size: int, resized: int, align: bool, half: bool, mode: str) -> NDArray[np.float64]:
    """The same as TFLite places them."""
    scale = (size - 1) / (resized - 1) if align and resized > 1 else size / resized
    pixel = np.arange(resized, dtype=np.float64)
    if mode == "linear":
        place = (pixel + 0.5) * scale - 0.5 if half else pixel * scale
    else:
        near = np.round((pixel + 0.5 if half else pixel) * scale, 6)
        place = np.floor(near + 0.5) if align else np.floor(near)
    return np.clip(place, 0, size - 1)
