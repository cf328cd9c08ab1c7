"""Probes of convolutions and of element-wise operators."""

from .graph import (
    ACTIVATION,
    IMAGE,
    SAME,
    VALID,
    convolution,
    probe,
    upsampled,
)


def register_convolutions():
    cases = {
        **{f"convolution {k} stride {s}": (k, s, {}) for k in (1, 2, 3, 5, 7) for s in (1, 2)},
        **{
            f"depthwise {k} stride {s}": (k, s, {"depthwise": True, "outputs": 16})
            for k in (1, 2, 3, 5, 7)
            for s in (1, 2)
        },
        "dilated": (3, 1, {"dilation": 2}),
        "dilated depthwise": (3, 1, {"dilation": 2, "depthwise": True, "outputs": 16}),
        "depthwise of 24 taps": ((3, 8), 1, {"depthwise": True, "outputs": 16}),
        "depthwise of 27 taps": ((3, 9), 1, {"depthwise": True, "outputs": 16}),
        "depthwise with a multiplier": (3, 1, {"depthwise": True, "outputs": 32}),
        "grouped": (3, 1, {"groups": 4}),
        "grouped by one": (1, 1, {"groups": 4}),
        "depthwise by groups": (3, 1, {"groups": 16, "outputs": 16}),
        "without padding": (3, 1, {"padding": VALID}),
        "whole image": (14, 1, {"padding": VALID}),
        "with relu": (3, 1, {"activation": ACTIVATION.RELU}),
        "with relu6": (1, 1, {"activation": ACTIVATION.RELU6}),
        "with relu to one": (3, 1, {"activation": ACTIVATION.RELU_N1_TO_1}),
        "with tanh": (3, 1, {"activation": ACTIVATION.TANH}),
    }
    for name, (kernel, stride, settings) in cases.items():
        probe(name)(
            lambda graph, value, k=kernel, s=stride, more=settings: convolution(
                graph, value, k, s, **more
            )
        )
    for name, kernel, padded, stride, activation in (
        ("up by two", 2, VALID, 2, 0),
        ("up by three", 3, SAME, 2, 0),
        ("up by four", 4, SAME, 2, 0),
        ("transposed without stride", 3, SAME, 1, 0),
        ("transposed of one", 1, SAME, 2, 0),
        ("up with relu", 2, VALID, 2, ACTIVATION.RELU),
    ):
        probe(name)(
            lambda graph, value, k=kernel, p=padded, s=stride, a=activation: upsampled(
                graph, value, k, p, s, a
            )
        )


def register_elementwise():
    tables = {"ADD": "Add", "SUB": "Sub", "MUL": "Mul", "DIV": "Div"}
    others = {
        "MAXIMUM": "MaximumMinimum",
        "MINIMUM": "MaximumMinimum",
        "SQUARED_DIFFERENCE": "SquaredDifference",
        "POW": "Pow",
    }
    for kind, table in {**tables, **others}.items():
        probe(f"{kind} of two")(
            lambda graph, value, k=kind, t=table: graph.add(
                k, [value, graph.input(*IMAGE)], IMAGE, t
            )
        )
        probe(f"{kind} of a constant")(
            lambda graph, value, k=kind, t=table: graph.add(k, [value, graph.weights(16)], IMAGE, t)
        )
    for kind, table in tables.items():
        probe(f"{kind} with relu")(
            lambda graph, value, k=kind, t=table: graph.add(
                k, [value, graph.input(*IMAGE)], IMAGE, t, fusedActivationFunction=ACTIVATION.RELU
            )
        )
    unary = {
        "ABS": "Abs",
        "CEIL": "",
        "COS": "Cos",
        "ELU": "",
        "EXP": "Exp",
        "FLOOR": "",
        "GELU": "Gelu",
        "HARD_SWISH": "HardSwish",
        "LEAKY_RELU": "LeakyRelu",
        "LOG": "",
        "LOGISTIC": "",
        "LOG_SOFTMAX": "LogSoftmax",
        "NEG": "Neg",
        "RELU": "",
        "RELU6": "",
        "RELU_N1_TO_1": "",
        "ROUND": "",
        "RSQRT": "",
        "SIN": "",
        "SQRT": "",
        "SQUARE": "Square",
        "TANH": "",
    }
    for kind, table in unary.items():
        settings = {"alpha": 0.1} if kind == "LEAKY_RELU" else {}
        probe(kind)(
            lambda graph, value, k=kind, t=table, more=settings: graph.add(
                k, [value], IMAGE, t, **more
            )
        )
    probe("approximate GELU")(
        lambda graph, value: graph.add("GELU", [value], IMAGE, "Gelu", approximate=True)
    )
    probe("PRELU")(lambda graph, value: graph.add("PRELU", [value, graph.weights(1, 1, 16)], IMAGE))
    for beta in (1.0, 2.0):
        probe(f"SOFTMAX with beta {beta}")(
            lambda graph, value, b=beta: graph.add("SOFTMAX", [value], IMAGE, "Softmax", beta=b)
        )


register_convolutions()
register_elementwise()
