"""Small TFLite graphs: how they are built, and the table that holds them."""

import numpy as np
from latkit.devices.tflite.flatbuffer import FlatbufferWriter, schema

IMAGE = (1, 14, 14, 16)
SEQUENCE = (1, 49, 16)
ACTIVATION = schema().ActivationFunctionType
SAME, VALID = schema().Padding.SAME, schema().Padding.VALID


class Probe:
    """A graph being built."""

    def __init__(self):
        self.writer = FlatbufferWriter()
        self.inputs = []
        self.count = 0

    def input(self, *shape):
        tensor = self.writer.value(f"input{self._number()}", shape)
        self.inputs.append((f"input{self.count}", tensor))
        return tensor

    def integers(self, values):
        return self.writer.constant(f"constant{self._number()}", np.array(values, np.int32))

    def weights(self, *shape):
        size = int(np.prod(shape, dtype=np.int64))
        values = np.linspace(-0.1, 0.1, size, dtype=np.float32).reshape(shape)
        return self.writer.constant(f"constant{self._number()}", values)

    def add(self, kind, inputs, shape, options="", version=1, **settings):
        (output,) = self.several(kind, inputs, [shape], options, version, **settings)
        return output

    def several(self, kind, inputs, shapes, options="", version=1, **settings):
        outputs = [self.writer.value(f"value{self._number()}", shape) for shape in shapes]
        self.writer.operator(kind, inputs, outputs, options, version, **settings)
        return outputs

    def finish(self, *outputs):
        named = [(f"output{number}", output) for number, output in enumerate(outputs)]
        return self.writer.finish(self.inputs, named)

    def _number(self):
        self.count += 1
        return self.count


PROBES = {}
"""Each probe's bytes, made when asked for."""


def probe(name, start=IMAGE):
    """Register a probe: a function from a graph and its input to its output, or outputs."""

    def register(build):
        def made():
            graph = Probe()
            outputs = build(graph, graph.input(*start))
            return graph.finish(*(outputs if isinstance(outputs, (list, tuple)) else [outputs]))

        PROBES[name] = made
        return build

    return register


def size_after(size, window, stride, padding, dilation=1):
    reach = (window - 1) * dilation
    return -(-size // stride) if padding == SAME else (size - reach - 1) // stride + 1


def convolution(
    graph,
    value,
    kernel=3,
    stride=1,
    size=14,
    outputs=24,
    inputs=16,
    groups=1,
    depthwise=False,
    activation=0,
    dilation=1,
    padding=SAME,
):
    kernel = kernel if isinstance(kernel, tuple) else (kernel, kernel)
    shape = [size_after(size, taps, stride, padding, dilation) for taps in kernel]
    settings = {
        "padding": padding,
        "strideH": stride,
        "strideW": stride,
        "dilationHFactor": dilation,
        "dilationWFactor": dilation,
        "fusedActivationFunction": activation,
    }
    if depthwise:
        weights = graph.weights(1, *kernel, outputs)
        settings["depthMultiplier"] = outputs // inputs
    else:
        weights = graph.weights(outputs, *kernel, inputs // groups)
    return graph.add(
        "DEPTHWISE_CONV_2D" if depthwise else "CONV_2D",
        [value, weights, graph.weights(outputs)],
        (1, *shape, outputs),
        "DepthwiseConv2D" if depthwise else "Conv2D",
        **settings,
    )


def padding(graph, value, amounts, shape):
    return graph.add("PAD", [value, graph.integers(amounts)], shape, "Pad")


def reshape(graph, value, *shape):
    return graph.add(
        "RESHAPE", [value, graph.integers(shape)], shape, "Reshape", newShape=list(shape)
    )


def dense(graph, value, inputs, outputs, shape, keep=False, activation=0):
    return graph.add(
        "FULLY_CONNECTED",
        [value, graph.weights(outputs, inputs), graph.weights(outputs)],
        shape,
        "FullyConnected",
        keepNumDims=keep,
        fusedActivationFunction=activation,
    )


def pool(graph, value, kind, window, stride, padded=VALID, activation=0):
    size = size_after(14, window, stride, padded)
    return graph.add(
        kind,
        [value],
        (1, size, size, 16),
        "Pool2D",
        padding=padded,
        strideH=stride,
        strideW=stride,
        filterHeight=window,
        filterWidth=window,
        fusedActivationFunction=activation,
    )


def reduced(graph, value, kind, axes, shape, keep=True):
    return graph.add(kind, [value, graph.integers(axes)], shape, "Reducer", keepDims=keep)


def transposed(graph, value, order, shape):
    return graph.add("TRANSPOSE", [value, graph.integers(order)], shape, "Transpose")


def upsampled(graph, value, kernel, padded=SAME, stride=2, activation=0):
    size = 14 * stride
    return graph.add(
        "TRANSPOSE_CONV",
        [
            graph.integers([1, size, size, 24]),
            graph.weights(24, kernel, kernel, 16),
            value,
            graph.weights(24),
        ],
        (1, size, size, 24),
        "TransposeConv",
        version=4 if activation else 3,
        padding=padded,
        strideH=stride,
        strideW=stride,
        fusedActivationFunction=activation,
    )
