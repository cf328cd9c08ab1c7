"""Transposed convolutions."""

from __future__ import annotations

import numpy as np

from ..errors import UsageError
from .arithmetic import batch_norm_terms
from .graph import Array, Node
from .layout import IMAGE_RANK, NHWC
from .translation import Translation, translates

BIAS_VERSION = 3
ACTIVATION_VERSION = 4
MOST_GROUPS = 16
"""TFLite has no groups here: so many are written side by side, more are refused."""


@translates("ConvTranspose")
def transposed_convolution(translation: Translation, node: Node) -> None:
    """TRANSPOSE_CONV without padding, then a SLICE where ONNX pads.

    Dilation, and what ONNX adds at the end, are zeros in the weights.
    """
    weight, bias = _parameters(translation, node)
    attributes = node.attributes
    shape, result = translation.graph.shape(node.inputs[0]), node.outputs[0]
    size = translation.graph.shape(result)[2:]
    strides = attributes.get("strides", [1, 1])
    weight = _dilated(weight, attributes.get("dilations", [1, 1]))
    starts, full = [], []
    for axis in range(2):
        reach = (shape[2 + axis] - 1) * strides[axis] + weight.shape[2 + axis]
        before = _padding_before(node, axis, reach - size[axis])
        missing = max(before + size[axis] - reach, 0)
        grown = [(0, 0)] * IMAGE_RANK
        grown[2 + axis] = (0, missing)
        weight = np.pad(weight, grown)
        starts.append(before)
        full.append(reach + missing)
    reader = translation.graph.only_reader(result)
    groups = attributes.get("group", 1)
    if reader is not None and reader.op == "BatchNormalization":
        scale, shift = batch_norm_terms(translation, reader)
        per_group = scale.reshape(groups, 1, -1, 1, 1)
        weight = (weight.reshape(groups, -1, *weight.shape[1:]) * per_group).reshape(weight.shape)
        bias = bias * scale + shift
        translation.absorbed.add(reader)
        result = reader.outputs[0]
    cropped = tuple(full) != tuple(size)
    activation = translation.schema.ActivationFunctionType.NONE
    if not cropped and groups == 1:
        activation, result = translation.fused_activation(result)
    whole = (shape[0], *full, weight.shape[1] * groups)
    target = translation.result(result, NHWC)
    into = translation.between(f"{result}/whole", whole) if cropped else target
    value = translation.tensor(node.inputs[0], NHWC)
    settings = {"strideH": strides[0], "strideW": strides[1]}
    settings["fusedActivationFunction"] = activation
    if groups == 1:
        _emit(translation, result, value, into, whole, weight, bias, settings)
    else:
        _emit_groups(translation, node, result, value, into, whole, weight, bias, settings)
    if cropped:
        begin = translation.integers(f"{result}/begin", [0, *starts, 0])
        sizes = translation.integers(f"{result}/size", [shape[0], *size, whole[3]])
        translation.writer.operator("SLICE", [into, begin, sizes], [target], "Slice")


def _parameters(translation: Translation, node: Node) -> tuple[Array, Array]:
    """Weight (inputs, outputs of a group, height, width) and bias."""
    weight = translation.host_constant(node, 1, "the weight")
    groups = node.attributes.get("group", 1)
    if weight.ndim != IMAGE_RANK or weight.shape[0] % groups:
        raise UsageError(f"{node} has a weight of shape {weight.shape}; only 2-D ones are covered")
    if groups > MOST_GROUPS:
        raise UsageError(
            f"{node} has {groups} groups; TFLite has none in transposed convolutions, and at most "
            f"{MOST_GROUPS} are written side by side. Use a Resize and a convolution instead"
        )
    bias = np.zeros(weight.shape[1] * groups, dtype=np.float32)
    if len(node.inputs) > 2 and node.inputs[2]:
        bias = translation.host_constant(node, 2, "the bias")
    return weight, bias


def _padding_before(node: Node, axis: int, total: int) -> int:
    """What ONNX cuts off before the first element; `total` is cut off before and after."""
    automatic = node.attributes.get("auto_pad", b"NOTSET").decode()
    if automatic == "NOTSET" and "output_shape" not in node.attributes:
        pads: list[int] = node.attributes.get("pads", [0, 0, 0, 0])
        return pads[axis]
    if automatic == "VALID":
        return 0
    raise UsageError(
        f"{node} asks for an output shape or for {automatic}, {total} elements less than it "
        "computes; export with explicit pads"
    )


def _dilated(weight: Array, dilations: list[int]) -> Array:
    """The weight with zeros between its elements."""
    if all(step == 1 for step in dilations):
        return weight
    height, width = (
        (size - 1) * step + 1 for size, step in zip(weight.shape[2:], dilations, strict=True)
    )
    wide = np.zeros((*weight.shape[:2], height, width), dtype=weight.dtype)
    wide[:, :, :: dilations[0], :: dilations[1]] = weight
    return wide


def _emit(
    translation: Translation,
    name: str,
    value: int,
    into: int,
    shape: tuple[int, ...],
    weight: Array,
    bias: Array,
    settings: dict[str, int],
) -> None:
    inputs = [
        translation.integers(f"{name}/shape", shape),
        translation.constant(f"{name}/weight", weight.transpose(1, 2, 3, 0)),
        value,
        translation.constant(f"{name}/bias", bias),
    ]
    plain = settings["fusedActivationFunction"] == translation.schema.ActivationFunctionType.NONE
    version = BIAS_VERSION if plain else ACTIVATION_VERSION
    padding = translation.schema.Padding.VALID
    translation.writer.operator(
        "TRANSPOSE_CONV", inputs, [into], "TransposeConv", version, padding=padding, **settings
    )


def _emit_groups(
    translation: Translation,
    node: Node,
    name: str,
    value: int,
    into: int,
    shape: tuple[int, ...],
    weight: Array,
    bias: Array,
    settings: dict[str, int],
) -> None:
    """A SPLIT of the channels, an operator for each group, and a CONCATENATION."""
    groups = node.attributes["group"]
    batch, channels, *image = translation.graph.shape(node.inputs[0])
    part, given = (*shape[:3], shape[3] // groups), (batch, *image, channels // groups)
    values = [translation.between(f"{name}/group{index}", given) for index in range(groups)]
    axis = translation.integers(f"{name}/channels", 3)
    translation.writer.operator("SPLIT", [axis, value], values, "Split", numSplits=groups)
    results = [translation.between(f"{name}/part{index}", part) for index in range(groups)]
    for index in range(groups):
        label = f"{name}/{index}"
        weights = np.split(weight, groups)[index], np.split(bias, groups)[index]
        _emit(translation, label, values[index], results[index], part, *weights, settings)
    translation.writer.operator("CONCATENATION", results, [into], "Concatenation", axis=3)
