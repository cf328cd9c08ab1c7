"""ONNX realisation of a graph of operations: what is profiled, priced and exported.

One builder writes blocks with random weights (to be timed) and trained networks with their own
(to be deployed), so that what is measured is what was priced. Takes about 1 ms a block.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from ..devices.errors import UsageError
from .blocks import Block
from .network import Network, block_graph
from .ops import (
    INITIAL_CLIP,
    Activate,
    Activation,
    Add,
    Channels,
    ChannelShuffle,
    Concat,
    Conv,
    Crop,
    Flatten,
    GlobalAveragePool,
    Input,
    Linear,
    Multiply,
    Normalise,
    OpGraph,
    OpNode,
    Pad,
    Pool,
    Quantise,
    Shape,
    Zero,
)

OPSET = 17
IR_VERSION = 8
INPUT_NAME = "input"
OUTPUT_NAME = "output"

Parameters = Mapping[str, NDArray[np.float32]]
"""Weights and biases by name, batch norm folded: `expand.weight`, or `3.expand.weight` in a net.

Quantizers have clip values, of shape (): `read.clip`.
"""


def parameter_shapes(graph: OpGraph) -> dict[str, tuple[int, ...]]:
    """Name and shape of every parameter that the graph's ONNX form holds."""
    shapes: dict[str, tuple[int, ...]] = {}
    for node in graph.nodes:
        match node.op:
            case Conv() as op:
                shapes[f"{node.prefix}{op.name}.weight"] = op.weight_shape
                if op.exported_bias:
                    shapes[f"{node.prefix}{op.name}.bias"] = op.weight_shape[:1]
            case Normalise() as op:
                shapes[f"{node.prefix}{op.name}.weight"] = (op.channels, 1, 1)
                shapes[f"{node.prefix}{op.name}.bias"] = (op.channels, 1, 1)
            case Linear() as op:
                shapes[f"{node.prefix}{op.name}.weight"] = (op.out_features, op.in_features)
                shapes[f"{node.prefix}{op.name}.bias"] = (op.out_features,)
            case Quantise() as op:
                shapes[f"{node.prefix}{op.name}.clip"] = ()
            case _:
                pass
    return shapes


def random_parameters(graph: OpGraph, seed: int = 0) -> dict[str, NDArray[np.float32]]:
    """Variance-preserving random parameters (He et al. 2015), the same for a name and seed.

    Clip values are those that training begins with. Weights of few bits are not rounded: float
    kernels, which is what runs, take as long for all values.
    """
    parameters = {}
    for name, shape in parameter_shapes(graph).items():
        if name.endswith(".clip"):
            parameters[name] = np.array(INITIAL_CLIP, dtype=np.float32)
            continue
        random = np.random.default_rng((seed, zlib.crc32(name.encode())))
        scale = 0.1 if name.endswith(".bias") else math.sqrt(2 / math.prod(shape[1:]))
        values = random.standard_normal(shape, dtype=np.float32)
        parameters[name] = values * np.float32(scale)
    return parameters


def build_onnx(
    subject: Block | Network | OpGraph,
    parameters: Parameters | None = None,
    *,
    batch_size: int = 1,
) -> onnx.ModelProto:
    """Write a block, network or graph as an ONNX model, input and output NCHW float32.

    `parameters` are random where not given. Raises `UsageError` where one is missing or has
    another shape than the graph asks for.
    """
    graph = subject_graph(subject)
    if parameters is None:
        parameters = random_parameters(graph)
    for name, shape in parameter_shapes(graph).items():
        if name not in parameters or parameters[name].shape != shape:
            given = parameters[name].shape if name in parameters else "missing"
            raise UsageError(f"parameter {name} of shape {shape} is needed; it is {given}")
    return _Writer(graph, parameters, batch_size).model()


def subject_graph(subject: Block | Network | OpGraph) -> OpGraph:
    """The operations of a block or network."""
    if isinstance(subject, OpGraph):
        return subject
    return subject.graph() if isinstance(subject, Network) else block_graph(subject)


