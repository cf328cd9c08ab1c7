"""Sums, products and the like of several values, broadcast; batch norms apart from convolutions."""

from __future__ import annotations

import numpy as np

from ..errors import UsageError
from .formula import FUSING, OPTIONS
from .graph import Array, Node
from .layout import View
from .translation import Translation, translates

ARITHMETIC = {
    "Add": "ADD",
    "Div": "DIV",
    "Max": "MAXIMUM",
    "Min": "MINIMUM",
    "Mul": "MUL",
    "Sub": "SUB",
    "Sum": "ADD",
}


@translates(*ARITHMETIC)
def arithmetic(translation: Translation, node: Node) -> None:
    """Two values, broadcast, or any number of them one after the other."""
    kind, name = ARITHMETIC[node.op], node.outputs[0]
    settings, target = {}, name
    if kind in FUSING:
        settings["fusedActivationFunction"], target = translation.fused_activation(name)
    view = _raw(translation, node)
    if view is not None:
        operands = [_raw_operand(translation, source) for source in node.inputs]
        stored = view.stored
        result = translation.result_like(target, view)
    else:
        shape = translation.graph.shape(name)
        order = translation.common_order(node.inputs, shape)
        operands = [translation.broadcast(source, order) for source in node.inputs]
        stored = tuple(shape[axis] for axis in order)
        result = translation.result(target, order)
    if len(operands) == 1:
        raise UsageError(f"{node} has one input; leave it out of the model")
    left = operands[0]
    for index, right in enumerate(operands[1:], 1):
        if index == len(operands) - 1:
            translation.writer.operator(kind, [left, right], [result], OPTIONS[kind], **settings)
            return
        partial = translation.between(f"{name}/{index}", stored)
        translation.writer.operator(kind, [left, right], [partial], OPTIONS[kind])
        left = partial


def _raw(translation: Translation, node: Node) -> View | None:
    """How all values of a node lie, where it can take them so: alike, but for constant numbers."""
    views = []
    for name in node.inputs:
        constant = translation.graph.constants.get(name)
        if constant is None:
            views.append(translation.view(name))
        elif constant.size != 1:
            return None
    grids = {(view.stored, view.atoms, view.axes) for view in views}
    shape = translation.graph.shape(node.outputs[0])
    return views[0] if len(grids) == 1 and views[0].shape == shape else None


def _raw_operand(translation: Translation, name: str) -> int:
    constant = translation.graph.constants.get(name)
    if constant is None:
        return translation.view(name).tensor
    return translation.constant(name, constant.reshape(()))


@translates("BatchNormalization")
def batch_norm(translation: Translation, node: Node) -> None:
    """MUL and ADD, where no convolution before it could take it into its weights."""
    source, result = node.inputs[0], node.outputs[0]
    shape = translation.graph.shape(source)
    order = translation.order(source)
    stored = tuple(shape[axis] for axis in order)
    per_channel = (1, -1) + (1,) * (len(shape) - 2)
    scale, shift = (
        terms.reshape(per_channel).transpose(order) for terms in batch_norm_terms(translation, node)
    )
    scaled = translation.between(f"{result}/scaled", stored)
    inputs = [translation.tensor(source, order), translation.constant(f"{result}/scale", scale)]
    translation.writer.operator("MUL", inputs, [scaled], "Mul")
    shifted = translation.constant(f"{result}/shift", shift)
    activation, result = translation.fused_activation(result)
    target = translation.result(result, order)
    translation.writer.operator(
        "ADD", [scaled, shifted], [target], "Add", fusedActivationFunction=activation
    )


def batch_norm_terms(translation: Translation, node: Node) -> tuple[Array, Array]:
    """What a batch norm multiplies by and then adds, for each channel."""
    if node.attributes.get("training_mode", 0):
        raise UsageError(f"{node} is in training mode; export the model in eval mode")
    names = ("scale", "bias", "mean", "variance")
    scale, bias, mean, variance = (
        translation.host_constant(node, index + 1, f"the {name}").astype(np.float64)
        for index, name in enumerate(names)
    )
    channels = translation.graph.shape(node.inputs[0])[1]
    if any(terms.shape != (channels,) for terms in (scale, bias, mean, variance)):
        raise UsageError(f"{node} has parameters that don't fit its {channels} channels")
    spread = variance + node.attributes.get("epsilon", 1e-5)
    if not np.all(spread > 0):
        raise UsageError(f"{node} has a variance that is not positive")
    factor = scale / np.sqrt(spread)
    return factor, bias - mean * factor
