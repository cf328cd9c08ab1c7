"""Activations and arithmetic, element by element."""

from __future__ import annotations

import math

import numpy as np

from ..errors import UsageError
from .graph import Array, Node, Shape
from .translation import IMAGE_RANK, Translation, stored_array, translates

ARITHMETIC = {
    "Add": ("ADD", "Add"),
    "Sub": ("SUB", "Sub"),
    "Mul": ("MUL", "Mul"),
    "Div": ("DIV", "Div"),
    "Max": ("MAXIMUM", "MaximumMinimum"),
    "Min": ("MINIMUM", "MaximumMinimum"),
}
SIMPLE = {
    "Sigmoid": ("LOGISTIC", ""),
    "Tanh": ("TANH", ""),
    "HardSwish": ("HARD_SWISH", "HardSwish"),
    "Exp": ("EXP", "Exp"),
    "Sqrt": ("SQRT", ""),
    "Neg": ("NEG", "Neg"),
    "Abs": ("ABS", "Abs"),
}
CLIPS: dict[tuple[float, float], str] = {
    (0, math.inf): "RELU",
    (0, 6): "RELU6",
    (-1, 1): "RELU_N1_TO_1",
    (0, 1): "RELU_0_TO_1",
}


@translates(*SIMPLE)
def simple(translation: Translation, node: Node) -> None:
    """An operator that TFLite has as it is."""
    kind, options = SIMPLE[node.op]
    value = translation.tensor(node.inputs[0])
    translation.writer.operator(kind, [value], [translation.output(node.outputs[0])], options)


@translates("LeakyRelu", "Elu", "Gelu")
def curve(translation: Translation, node: Node) -> None:
    """LEAKY_RELU, ELU or GELU, with ONNX's parameter."""
    value = translation.tensor(node.inputs[0])
    result = translation.output(node.outputs[0])
    if node.op == "LeakyRelu":
        alpha = node.attributes.get("alpha", 0.01)
        translation.writer.operator("LEAKY_RELU", [value], [result], "LeakyRelu", alpha=alpha)
    elif node.op == "Gelu":
        approximate = node.attributes.get("approximate", b"none") == b"tanh"
        translation.writer.operator("GELU", [value], [result], "Gelu", approximate=approximate)
    elif node.attributes.get("alpha", 1.0) == 1.0:
        translation.writer.operator("ELU", [value], [result])
    else:
        raise UsageError(f"{node} has alpha {node.attributes['alpha']}; TFLite's ELU has 1")


@translates("PRelu")
def parametric_relu(translation: Translation, node: Node) -> None:
    """PRELU; its slope has one dimension less than its input."""
    shape = translation.graph.shape(node.inputs[0])
    slope = broadcast_array(translation.host_constant(node, 1, "the slope"), len(shape))
    if slope.shape[0] != 1:
        raise UsageError(f"{node} has a slope for each image of the batch; TFLite has no such one")
    inputs = [
        translation.tensor(node.inputs[0]),
        translation.constant(node.inputs[1], stored_array(slope)[0]),
    ]
    translation.writer.operator("PRELU", inputs, [translation.output(node.outputs[0])])


@translates("Relu", "Clip")
def clip(translation: Translation, node: Node) -> None:
    """RELU, RELU6, RELU_N1_TO_1 or RELU_0_TO_1 where the bounds are theirs, else MAXIMUM, MINIMUM.

    Only those come here that no operator before them could apply itself.
    """
    bounds = translation.clip_bounds(node)
    assert bounds is not None
    value = translation.tensor(node.inputs[0])
    if bounds in CLIPS:
        result = translation.output(node.outputs[0])
        translation.writer.operator(CLIPS[bounds], [value], [result])
        return
    steps = [
        (kind, bound)
        for kind, bound in zip(("MAXIMUM", "MINIMUM"), bounds, strict=True)
        if math.isfinite(bound)
    ]
    if not steps:
        translation.alias(node.outputs[0], value)
    for index, (kind, bound) in enumerate(steps):
        limit = translation.constant(f"{node.outputs[0]}/{kind.lower()}", np.float32(bound))
        if index == len(steps) - 1:
            result = translation.output(node.outputs[0])
        else:
            shape = translation.stored_shape(node.outputs[0])
            result = translation.between(f"{node.outputs[0]}/raised", shape)
        translation.writer.operator(kind, [value, limit], [result], "MaximumMinimum")
        value = result


