"""Convolutions: weights, and what is folded into them."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import UsageError
from .arithmetic import batch_norm_terms
from .elementwise import is_hard_gate
from .graph import Array, Node
from .layout import IMAGE_RANK, NHWC
from .translation import Translation, translates
from .windows import Axis, Pair, nhwc_shape, padded, window_axes

GROUPED_VERSION = 6
DILATED_DEPTHWISE_VERSION = 2


@translates("Conv")
def convolution(translation: Translation, node: Node) -> None:
    """CONV_2D or DEPTHWISE_CONV_2D, with batch norm, hard sigmoid's sum and activation folded."""
    weight, bias = _parameters(translation, node)
    axes = window_axes(translation, node, (weight.shape[2], weight.shape[3]))
    value, padding = padded(translation, node, axes)
    result = node.outputs[0]
    reader = translation.graph.only_reader(result)
    if reader is not None and reader.op == "BatchNormalization" and reader.inputs[0] == result:
        scale, shift = batch_norm_terms(translation, reader)
        weight, bias = weight * scale[:, None, None, None], bias * scale + shift
        translation.absorbed.add(reader)
        result = reader.outputs[0]
        reader = translation.graph.only_reader(result)
    if reader is not None and is_hard_gate(reader):
        # hard_sigmoid(x) = relu6(x + 3) / 6; the sum goes into the bias
        translation.absorbed.add(reader)
        gate = translation.between(f"{result}/relu6", nhwc_shape(translation, result))
        relu6 = translation.schema.ActivationFunctionType.RELU6
        _emit(translation, node, axes, (value, gate), padding, relu6, weight, bias + np.float32(3))
        sixth = translation.constant("sixth", np.float32(1 / 6))
        target = translation.result(reader.outputs[0], NHWC)
        translation.writer.operator("MUL", [gate, sixth], [target], "Mul")
        return
    activation, result = translation.fused_activation(result)
    ends = (value, translation.result(result, NHWC))
    _emit(translation, node, axes, ends, padding, activation, weight, bias)


def _parameters(translation: Translation, node: Node) -> tuple[Array, Array]:
    """Weight and bias of a convolution, as ONNX has them."""
    weight = translation.host_constant(node, 1, "the weight")
    if weight.ndim != IMAGE_RANK:
        raise UsageError(f"{node} has a weight of shape {weight.shape}; only 2-D ones are covered")
    bias = np.zeros(weight.shape[0], dtype=np.float32)
    if len(node.inputs) > 2 and node.inputs[2]:
        bias = translation.host_constant(node, 2, "the bias")
    shape, groups = translation.graph.shape(node.inputs[0]), node.attributes.get("group", 1)
    fits = shape[1] == weight.shape[1] * groups and weight.shape[0] % groups == 0
    if not fits or bias.shape != weight.shape[:1]:
        raise UsageError(
            f"{node} of {groups} groups has a weight of shape {weight.shape} and a bias of shape "
            f"{bias.shape}, which don't fit its input of shape {shape}"
        )
    return weight, bias


def _emit(
    translation: Translation,
    node: Node,
    axes: tuple[Axis, Axis],
    ends: Pair,
    padding: int,
    activation: int,
    weight: Array,
    bias: Array,
) -> None:
    height, width = axes
    groups = node.attributes.get("group", 1)
    channels = translation.graph.shape(node.inputs[0])[1]
    settings: dict[str, Any] = {
        "padding": padding,
        "strideH": height.stride,
        "strideW": width.stride,
        "dilationHFactor": height.dilation,
        "dilationWFactor": width.dilation,
        "fusedActivationFunction": activation,
    }
    if groups > 1 and groups == channels:
        kind, options, version = "DEPTHWISE_CONV_2D", "DepthwiseConv2D", 1
        weight = weight.transpose(1, 2, 3, 0)
        settings["depthMultiplier"] = weight.shape[3] // channels
        if height.dilation > 1 or width.dilation > 1:
            version = DILATED_DEPTHWISE_VERSION
    else:
        kind, options, version = "CONV_2D", "Conv2D", GROUPED_VERSION if groups > 1 else 1
        weight = weight.transpose(0, 2, 3, 1)
    inputs = [
        ends[0],
        translation.constant(node.inputs[1], weight),
        translation.constant(f"{node.outputs[0]}/bias", bias),
    ]
    translation.writer.operator(kind, inputs, [ends[1]], options, version, **settings)
