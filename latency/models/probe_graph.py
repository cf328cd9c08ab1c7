"""Graph that probe networks are written into: ONNX nodes with shapes, weights drawn at the end.

Operations take the forms that torch's exporter gives them (opset 17): a linear layer over tokens is
`MatMul` and `Add`, SiLU is `Sigmoid` and `Mul`, GELU is written out with `Erf`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from ..onnx_model import INPUT_NAME, IR_VERSION, OPSET

ProbeActivation = Literal[
    "none",
    "relu",
    "relu6",
    "hard_swish",
    "silu",
    "gelu",
    "sigmoid",
    "hard_sigmoid",
    "leaky",
    "tanh",
]

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Value:
    """What a node gives: its name in the graph, and its shape, batch included."""

    name: str
    shape: Shape

    @property
    def channels(self) -> int:
        """Second dimension of an image."""
        return self.shape[1]

    @property
    def pixels(self) -> int:
        """The lesser side of an image."""
        return min(self.shape[2:])


@dataclass(frozen=True, slots=True)
class _Weight:
    """An initializer still to be drawn; `scale` 0 means ones."""

    name: str
    shape: Shape
    scale: float


class ProbeGraph:
    """Writes one network. `products` are the multiply-accumulates so far, `weights` the elements.

    Nothing large is drawn before `model`, so that a graph that came out too large costs nothing.
    """

    def __init__(self, input_shape: Shape) -> None:
        self.input = Value(INPUT_NAME, input_shape)
        self.products = 0
        self.weights = 0
        self._nodes: list[onnx.NodeProto] = []
        self._pending: list[_Weight] = []
        self._constants: dict[str, NDArray[Any]] = {}

    def model(self, outputs: Sequence[Value], seed: int) -> onnx.ModelProto:
        """The ONNX model, weights drawn variance-preserving (He et al. 2015)."""
        random = np.random.default_rng(seed)
        initializers = [
            numpy_helper.from_array(array, name) for name, array in self._constants.items()
        ]
        for weight in self._pending:
            values = np.ones(weight.shape, np.float32)
            if weight.scale:
                values = random.standard_normal(weight.shape, dtype=np.float32)
                values *= np.float32(weight.scale)
            initializers.append(numpy_helper.from_array(values, weight.name))
        graph = helper.make_graph(
            self._nodes,
            "probe",
            [_value_info(self.input)],
            [_value_info(value) for value in outputs],
            initializers,
        )
        return helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="latkit",
        )

    def conv(
        self,
        value: Value,
        channels: int,
        kernel: int | tuple[int, int] = 1,
        *,
        stride: int = 1,
        groups: int = 1,
        dilation: int = 1,
        activation: ProbeActivation = "none",
        padded: bool = True,
    ) -> Value:
        """Convolution with a bias (batch norm folded) and an activation; same size at stride 1."""
        window = (kernel, kernel) if isinstance(kernel, int) else kernel
        pads = [dilation * (size // 2) if padded else 0 for size in window]
        size = [
            (length + 2 * pad - dilation * (side - 1) - 1) // stride + 1
            for length, pad, side in zip(value.shape[2:], pads, window, strict=True)
        ]
        weight_shape = (channels, value.channels // groups, *window)
        output = self._node(
            "Conv",
            [value, *self._weighted(weight_shape, channels)],
            (1, channels, *size),
            kernel_shape=list(window),
            strides=[stride] * 2,
            pads=pads * 2,
            dilations=[dilation] * 2,
            group=groups,
        )
        self.products += math.prod(weight_shape) * math.prod(size)
        return self.activation(output, activation)

    def conv_transpose(self, value: Value, channels: int, kernel: int, stride: int) -> Value:
        """Transposed convolution that enlarges `stride` times."""
        total = kernel - stride
        pads = [total // 2, total // 2, total - total // 2, total - total // 2]
        weight_shape = (value.channels, channels, kernel, kernel)
        self.products += math.prod(weight_shape) * math.prod(value.shape[2:])
        return self._node(
            "ConvTranspose",
            [value, *self._weighted(weight_shape, channels)],
            (1, channels, *(stride * size for size in value.shape[2:])),
            kernel_shape=[kernel] * 2,
            strides=[stride] * 2,
            pads=pads,
        )

    def linear(self, value: Value, features: int, activation: ProbeActivation = "none") -> Value:
        """Linear layer over the last dimension."""
        depth = value.shape[-1]
        shape = (*value.shape[:-1], features)
        self.products += math.prod(shape) * depth
        if len(shape) == 2:
            weights = self._weighted((features, depth), features)
            output = self._node("Gemm", [value, *weights], shape, transB=1)
        else:
            weight, bias = self._weighted((depth, features), features)
            output = self._node("Add", [bias, self._node("MatMul", [value, weight], shape)], shape)
        return self.activation(output, activation)

    def matmul(self, left: Value, right: Value) -> Value:
        """Product of two activations."""
        shape = (*left.shape[:-1], right.shape[-1])
        self.products += math.prod(shape) * left.shape[-1]
        return self._node("MatMul", [left, right], shape)

    def activation(self, value: Value, activation: ProbeActivation) -> Value:
        """An activation as torch's exporter writes it."""
        shape = value.shape
        match activation:
            case "none":
                return value
            case "relu":
                return self._node("Relu", [value], shape)
            case "relu6":
                return self._node("Clip", [value, self.scalar(0.0), self.scalar(6.0)], shape)
            case "hard_swish":
                return self._node("HardSwish", [value], shape)
            case "silu":
                return self._node("Mul", [value, self._node("Sigmoid", [value], shape)], shape)
            case "gelu":
                inner = self._node("Div", [value, self.scalar(math.sqrt(2))], shape)
                error = self._node("Erf", [inner], shape)
                grown = self._node("Add", [error, self.scalar(1.0)], shape)
                product = self._node("Mul", [value, grown], shape)
                return self._node("Mul", [product, self.scalar(0.5)], shape)
            case "sigmoid":
                return self._node("Sigmoid", [value], shape)
            case "hard_sigmoid":
                return self._node("HardSigmoid", [value], shape, alpha=1 / 6, beta=0.5)
            case "leaky":
                return self._node("LeakyRelu", [value], shape, alpha=0.1)
            case "tanh":
                return self._node("Tanh", [value], shape)

    def pool(
        self, value: Value, kind: Literal["Max", "Average"], kernel: int, stride: int
    ) -> Value:
        """Pooling, padded to the same size at stride 1, where the window is odd."""
        pad = kernel // 2 if kernel % 2 else 0
        size = [(length + 2 * pad - kernel) // stride + 1 for length in value.shape[2:]]
        more = {"count_include_pad": 1} if kind == "Average" else {}
        return self._node(
            f"{kind}Pool",
            [value],
            (1, value.channels, *size),
            kernel_shape=[kernel] * 2,
            strides=[stride] * 2,
            pads=[pad] * 4,
            **more,
        )

    def global_pool(self, value: Value, *, reduce: bool = False) -> Value:
        """Mean over the pixels, one pixel left."""
        shape = (1, value.channels, 1, 1)
        if reduce:
            return self._node("ReduceMean", [value], shape, axes=[2, 3], keepdims=1)
        return self._node("GlobalAveragePool", [value], shape)

    def add(self, left: Value, right: Value) -> Value:
        """Sum; the right one may be broadcast."""
        return self._node("Add", [left, right], left.shape)

    def mul(self, left: Value, right: Value) -> Value:
        """Product; the right one may be broadcast."""
        return self._node("Mul", [left, right], left.shape)

    def concat(self, values: Sequence[Value], axis: int = 1) -> Value:
        """Concatenation."""
        shape = list(values[0].shape)
        shape[axis] = sum(value.shape[axis] for value in values)
        return self._node("Concat", values, tuple(shape), axis=axis)

    def split(self, value: Value, sizes: Sequence[int], axis: int = 1) -> list[Value]:
        """Parts of these sizes along an axis."""
        shapes = [(*value.shape[:axis], size, *value.shape[axis + 1 :]) for size in sizes]
        name = f"split_{len(self._nodes)}"
        parts = [Value(f"{name}_{index}", shape) for index, shape in enumerate(shapes)]
        sizes_input = self._integers(sizes)
        self._nodes.append(
            helper.make_node(
                "Split", [value.name, sizes_input.name], [p.name for p in parts], name, axis=axis
            )
        )
        return parts

    def slice(self, value: Value, start: int, end: int, axis: int = 1, step: int = 1) -> Value:
        """Every `step`-th entry from `start` to `end` along an axis."""
        size = len(range(start, end, step))
        shape = (*value.shape[:axis], size, *value.shape[axis + 1 :])
        ends = [self._integers([number]) for number in (start, end, axis)]
        if step != 1:
            ends.append(self._integers([step]))
        return self._node("Slice", [value, *ends], shape)

    def reshape(self, value: Value, shape: Shape) -> Value:
        """The same elements in another shape."""
        return self._node("Reshape", [value, self._integers(shape)], shape)

    def flatten(self, value: Value) -> Value:
        """All but the batch in one dimension."""
        return self._node("Flatten", [value], (1, math.prod(value.shape[1:])), axis=1)

    def squeeze(self, value: Value, axis: int = 0) -> Value:
        """Without a dimension of size 1."""
        shape = value.shape[:axis] + value.shape[axis + 1 :]
        return self._node("Squeeze", [value, self._integers([axis])], shape)

    def gather(self, value: Value, index: int, axis: int = 0) -> Value:
        """One entry of a dimension, which is gone then."""
        shape = value.shape[:axis] + value.shape[axis + 1 :]
        number = self._constant(np.array(index, np.int64))
        return self._node("Gather", [value, number], shape, axis=axis)

    def pad(self, value: Value, pixels: int) -> Value:
        """Zeros around an image."""
        shape = (*value.shape[:2], *(size + 2 * pixels for size in value.shape[2:]))
        ends = self._integers([0, 0, pixels, pixels] * 2)
        return self._node("Pad", [value, ends], shape)

    def transpose(self, value: Value, order: Sequence[int]) -> Value:
        """Dimensions in another order."""
        shape = tuple(value.shape[axis] for axis in order)
        return self._node("Transpose", [value], shape, perm=list(order))

    def resize(self, value: Value, factor: int, mode: Literal["nearest", "linear"]) -> Value:
        """Enlarged by `factor`, as `torch.nn.Upsample` does."""
        scales = self._constant(np.array([1, 1, factor, factor], np.float32))
        shape = (1, value.channels, *(factor * size for size in value.shape[2:]))
        settings = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        if mode == "linear":
            settings = {"coordinate_transformation_mode": "half_pixel"}
        empty = Value("", ())
        return self._node("Resize", [value, empty, scales], shape, mode=mode, **settings)

    def softmax(self, value: Value, axis: int = -1) -> Value:
        """Softmax along an axis."""
        return self._node("Softmax", [value], value.shape, axis=axis)

    def layer_norm(self, value: Value) -> Value:
        """Layer norm over the last dimension."""
        weights = self._weighted(value.shape[-1:], value.shape[-1], ones=True)
        return self._node("LayerNormalization", [value, *weights], value.shape, axis=-1)

    def batch_norm(self, value: Value) -> Value:
        """Batch norm that no convolution before it takes up, as in DenseNet."""
        channels = value.shape[1:2]
        scale, shift = self._weighted(channels, value.channels, ones=True)
        mean = self._weight(channels, 0.1)
        variance = self._weight(channels, 0.0)
        return self._node("BatchNormalization", [value, scale, shift, mean, variance], value.shape)

    def learned(self, shape: Shape) -> Value:
        """A weight that is read like an activation: class tokens, positions."""
        return self._weight(shape, 0.1)

    def scalar(self, number: float) -> Value:
        """A constant."""
        return self._constant(np.array(number, np.float32))

    def _weighted(self, shape: Shape, features: int, *, ones: bool = False) -> tuple[Value, Value]:
        """A weight, and a bias beside it."""
        fan_in = math.prod(shape) / features
        scale = 0.0 if ones else math.sqrt(2 / max(1.0, fan_in))
        return self._weight(shape, scale), self._weight((features,), 0.1)

    def _weight(self, shape: Shape, scale: float) -> Value:
        weight = _Weight(f"weight_{len(self._pending)}", shape, scale)
        self._pending.append(weight)
        self.weights += math.prod(shape)
        return Value(weight.name, shape)

    def _integers(self, numbers: Sequence[int]) -> Value:
        return self._constant(np.array(numbers, np.int64))

    def _constant(self, array: NDArray[Any]) -> Value:
        name = f"constant_{len(self._constants)}"
        self._constants[name] = array
        return Value(name, array.shape)

    def _node(self, kind: str, inputs: Sequence[Value], shape: Shape, **attributes: Any) -> Value:
        name = f"{kind.lower()}_{len(self._nodes)}"
        names = [value.name for value in inputs]
        self._nodes.append(helper.make_node(kind, names, [name], name, **attributes))
        return Value(name, shape)


def _value_info(value: Value) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(value.name, TensorProto.FLOAT, value.shape)
