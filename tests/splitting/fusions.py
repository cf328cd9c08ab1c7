"""Probes of operators that become one, or might."""

from .graph import (
    IMAGE,
    SEQUENCE,
    VALID,
    convolution,
    padding,
    probe,
    reduced,
    upsampled,
)

AROUND = [[0, 0], [1, 1], [1, 1], [0, 0]]


@probe("PAD then convolution")
def pad_then_convolution(graph, value):
    wide = padding(graph, value, AROUND, (1, 16, 16, 16))
    return convolution(graph, wide, 3, 2, size=16, padding=VALID)


@probe("PAD then depthwise")
def pad_then_depthwise(graph, value):
    wide = padding(graph, value, AROUND, (1, 16, 16, 16))
    return convolution(graph, wide, 5, size=16, padding=VALID, depthwise=True, outputs=16)


@probe("PAD then convolution of one")
def pad_then_pointwise(graph, value):
    wide = padding(graph, value, AROUND, (1, 16, 16, 16))
    return convolution(graph, wide, 1, size=16, padding=VALID)


@probe("PAD of channels then convolution")
def pad_of_channels_then_convolution(graph, value):
    wide = padding(graph, value, [[0, 0], [1, 1], [1, 1], [0, 4]], (1, 16, 16, 20))
    return convolution(graph, wide, 3, size=16, inputs=20, padding=VALID)


@probe("PAD read twice")
def pad_read_twice(graph, value):
    wide = padding(graph, value, AROUND, (1, 16, 16, 16))
    return [convolution(graph, wide, 3, size=16, padding=VALID) for _ in range(2)]


@probe("PAD then pool")
def pad_then_pool(graph, value):
    wide = padding(graph, value, AROUND, (1, 16, 16, 16))
    return graph.add(
        "MAX_POOL_2D",
        [wide],
        (1, 14, 14, 16),
        "Pool2D",
        padding=VALID,
        strideH=1,
        strideW=1,
        filterHeight=3,
        filterWidth=3,
    )


@probe("convolution then relu")
def convolution_then_relu(graph, value):
    return graph.add("RELU", [convolution(graph, value)], (1, 14, 14, 24))


@probe("convolution then relu, both given")
def convolution_then_relu_both_given(graph, value):
    made = convolution(graph, value)
    return [made, graph.add("RELU", [made], (1, 14, 14, 24))]


@probe("convolution then swish")
def convolution_then_swish(graph, value):
    made = convolution(graph, value, outputs=16)
    gate = graph.add("LOGISTIC", [made], IMAGE)
    return graph.add("MUL", [made, gate], IMAGE, "Mul")


@probe("relu then relu6")
def relu_then_relu6(graph, value):
    return graph.add("RELU6", [graph.add("RELU", [value], IMAGE)], IMAGE)


@probe("sum then relu")
def sum_then_relu(graph, value):
    total = graph.add("ADD", [value, graph.weights(16)], IMAGE, "Add")
    return graph.add("RELU", [total], IMAGE)


@probe("up then relu")
def up_then_relu(graph, value):
    return graph.add("RELU", [upsampled(graph, value, 2, VALID)], (1, 28, 28, 24))


@probe("layer normalization", SEQUENCE)
def layer_normalization(graph, value):
    mean = reduced(graph, value, "MEAN", [2], (1, 49, 1))
    centred = graph.add("SUB", [value, mean], SEQUENCE, "Sub")
    squares = graph.add("MUL", [centred, centred], SEQUENCE, "Mul")
    variance = reduced(graph, squares, "MEAN", [2], (1, 49, 1))
    safe = graph.add("ADD", [variance, graph.weights(1)], (1, 49, 1), "Add")
    inverse = graph.add("RSQRT", [safe], (1, 49, 1))
    return graph.add("MUL", [centred, inverse], SEQUENCE, "Mul")


@probe("squares given besides their mean", SEQUENCE)
def squares_given_besides_their_mean(graph, value):
    squares = graph.add("MUL", [value, value], SEQUENCE, "Mul")
    return [squares, reduced(graph, squares, "MEAN", [2], (1, 49, 1))]


@probe("sum of squares", SEQUENCE)
def sum_of_squares(graph, value):
    squares = graph.add("SQUARE", [value], SEQUENCE, "Square")
    return reduced(graph, squares, "SUM", [2], (1, 49, 1))


@probe("what the interpreter runs in between")
def what_the_interpreter_runs_in_between(graph, value):
    first = convolution(graph, value, outputs=16)
    mirrored = graph.add(
        "MIRROR_PAD", [first, graph.integers(AROUND)], (1, 16, 16, 16), "MirrorPad", mode=0
    )
    last = convolution(graph, mirrored, 3, size=16, padding=VALID)
    return [last, graph.add("RELU", [value], IMAGE)]
