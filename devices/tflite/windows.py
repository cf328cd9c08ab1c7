"""Windows over images: how TFLite pads them, and pools."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..errors import UsageError
from .graph import Array, Node
from .layout import IMAGE_RANK, NHWC
from .translation import Translation, translates

Pair = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Axis:
    """A window along one axis; `before` and `after` are the padding that ONNX asks for."""

    size: int
    kernel: int
    stride: int
    dilation: int
    before: int
    after: int
    outputs: int

    @property
    def extent(self) -> int:
        """Elements from the first to the last that one window covers."""
        return (self.kernel - 1) * self.dilation + 1

    @property
    def reach(self) -> int:
        """Elements past the end that the last window covers, negative where it stops before."""
        return (self.outputs - 1) * self.stride + self.extent - self.before - self.size

    @property
    def is_valid(self) -> bool:
        """Whether TFLite's VALID gives the same windows."""
        return self.before == 0 and self.reach <= 0

    @property
    def is_same(self) -> bool:
        """Whether TFLite's SAME gives the same windows: it pads the end more than the start."""
        total = max((self.outputs - 1) * self.stride + self.extent - self.size, 0)
        return self.outputs == math.ceil(self.size / self.stride) and self.before == total // 2

    def counts(self, include_padding: bool) -> Array:
        """For each window, how many of its elements an average divides by."""
        low = -self.before if include_padding else 0
        high = self.size + (self.after if include_padding else 0)
        starts = np.arange(self.outputs) * self.stride - self.before
        covered = starts[:, None] + np.arange(self.kernel) * self.dilation
        counts: Array = ((covered >= low) & (covered < high)).sum(axis=1)
        return counts


def window_axes(translation: Translation, node: Node, kernel: Pair) -> tuple[Axis, Axis]:
    """The windows of a convolution or pool along height and width."""
    inputs = translation.graph.shape(node.inputs[0])
    outputs = translation.graph.shape(node.outputs[0])
    if len(inputs) != IMAGE_RANK:
        raise UsageError(f"{node} reads a value of shape {inputs}; only 2-D windows are covered")
    attributes = node.attributes
    strides = attributes.get("strides", [1, 1])
    dilations = attributes.get("dilations", [1, 1])
    pads = attributes.get("pads", [0, 0, 0, 0])
    automatic = attributes.get("auto_pad", b"NOTSET").decode()
    axes = []
    for index in range(2):
        size, result = inputs[2 + index], outputs[2 + index]
        before, after = pads[index], pads[2 + index]
        if automatic.startswith("SAME"):
            extent = (kernel[index] - 1) * dilations[index] + 1
            total = max((result - 1) * strides[index] + extent - size, 0)
            before = total // 2 if automatic == "SAME_UPPER" else total - total // 2
            after = total - before
        step, dilation = strides[index], dilations[index]
        axes.append(Axis(size, kernel[index], step, dilation, before, after, result))
    return axes[0], axes[1]


def nhwc_shape(translation: Translation, name: str) -> tuple[int, ...]:
    """The shape that an image is stored with."""
    shape = translation.graph.shape(name)
    return tuple(shape[axis] for axis in NHWC)


def padded(
    translation: Translation,
    node: Node,
    axes: tuple[Axis, Axis],
    *,
    fill: float = 0.0,
    same: bool = True,
) -> tuple[int, int]:
    """The input of a window operator and its padding scheme, padded explicitly where needed.

    SAME is used where it gives the same windows, and `same` allows it. The explicit padding stops
    where the last window does: what ONNX pads beyond is never read.
    """
    schemes = translation.schema.Padding
    value = translation.tensor(node.inputs[0], NHWC)
    if all(axis.is_valid for axis in axes):
        return value, schemes.VALID
    if same and all(axis.is_same for axis in axes):
        return value, schemes.SAME
    height, width = axes
    rows, columns = (height.before, max(height.reach, 0)), (width.before, max(width.reach, 0))
    batch, channels = translation.graph.shape(node.inputs[0])[:2]
    name = f"{node.outputs[0]}/padded"
    result = translation.between(
        name, (batch, height.size + sum(rows), width.size + sum(columns), channels)
    )
    amounts = translation.integers(f"{name}/amounts", [(0, 0), rows, columns, (0, 0)])
    if fill == 0:
        translation.writer.operator("PAD", [value, amounts], [result], "Pad")
    else:
        filled = translation.constant(f"{name}/value", np.float32(fill))
        translation.writer.operator("PADV2", [value, amounts, filled], [result], "PadV2")
    return result, schemes.VALID


@translates("MaxPool", "AveragePool")
def pool(translation: Translation, node: Node) -> None:
    """MAX_POOL_2D or AVERAGE_POOL_2D, the latter corrected where it counts other elements."""
    kernel = tuple(node.attributes["kernel_shape"])
    if any(step != 1 for step in node.attributes.get("dilations", [])):
        raise UsageError(f"{node} is dilated; TFLite has no such pool")
    if len(node.outputs) > 1 and node.outputs[1]:
        raise UsageError(f"{node} gives indices too; TFLite's MAX_POOL_2D has none")
    if len(kernel) != 2:
        raise UsageError(f"{node} has a window of shape {kernel}; only 2-D ones are covered")
    axes = window_axes(translation, node, kernel)
    inside = np.outer(*(axis.counts(False) for axis in axes))
    if not np.all(inside):
        raise UsageError(f"{node} has a window outside of its input; export with ceil_mode=0")
    result = node.outputs[0]
    if node.op == "MaxPool":
        fill = 0.0 if _not_negative(translation, node.inputs[0]) else np.finfo(np.float32).min
        value, padding = padded(translation, node, axes, fill=float(fill))
        _emit_pool(translation, "MAX_POOL_2D", axes, value, padding, result)
        return
    # TFLite's SAME leaves the padding out of its count, explicit padding does not
    divisors = np.outer(
        *(axis.counts(node.attributes.get("count_include_pad", 0)) for axis in axes)
    )
    value, padding = padded(translation, node, axes, same=np.array_equal(divisors, inside))
    correction = math.prod(kernel) / divisors
    if padding == translation.schema.Padding.SAME or np.all(correction == 1):
        _emit_pool(translation, "AVERAGE_POOL_2D", axes, value, padding, result)
        return
    sums = translation.between(f"{result}/sums", nhwc_shape(translation, result))
    _emit_pool(translation, "AVERAGE_POOL_2D", axes, value, padding, sums)
    factors = translation.constant(f"{result}/correction", correction[None, :, :, None])
    translation.writer.operator("MUL", [sums, factors], [translation.result(result, NHWC)], "Mul")


def _not_negative(translation: Translation, name: str) -> bool:
    """Whether a value comes from an activation that gives nothing below 0."""
    source = translation.graph.sources.get(name)
    bounds = translation.clip_bounds(source) if source is not None else None
    return bounds is not None and bounds[0] >= 0


def _emit_pool(
    translation: Translation,
    kind: str,
    axes: tuple[Axis, Axis],
    value: int,
    padding: int,
    result: str | int,
) -> None:
    activation = translation.schema.ActivationFunctionType.NONE
    if isinstance(result, str):
        activation, result = translation.fused_activation(result)
        result = translation.result(result, NHWC)
    height, width = axes
    translation.writer.operator(
        kind,
        [value],
        [result],
        "Pool2D",
        padding=padding,
        strideH=height.stride,
        strideW=width.stride,
        filterHeight=height.kernel,
        filterWidth=width.kernel,
        fusedActivationFunction=activation,
    )
