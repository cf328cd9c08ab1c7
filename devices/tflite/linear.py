"""Fully connected layers."""

from __future__ import annotations

import numpy as np

from ..errors import UsageError
from .graph import Array, Node
from .translation import IMAGE_RANK, Translation, translates

KEEP_DIMENSIONS_VERSION = 5


@translates("Gemm")
def gemm(translation: Translation, node: Node) -> None:
    """FULLY_CONNECTED; ONNX's factors are taken into weight and bias."""
    attributes = node.attributes
    if attributes.get("transA", 0):
        raise UsageError(f"{node} transposes its input; put a Transpose before it instead")
    weight = translation.host_constant(node, 1, "the weight") * attributes.get("alpha", 1.0)
    if not attributes.get("transB", 0):
        weight = weight.T
    bias = np.zeros(weight.shape[0], dtype=np.float32)
    if len(node.inputs) > 2 and node.inputs[2]:
        given = translation.host_constant(node, 2, "the bias")
        if not _is_bias(given, weight.shape[0]):
            raise UsageError(f"{node} has a bias of shape {given.shape}; one for each output fits")
        bias = bias + given.reshape(-1) * attributes.get("beta", 1.0)
    _emit(translation, node, weight, bias, node.outputs[0])


@translates("MatMul")
def matmul(translation: Translation, node: Node) -> None:
    """FULLY_CONNECTED by a constant matrix; the sum with a constant after it is its bias."""
    weight = translation.host_constant(node, 1, "the matrix")
    rank = len(translation.graph.shape(node.inputs[0]))
    if weight.ndim != 2 or rank == IMAGE_RANK or rank < 2:
        raise UsageError(
            f"{node} multiplies values of {rank} and {weight.ndim} dimensions; covered is a value "
            "of 2 or 3 by a matrix"
        )
    result, bias = node.outputs[0], np.zeros(weight.shape[1], dtype=np.float32)
    reader = translation.graph.only_reader(result)
    if reader is not None and reader.op == "Add":
        other = reader.inputs[1] if reader.inputs[0] == result else reader.inputs[0]
        given = translation.graph.constants.get(other)
        if given is not None and given.ndim <= rank and _is_bias(given, weight.shape[1]):
            bias, result = bias + given.reshape(-1), reader.outputs[0]
            translation.absorbed.add(reader)
    _emit(translation, node, weight.T, bias, result)


def _is_bias(array: Array, outputs: int) -> bool:
    """Whether an array, when added, adds one number for each output."""
    return array.size == 1 or (array.size == outputs and array.shape[-1] == outputs)


def _emit(translation: Translation, node: Node, weight: Array, bias: Array, result: str) -> None:
    """Write the layer; `weight` is (outputs, inputs) in ONNX's order of inputs."""
    source = node.inputs[0]
    shape = translation.graph.shape(source)
    if shape[-1] != weight.shape[1]:
        raise UsageError(f"{node} reads {weight.shape[1]} features; its input has shape {shape}")
    if source in translation.stored_flat:
        image = weight.reshape(-1, *translation.stored_flat[source])
        weight = image.transpose(0, 2, 3, 1).reshape(weight.shape)
    activation, result = translation.fused_activation(result)
    inputs = [
        translation.tensor(source),
        translation.constant(node.inputs[1], weight),
        translation.constant(f"{node.outputs[0]}/bias", bias),
    ]
    keep = len(shape) > 2
    translation.writer.operator(
        "FULLY_CONNECTED",
        inputs,
        [translation.output(result)],
        "FullyConnected",
        KEEP_DIMENSIONS_VERSION if keep else 1,
        keepNumDims=keep,
        fusedActivationFunction=activation,
    )
