"""Functions of one value, element by element: they take it as it lies."""

from __future__ import annotations

import math

import numpy as np

from ..errors import UsageError
from .formula import OPTIONS, Formula
from .graph import Node
from .layout import outer_order
from .translation import Translation, translates

SIMPLE = {
    "Abs": "ABS",
    "Ceil": "CEIL",
    "Cos": "COS",
    "Exp": "EXP",
    "Floor": "FLOOR",
    "HardSwish": "HARD_SWISH",
    "Log": "LOG",
    "Neg": "NEG",
    "Round": "ROUND",
    "Sigmoid": "LOGISTIC",
    "Sin": "SIN",
    "Sqrt": "SQRT",
    "Tanh": "TANH",
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
    kind, view = SIMPLE[node.op], translation.view(node.inputs[0])
    result = translation.result_like(node.outputs[0], view)
    translation.writer.operator(kind, [view.tensor], [result], OPTIONS.get(kind, ""))


@translates("LeakyRelu", "Gelu")
def curve(translation: Translation, node: Node) -> None:
    """LEAKY_RELU or GELU, with ONNX's parameter."""
    view, writer = translation.view(node.inputs[0]), translation.writer
    result = translation.result_like(node.outputs[0], view)
    if node.op == "LeakyRelu":
        alpha = node.attributes.get("alpha", 0.01)
        writer.operator("LEAKY_RELU", [view.tensor], [result], "LeakyRelu", alpha=alpha)
    else:
        approximate = node.attributes.get("approximate", b"none") == b"tanh"
        writer.operator("GELU", [view.tensor], [result], "Gelu", approximate=approximate)


@translates("Elu", "Selu")
def exponential_unit(translation: Translation, node: Node) -> None:
    """ELU where its alpha is 1, else relu(x) + alpha elu(min(x, 0)); for SELU times gamma."""
    view, name = translation.view(node.inputs[0]), node.outputs[0]
    is_scaled = node.op == "Selu"
    alpha = node.attributes.get("alpha", 1.67326319217681884765625 if is_scaled else 1.0)
    gamma = node.attributes.get("gamma", 1.05070102214813232421875 if is_scaled else 1.0)
    formula, value = Formula(translation, name, view.stored), view.tensor
    result = translation.result_like(name, view)
    if alpha == gamma == 1:
        formula("ELU", value, into=result)
        return
    falling = formula("ELU", formula("MINIMUM", value, 0.0))
    parts = formula("MUL", falling, float(alpha * gamma)), formula("RELU", value)
    if gamma != 1:
        parts = parts[0], formula("MUL", parts[1], float(gamma))
    formula("ADD", *parts, into=result)


@translates("Softsign")
def softsign(translation: Translation, node: Node) -> None:
    """x / (1 + |x|)."""
    view, name = translation.view(node.inputs[0]), node.outputs[0]
    formula, value = Formula(translation, name, view.stored), view.tensor
    divisor = formula("ADD", formula("ABS", value), 1.0)
    formula("DIV", value, divisor, into=translation.result_like(name, view))


@translates("PRelu")
def parametric_relu(translation: Translation, node: Node) -> None:
    """PRELU; its slope has one dimension less than its input."""
    source, result = node.inputs[0], node.outputs[0]
    rank = len(translation.graph.shape(source))
    slope = translation.host_constant(node, 1, "the slope")
    slope = slope.reshape((1,) * (rank - slope.ndim) + slope.shape)
    if slope.shape[0] != 1:
        raise UsageError(f"{node} has a slope for each image of the batch; TFLite has no such one")
    order = translation.order(source)
    if order[0] != 0:
        order = outer_order(rank)
    inputs = [
        translation.tensor(source, order),
        translation.constant(node.inputs[1], slope.transpose(order)[0]),
    ]
    translation.writer.operator("PRELU", inputs, [translation.result(result, order)])


@translates("Relu", "Clip")
def clip(translation: Translation, node: Node) -> None:
    """RELU, RELU6, RELU_N1_TO_1 or RELU_0_TO_1 where the bounds are theirs, else MAXIMUM, MINIMUM.

    Only those come here that no operator before them could apply itself.
    """
    bounds = translation.clip_bounds(node)
    assert bounds is not None
    view, name = translation.view(node.inputs[0]), node.outputs[0]
    steps = [
        (kind, bound)
        for kind, bound in zip(("MAXIMUM", "MINIMUM"), bounds, strict=True)
        if math.isfinite(bound)
    ]
    if not steps:
        translation.describe(name, view)
        return
    result = translation.result_like(name, view)
    formula, value = Formula(translation, name, view.stored), view.tensor
    if bounds in CLIPS:
        formula(CLIPS[bounds], value, into=result)
        return
    for index, (kind, bound) in enumerate(steps):
        is_last = index == len(steps) - 1
        value = formula(kind, value, float(bound), into=result if is_last else None)


def is_hard_gate(node: Node) -> bool:
    """Whether a node is relu6(x + 3) / 6, which is what torch calls a hard sigmoid."""
    alpha, beta = node.attributes.get("alpha", 0.2), node.attributes.get("beta", 0.5)
    return node.op == "HardSigmoid" and math.isclose(alpha, 1 / 6, rel_tol=1e-6) and beta == 0.5


@translates("HardSigmoid")
def hard_sigmoid(translation: Translation, node: Node) -> None:
    """max(0, min(1, alpha x + beta)) as relu6(6 alpha x + 6 beta) / 6."""
    view, name = translation.view(node.inputs[0]), node.outputs[0]
    alpha, beta = node.attributes.get("alpha", 0.2), node.attributes.get("beta", 0.5)
    formula, value = Formula(translation, name, view.stored), view.tensor
    if not is_hard_gate(node):
        value = formula("MUL", value, float(6 * alpha))
    value = formula("ADD", value, float(6 * beta), activation="RELU6")
    formula("MUL", value, 1 / 6, into=translation.result_like(name, view))


@translates("Softplus", "Mish")
def softplus(translation: Translation, node: Node) -> None:
    """log(1 + exp x) as relu(x) + log(1 + exp(-|x|)), which never overflows; x tanh of it: Mish."""
    view, name = translation.view(node.inputs[0]), node.outputs[0]
    formula, value = Formula(translation, name, view.stored), view.tensor
    decayed = formula("EXP", formula("NEG", formula("ABS", value)))
    parts = formula("RELU", value), formula("LOG", formula("ADD", decayed, 1.0))
    result = translation.result_like(name, view)
    if node.op == "Softplus":
        formula("ADD", *parts, into=result)
    else:
        formula("MUL", value, formula("TANH", formula("ADD", *parts)), into=result)


@translates("Reciprocal")
def reciprocal(translation: Translation, node: Node) -> None:
    """DIV of 1 by the value."""
    view, name = translation.view(node.inputs[0]), node.outputs[0]
    result = translation.result_like(name, view)
    Formula(translation, name, view.stored)("DIV", 1.0, view.tensor, into=result)


@translates("Pow")
def power(translation: Translation, node: Node) -> None:
    """POW by a constant number; products and roots where the number is one of theirs."""
    exponents = translation.host_constant(node, 1, "the exponent")
    view, name = translation.view(node.inputs[0]), node.outputs[0]
    if exponents.size != 1 or translation.graph.shape(name) != view.shape:
        raise UsageError(f"{node} has an exponent of shape {exponents.shape}; only a number fits")
    exponent = float(exponents.reshape(()))
    value, formula = view.tensor, Formula(translation, name, view.stored)
    result = translation.result_like(name, view)
    if exponent == 2:
        formula("SQUARE", value, into=result)
    elif exponent == 3:
        formula("MUL", formula("SQUARE", value), value, into=result)
    elif exponent == -1:
        formula("DIV", 1.0, value, into=result)
    elif abs(exponent) == 0.5:
        formula("SQRT" if exponent > 0 else "RSQRT", value, into=result)
    else:
        formula("POW", value, float(np.float32(exponent)), into=result)


@translates("Erf")
def error_function(translation: Translation, node: Node) -> None:
    """Refused: TFLite has it as a part of GELU alone, which has been recognised before."""
    raise UsageError(f"{node} is not part of a GELU; TFLite has no error function of its own")
