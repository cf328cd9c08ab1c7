"""Matrix products: fully connected layers, and products of two values."""

from __future__ import annotations

import numpy as np

from ..errors import UsageError
from .graph import Array, Node
from .layout import Order, onnx_order
from .translation import Translation, translates

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
    """FULLY_CONNECTED by a constant matrix, and its bias; else BATCH_MATMUL."""
    ranks = [len(translation.graph.shape(name)) for name in node.inputs]
    if min(ranks) < 2:
        raise UsageError(f"{node} multiplies values of {ranks} dimensions; each needs 2 or more")
    weight = translation.graph.constants.get(node.inputs[1])
    if weight is None or weight.ndim != 2 or node.inputs[0] in translation.graph.constants:
        _emit_product(translation, node)
        return
    result, bias = node.outputs[0], np.zeros(weight.shape[1], dtype=np.float32)
    reader = translation.graph.only_reader(result)
    if reader is not None and reader.op == "Add":
        other = reader.inputs[1] if reader.inputs[0] == result else reader.inputs[0]
        given = translation.graph.constants.get(other)
        if given is not None and given.ndim <= ranks[0] and _is_bias(given, weight.shape[1]):
            bias, result = bias + given.reshape(-1), reader.outputs[0]
            translation.absorbed.add(reader)
    _emit(translation, node, weight.T, bias, result)


def _is_bias(array: Array, outputs: int) -> bool:
    """Whether an array, when added, adds one number for each output."""
    return array.size == 1 or (array.size == outputs and array.shape[-1] == outputs)


def _emit(translation: Translation, node: Node, weight: Array, bias: Array, result: str) -> None:
    """Write the layer; `weight` is (outputs, inputs) in ONNX's order of inputs."""
    shape = translation.graph.shape(node.inputs[0])
    if shape[-1] != weight.shape[1]:
        raise UsageError(f"{node} reads {weight.shape[1]} features; its input has shape {shape}")
    value, order, weight = _features_last(translation, node, weight)
    activation, result = translation.fused_activation(result)
    inputs = [
        value,
        translation.constant(node.inputs[1], weight),
        translation.constant(f"{node.outputs[0]}/bias", bias),
    ]
    keep = len(shape) > 2
    translation.writer.operator(
        "FULLY_CONNECTED",
        inputs,
        [translation.result(result, order)],
        "FullyConnected",
        KEEP_DIMENSIONS_VERSION if keep else 1,
        keepNumDims=keep,
        fusedActivationFunction=activation,
    )


def _features_last(translation: Translation, node: Node, weight: Array) -> tuple[int, Order, Array]:
    """A layer's input with features innermost, its order, and the weight for it.

    Features that lie innermost but in another order, as those of a flattened image, stay so: the
    weight takes the permutation.
    """
    source = node.inputs[0]
    rank = len(translation.graph.shape(source))
    view = translation.view(source)
    features = view.axes[-1]
    leading = view.sequence(range(rank - 1))
    innermost = set(features) == set(range(len(leading), len(view.atoms)))
    if len(features) > 1 and innermost and leading == list(range(len(leading))):
        sizes = [view.atoms[atom] for atom in features]
        lying = [features.index(atom) for atom in sorted(features)]
        image = weight.reshape(-1, *sizes).transpose(0, *(1 + place for place in lying))
        value = view.tensor
        if view.stored != view.shape:
            value = translation.reshape_stored(f"{source}/flat", value, view.shape)
        return value, onnx_order(rank), image.reshape(weight.shape)
    order = translation.order(source)
    if order[-1] != rank - 1:
        order = onnx_order(rank)
    return translation.tensor(source, order), order, weight


def _emit_product(translation: Translation, node: Node) -> None:
    """BATCH_MATMUL; its second operand may be stored transposed."""
    left, right = node.inputs
    result = node.outputs[0]
    rank = len(translation.graph.shape(result))
    order = translation.order(left)
    if len(order) != rank or order[-2:] != (rank - 2, rank - 1):
        order = onnx_order(rank)
    turned = (*order[:-2], rank - 1, rank - 2)
    adjoint = len(translation.graph.shape(right)) == rank and _lies_turned(
        translation, right, order, turned
    )
    operands = [
        translation.broadcast(left, order),
        translation.broadcast(right, turned if adjoint else order),
    ]
    translation.writer.operator(
        "BATCH_MATMUL",
        operands,
        [translation.result(result, order)],
        "BatchMatMul",
        adjX=False,
        adjY=adjoint,
    )


def _lies_turned(translation: Translation, name: str, order: Order, turned: Order) -> bool:
    """Whether a matrix is there with rows and columns swapped, and not as it is."""
    if name in translation.graph.constants:
        return False
    view = translation.view(name)
    return view.lies_in(turned) and not view.lies_in(order)