def is_hard_gate(node: Node) -> bool:
    """Whether a node is relu6(x + 3) / 6, which is what torch calls a hard sigmoid."""
    alpha, beta = node.attributes.get("alpha", 0.2), node.attributes.get("beta", 0.5)
    return node.op == "HardSigmoid" and math.isclose(alpha, 1 / 6, rel_tol=1e-6) and beta == 0.5


@translates("HardSigmoid")
def hard_sigmoid(translation: Translation, node: Node) -> None:
    """max(0, min(1, alpha x + beta)) as relu6(6 alpha x + 6 beta) / 6; HARD_SWISH if x times it."""
    source, result = node.inputs[0], node.outputs[0]
    value = translation.tensor(source)
    reader = translation.graph.only_reader(result)
    if is_hard_gate(node) and reader is not None and reader.op == "Mul" and source in reader.inputs:
        translation.absorbed.add(reader)
        target = translation.output(reader.outputs[0])
        translation.writer.operator("HARD_SWISH", [value], [target], "HardSwish")
        return
    shape = translation.stored_shape(result)
    alpha, beta = node.attributes.get("alpha", 0.2), node.attributes.get("beta", 0.5)
    if not is_hard_gate(node):
        scaled = translation.between(f"{result}/scaled", shape)
        scale = translation.constant(f"{result}/scale", np.float32(6 * alpha))
        translation.writer.operator("MUL", [value, scale], [scaled], "Mul")
        value = scaled
    clipped = translation.between(f"{result}/relu6", shape)
    relu6 = translation.schema.ActivationFunctionType.RELU6
    inputs = [value, translation.constant(f"{result}/offset", np.float32(6 * beta))]
    translation.writer.operator("ADD", inputs, [clipped], "Add", fusedActivationFunction=relu6)
    inputs = [clipped, translation.constant("sixth", np.float32(1 / 6))]
    translation.writer.operator("MUL", inputs, [translation.output(result)], "Mul")


@translates(*ARITHMETIC)
def arithmetic(translation: Translation, node: Node) -> None:
    """Sum, difference, product, quotient, maximum or minimum of two values, broadcast."""
    kind, options = ARITHMETIC[node.op]
    if len(node.inputs) != 2:
        raise UsageError(f"{node} has {len(node.inputs)} inputs; TFLite's {kind} has 2")
    rank = len(translation.graph.shape(node.outputs[0]))
    inputs = [operand(translation, name, rank) for name in node.inputs]
    if options == "MaximumMinimum":
        result = translation.output(node.outputs[0])
        translation.writer.operator(kind, inputs, [result], options)
        return
    activation, name = translation.fused_activation(node.outputs[0])
    result = translation.output(name)
    translation.writer.operator(kind, inputs, [result], options, fusedActivationFunction=activation)


@translates("BatchNormalization")
def batch_norm(translation: Translation, node: Node) -> None:
    """MUL and ADD, where no convolution before it could take it into its weights."""
    rank = len(translation.graph.shape(node.inputs[0]))
    result = node.outputs[0]
    shape = (1,) * (rank - 1) + (-1,) if rank == IMAGE_RANK else (1, -1) + (1,) * (rank - 2)
    scale, shift = (terms.reshape(shape) for terms in batch_norm_terms(translation, node))
    scaled = translation.between(f"{result}/scaled", translation.stored_shape(result))
    inputs = [
        translation.tensor(node.inputs[0]),
        translation.constant(f"{result}/scale", scale),
    ]
    translation.writer.operator("MUL", inputs, [scaled], "Mul")
    shifted = translation.constant(f"{result}/shift", shift)
    activation, result = translation.fused_activation(result)
    target = translation.output(result)
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


def broadcast_array(array: Array, rank: int) -> Array:
    """The array with dimensions of size 1 in front, up to `rank`."""
    return array.reshape((1,) * (rank - array.ndim) + array.shape)


def operand(translation: Translation, name: str, rank: int) -> int:
    """The tensor of a value that is broadcast to a rank: images need all four dimensions."""
    shape: Shape = translation.graph.shape(name)
    if rank != IMAGE_RANK or len(shape) in (0, rank):
        return translation.tensor(name)
    if name in translation.graph.constants:
        array = broadcast_array(translation.graph.constants[name], rank)
        return translation.constant(name, stored_array(array))
    whole = (1,) * (rank - len(shape)) + shape
    return translation.reshape(name, translation.tensor(name), shape, whole)
