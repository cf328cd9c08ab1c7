"""ONNX operations that move values and change shapes, as calls on torch tensors. Needs torch."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from onnx import helper, numpy_helper
from torch import Tensor
from torch.nn import functional

from .node import Call, Node, torch_pads


def _reshape(node: Node) -> Call:
    shape, literal_zero = node.constant(1), node.attribute("allowzero", 0)

    def call(value: Tensor, *_: Tensor) -> Tensor:
        return value.reshape(
            [
                value.shape[axis] if size == 0 and not literal_zero else size
                for axis, size in enumerate(shape)
            ]
        )

    return call


def _flatten(node: Node) -> Call:
    axis = node.attribute("axis", 1)
    return lambda value: value.reshape(math.prod(value.shape[:axis]), math.prod(value.shape[axis:]))


def _transpose(node: Node) -> Call:
    order = node.attribute("perm")
    return lambda value: value.permute(order or list(reversed(range(value.ndim))))


def _squeeze(node: Node) -> Call:
    axes = node.axes()
    return lambda value, *_: value.squeeze() if axes is None else value.squeeze(tuple(axes))


def _unsqueeze(node: Node) -> Call:
    axes = node.axes() or []

    def call(value: Tensor, *_: Tensor) -> Tensor:
        rank = value.ndim + len(axes)
        for axis in sorted(axis % rank for axis in axes):
            value = value.unsqueeze(axis)
        return value

    return call


def _split(node: Node) -> Call:
    axis, sizes = node.attribute("axis", 0), node.constant(1)
    count = len(node.outputs)

    def call(value: Tensor, *_: Tensor) -> Any:
        return torch.split(value, sizes or math.ceil(value.shape[axis] / count), axis)

    return call


def _slice(node: Node) -> Call:
    starts, ends = node.constant(1), node.constant(2)
    axes, steps = node.constant(3, list(range(len(starts)))), node.constant(4, [1] * len(starts))
    if min(steps) < 1:
        raise node.refused(f"steps is {steps}")

    def call(value: Tensor, *_: Tensor) -> Tensor:
        parts = [slice(None)] * value.ndim
        for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
            parts[axis] = slice(start, end, step)
        return value[tuple(parts)]

    return call


def _pad(node: Node) -> Call:
    modes = {"constant": "constant", "reflect": "reflect", "edge": "replicate"}
    mode = node.attribute("mode", "constant")
    if mode not in modes or node.constant(3) is not None:
        raise node.refused(f"mode is {mode}, or only some axes are padded")
    pads, filling = node.constant(1), node.constant(2, 0)

    def call(value: Tensor, *_: Tensor) -> Tensor:
        ordered = torch_pads(pads)
        if mode == "constant":
            return functional.pad(value, ordered, value=filling)
        while len(ordered) > 2 and ordered[-2:] == [0, 0]:
            ordered = ordered[:-2]
        return functional.pad(value, ordered, modes[mode])

    return call


def _gather(node: Node) -> Call:
    axis = node.attribute("axis", 0)

    def call(value: Tensor, indices: Tensor) -> Tensor:
        at, size = axis % value.ndim, value.shape[axis]
        flat = torch.where(indices < 0, indices + size, indices).reshape(-1)
        shape = (*value.shape[:at], *indices.shape, *value.shape[at + 1 :])
        return value.index_select(at, flat).reshape(shape)

    return call


def _resize(node: Node) -> Call:
    mode, scales, sizes = node.attribute("mode", "nearest"), node.constant(2), node.constant(3)
    place = node.attribute("coordinate_transformation_mode", "half_pixel")
    rounding = node.attribute("nearest_mode", "round_prefer_floor")
    known = {
        ("nearest", "asymmetric"): rounding == "floor",
        ("linear", "half_pixel"): True,
        ("linear", "align_corners"): True,
        ("linear", "pytorch_half_pixel"): True,
    }
    axes, aspect = node.attribute("axes"), node.attribute("keep_aspect_ratio_policy", "stretch")
    if not known.get((mode, place)) or axes is not None or aspect != "stretch":
        raise node.refused(f"{mode} with {place} and {rounding}")
    node.require("antialias", 0)

    def call(value: Tensor, *_: Tensor) -> Tensor:
        size = sizes or [
            math.floor(n * scale) for n, scale in zip(value.shape, scales, strict=True)
        ]
        if value.ndim != 4 or list(value.shape[:2]) != size[:2]:
            raise node.refused("it is not over height and width alone")
        if mode == "nearest":
            return functional.interpolate(value, size[2:], mode="nearest")
        corners = place == "align_corners"
        return functional.interpolate(value, size[2:], mode="bilinear", align_corners=corners)

    return call


def _depth_to_space(node: Node) -> Call:
    block, order = node.attribute("blocksize"), node.attribute("mode", "DCR")

    def call(value: Tensor) -> Tensor:
        if order == "CRD":
            return functional.pixel_shuffle(value, block)
        batch, channels, height, width = value.shape
        parts = value.reshape(batch, block, block, channels // block**2, height, width)
        shape = (batch, -1, height * block, width * block)
        return parts.permute(0, 3, 4, 1, 5, 2).reshape(shape)

    return call


def _space_to_depth(node: Node) -> Call:
    block = node.attribute("blocksize")

    def call(value: Tensor) -> Tensor:
        batch, channels, height, width = value.shape
        rows, columns = height // block, width // block
        parts = value.reshape(batch, channels, rows, block, columns, block)
        return parts.permute(0, 3, 5, 1, 2, 4).reshape(batch, -1, rows, columns)

    return call


def _tile(node: Node) -> Call:
    times = node.constant(1)
    return lambda value, *_: value.repeat(times)


def _cast(node: Node) -> Call:
    kind = helper.tensor_dtype_to_np_dtype(node.attribute("to"))
    dtype = getattr(torch, kind.name, None)
    if not isinstance(dtype, torch.dtype):
        raise node.refused(f"to is {kind}")
    return lambda value: value.to(dtype)


def _constant(node: Node) -> Call:
    for name, dtype in (("value_float", torch.float32), ("value_int", torch.int64)):
        for given in (node.attribute(name), node.attribute(f"{name}s")):
            if given is not None:
                tensor = torch.tensor(given, dtype=dtype)
                return lambda: tensor
    value = node.attribute("value")
    if value is None:
        raise node.refused("it is neither a tensor nor numbers")
    tensor = torch.from_numpy(numpy_helper.to_array(value).copy())
    return lambda: tensor


def _constant_of_shape(node: Node) -> Call:
    given = node.attribute("value")
    filling = torch.zeros(1) if given is None else _constant(node)()
    shape = node.constant(0)
    return lambda *_: torch.full(shape, filling.item(), dtype=filling.dtype)


def _expand(node: Node) -> Call:
    shape = node.constant(1)

    def call(value: Tensor, *_: Tensor) -> Tensor:
        rank = max(value.ndim, len(shape))
        asked = [1] * (rank - len(shape)) + shape
        given = [1] * (rank - value.ndim) + list(value.shape)
        return value.expand([max(pair) for pair in zip(asked, given, strict=True)])

    return call


def _shape(node: Node) -> Call:
    start, end = node.attribute("start", 0), node.attribute("end")
    return lambda value: torch.tensor(value.shape[start:end], dtype=torch.int64)


SHAPE_BUILDERS: dict[str, Callable[[Node], Call]] = {
    "Cast": _cast,
    "Concat": lambda node: lambda *values: torch.cat(values, node.attribute("axis")),
    "Constant": _constant,
    "ConstantOfShape": _constant_of_shape,
    "DepthToSpace": _depth_to_space,
    "Expand": _expand,
    "Flatten": _flatten,
    "Gather": _gather,
    "Pad": _pad,
    "Reshape": _reshape,
    "Resize": _resize,
    "Shape": _shape,
    "Slice": _slice,
    "SpaceToDepth": _space_to_depth,
    "Split": _split,
    "Squeeze": _squeeze,
    "Tile": _tile,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