class _Writer:
    """Translates one graph."""

    def __init__(self, graph: OpGraph, parameters: Parameters, batch_size: int) -> None:
        self._graph = graph
        self._batch_size = batch_size
        self._parameters = parameters
        self._initializers: list[TensorProto] = []
        self._nodes: list[onnx.NodeProto] = []
        self._inputs = [self._value_info(INPUT_NAME, graph.input_shape)]

    def model(self) -> onnx.ModelProto:
        values = [INPUT_NAME]
        for node in self._graph.nodes:
            values.append(self._write(node, [values[index] for index in node.inputs]))
        if len(values) == 1:
            self._emit("Identity", values, OUTPUT_NAME)
        else:
            self._rename(values[-1])
        body = helper.make_graph(
            self._nodes,
            "latkit",
            self._inputs,
            [self._value_info(OUTPUT_NAME, self._graph.shape(self._graph.output))],
            self._initializers,
        )
        return helper.make_model(
            body,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="latkit",
        )

    def _value_info(self, name: str, shape: tuple[int, ...]) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, (self._batch_size, *shape))

    def _rename(self, last: str) -> None:
        """Give the last node's output the model's output name."""
        for node in self._nodes:
            node.output[:] = [OUTPUT_NAME if name == last else name for name in node.output]
            node.input[:] = [OUTPUT_NAME if name == last else name for name in node.input]

    def _emit(self, kind: str, inputs: list[str], output: str = "", **attributes: Any) -> str:
        output = output or f"{kind.lower()}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def _parameter(self, name: str) -> str:
        values = np.ascontiguousarray(self._parameters[name], dtype=np.float32)
        self._initializers.append(numpy_helper.from_array(values, name))
        return name

    def _constant(self, name: str, value: float) -> str:
        if all(tensor.name != name for tensor in self._initializers):
            array = np.array(value, dtype=np.float32)
            self._initializers.append(numpy_helper.from_array(array, name))
        return name

    def _write(self, node: OpNode, inputs: list[str]) -> str:
        match node.op:
            case Conv() as op:
                name = node.prefix + op.name
                weights = [self._parameter(f"{name}.weight")]
                if op.exported_bias:
                    weights.append(self._parameter(f"{name}.bias"))
                value = self._emit(
                    "Conv",
                    inputs + weights,
                    kernel_shape=op.kernel_size,
                    strides=[op.stride] * 2,
                    pads=op.padding * 2,
                    group=op.groups,
                    dilations=[op.dilation] * 2,
                )
                return self._activate(op.activation, value)
            case Linear() as op:
                name = node.prefix + op.name
                weights = [self._parameter(f"{name}.weight"), self._parameter(f"{name}.bias")]
                return self._emit("Gemm", inputs + weights, transB=1)
            case Normalise() as op:
                name = node.prefix + op.name
                scaled = self._emit("Mul", [*inputs, self._parameter(f"{name}.weight")])
                return self._emit("Add", [scaled, self._parameter(f"{name}.bias")])
            case Quantise() as op:
                return self._quantise(op, node.prefix + op.name, inputs[0])
            case Activate() as op:
                return self._activate(op.activation, inputs[0])
            case Pool() as op:
                window: dict[str, Any] = {
                    "kernel_shape": [op.kernel] * 2,
                    "strides": [op.stride] * 2,
                    "pads": [op.padding] * 4,
                }
                return self._emit(
                    "MaxPool" if op.kind == "max" else "AveragePool", inputs, **window
                )
            case GlobalAveragePool():
                return self._emit("GlobalAveragePool", inputs)
            case Flatten():
                return self._emit("Flatten", inputs)
            case Add():
                return self._emit("Add", inputs)
            case Multiply():
                return self._emit("Mul", inputs)
            case Zero():
                return self._emit("Mul", [*inputs, self._constant("nothing", 0.0)])
            case Concat():
                return self._emit("Concat", inputs, axis=1)
            case Channels() as op:
                return self._slice(inputs[0], {1: (op.start, op.stop)})
            case Crop() as op:
                _, height, width = node.shape
                rows, columns = (op.top, op.top + height), (op.left, op.left + width)
                return self._slice(inputs[0], {2: rows, 3: columns})
            case Pad() as op:
                shape = self._graph.shape(node.inputs[0])
                pads = (0, 0, *op.before(shape), 0, 0, *op.after(shape))
                return self._emit("Pad", [inputs[0], self._integers(pads)])
            case Input() as op:
                name = f"{INPUT_NAME}_{len(self._inputs)}"
                self._inputs.append(self._value_info(name, op.shape))
                return name
            case ChannelShuffle() as op:
                return self._shuffle(inputs[0], op.groups, node.shape)

    def _quantise(self, op: Quantise, name: str, value: str) -> str:
        """Float operations that any runtime has; both factors are float32, as torch has them."""
        clip, steps = self._parameters[f"{name}.clip"], np.float32(2**op.bits - 1)
        bounds = [self._constant("zero", 0.0), self._constant(f"{name}.clip", float(clip))]
        value = self._emit("Clip", [value, *bounds])
        scale = self._constant(f"{name}.scale", float(steps / clip))
        value = self._emit("Round", [self._emit("Mul", [value, scale])])
        step = self._constant(f"{name}.step", float(clip / steps))
        return self._emit("Mul", [value, step])

    def _slice(self, value: str, ranges: Mapping[int, tuple[int, int]]) -> str:
        """The part of `value` from the first to before the second number along each axis."""
        starts, stops = zip(*ranges.values(), strict=True)
        parts = [self._integers(numbers) for numbers in (starts, stops, tuple(ranges))]
        return self._emit("Slice", [value, *parts])

    def _shuffle(self, value: str, groups: int, shape: Shape) -> str:
        channels, *size = shape
        apart = self._integers((self._batch_size, groups, channels // groups, *size))
        value = self._emit("Reshape", [value, apart])
        value = self._emit("Transpose", [value], perm=[0, 2, 1, 3, 4])
        return self._emit("Reshape", [value, self._integers((self._batch_size, *shape))])

    def _integers(self, values: tuple[int, ...]) -> str:
        """Name of a constant of these numbers."""
        name = "integers_" + "_".join(map(str, values))
        if all(tensor.name != name for tensor in self._initializers):
            array = np.array(values, dtype=np.int64)
            self._initializers.append(numpy_helper.from_array(array, name))
        return name

    def _activate(self, activation: Activation, value: str) -> str:
        match activation:
            case "none":
                return value
            case "relu":
                return self._emit("Relu", [value])
            case "relu6":
                bounds = [self._constant("zero", 0.0), self._constant("six", 6.0)]
                return self._emit("Clip", [value, *bounds])
            case "sigmoid":
                return self._emit("Sigmoid", [value])
            case "swish":
                return self._emit("Mul", [value, self._emit("Sigmoid", [value])])
            case "hard_sigmoid":
                return self._emit("HardSigmoid", [value], alpha=1 / 6, beta=0.5)
            case "hard_swish":
                return self._emit("HardSwish", [value])
