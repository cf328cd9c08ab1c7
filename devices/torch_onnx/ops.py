"""ONNX operations as calls on torch tensors. Needs torch to be imported.

`call_of` gives, for a node, a function of its inputs (`None`: left out) that returns its outputs.
What has to be known beforehand, as a new shape, must be constant. Windows and axes are read from
the tensors, so that a call works for every batch size that its constants allow.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from .node import Call, Node, torch_pads
from .shapes import SHAPE_BUILDERS


def call_of(node: Node) -> Call:
    """The function that does what the node says; `UsageError` where it is not known here."""
    if node.domain in ("", "ai.onnx"):
        if node.kind in PLAIN:
            return PLAIN[node.kind]
        if node.kind in BUILDERS:
            return BUILDERS[node.kind](node)
    raise node.refused("it is not known there")


def _padding(node: Node, sizes: Sequence[int], reach: Sequence[int]) -> list[int]:
    """Padding before each spatial axis, then after each, as ONNX orders it."""
    count = len(sizes)
    kind = node.attribute("auto_pad", "NOTSET")
    if kind == "NOTSET":
        return list(node.attribute("pads") or [0] * 2 * count)
    if kind == "VALID":
        return [0] * 2 * count
    strides = node.attribute("strides") or [1] * count
    total = [
        max(0, (math.ceil(size / stride) - 1) * stride + window - size)
        for size, window, stride in zip(sizes, reach, strides, strict=True)
    ]
    less, more = [pad // 2 for pad in total], [pad - pad // 2 for pad in total]
    return less + more if kind == "SAME_UPPER" else more + less


def _reach(kernel: Sequence[int], dilations: Sequence[int]) -> list[int]:
    """How far a kernel reaches over each axis."""
    return [(size - 1) * step + 1 for size, step in zip(kernel, dilations, strict=True)]


def _conv(node: Node) -> Call:
    def call(value: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        count = weight.ndim - 2
        strides = node.attribute("strides") or [1] * count
        dilations = node.attribute("dilations") or [1] * count
        pads = _padding(node, value.shape[2:], _reach(weight.shape[2:], dilations))
        if pads[:count] != pads[count:]:
            value, pads = functional.pad(value, torch_pads(pads)), [0] * count
        convolve: Call = (functional.conv1d, functional.conv2d, functional.conv3d)[count - 1]
        groups = node.attribute("group", 1)
        result: Tensor = convolve(value, weight, bias, strides, pads[:count], dilations, groups)
        return result

    return call


def _conv_transpose(node: Node) -> Call:
    node.require("auto_pad", "NOTSET")
    node.require("output_shape")

    def call(value: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        count = weight.ndim - 2
        pads = node.attribute("pads") or [0] * 2 * count
        if pads[:count] != pads[count:]:
            raise node.refused(f"pads is {pads}")
        strides = node.attribute("strides") or [1] * count
        beyond = node.attribute("output_padding") or [0] * count
        dilations = node.attribute("dilations") or [1] * count
        convolve: Call = (functional.conv_transpose1d, functional.conv_transpose2d)[count - 1]
        groups = node.attribute("group", 1)
        result: Tensor = convolve(
            value, weight, bias, strides, pads[:count], beyond, groups, dilations
        )
        return result

    return call


def _pool(node: Node) -> Call:
    kernel = node.attribute("kernel_shape")
    strides = node.attribute("strides") or [1, 1]
    dilations = node.attribute("dilations") or [1, 1]
    ceil = bool(node.attribute("ceil_mode", 0))
    counts_padding = bool(node.attribute("count_include_pad", 0))
    average = node.kind == "AveragePool"
    if len(kernel) != 2 or len(node.outputs) != 1:
        raise node.refused("it is not over height and width alone, or gives indices too")
    if average and dilations != [1, 1]:
        raise node.refused(f"dilations is {dilations}")

    def call(value: Tensor) -> Tensor:
        pads = _padding(node, value.shape[2:], _reach(kernel, dilations))
        if pads[:2] != pads[2:] or any(
            2 * pad > size for pad, size in zip(pads, kernel, strict=False)
        ):
            if average and not counts_padding:
                raise node.refused(f"pads is {pads}, left out of the average")
            filling = 0.0 if average else -math.inf
            value, pads = functional.pad(value, torch_pads(pads), value=filling), [0, 0]
        if average:
            return functional.avg_pool2d(value, kernel, strides, pads[:2], ceil, counts_padding)
        return functional.max_pool2d(value, kernel, strides, pads[:2], dilations, ceil)

    return call


def _gemm(node: Node) -> Call:
    alpha, beta = node.attribute("alpha", 1.0), node.attribute("beta", 1.0)
    first_turned, second_turned = node.attribute("transA", 0), node.attribute("transB", 0)

    def call(first: Tensor, second: Tensor, added: Tensor | None = None) -> Tensor:
        first = first.t() if first_turned else first
        if alpha == beta == 1 and second_turned and (added is None or added.ndim == 1):
            return functional.linear(first, second, added)
        second = second.t() if second_turned else second
        if added is None:
            return torch.mul(first @ second, alpha)
        return torch.addmm(added, first, second, alpha=alpha, beta=beta)

    return call


def _clip(node: Node) -> Call:
    low, high = node.constant(1), node.constant(2)
    return lambda value, *_: torch.clamp(value, low, high)


def _hard_sigmoid(node: Node) -> Call:
    alpha, beta = node.attribute("alpha", 0.2), node.attribute("beta", 0.5)
    if math.isclose(alpha, 1 / 6, rel_tol=1e-6) and beta == 0.5:
        return functional.hardsigmoid
    return lambda value: torch.clamp(value * alpha + beta, 0, 1)


def _batch_norm(node: Node) -> Call:
    node.require("training_mode", 0)
    epsilon = node.attribute("epsilon", 1e-5)

    def call(value: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
        return functional.batch_norm(value, mean, variance, scale, bias, eps=epsilon)

    return call


def _layer_norm(node: Node) -> Call:
    axis, epsilon = node.attribute("axis", -1), node.attribute("epsilon", 1e-5)
    if len(node.outputs) != 1:
        raise node.refused("it gives mean and deviation too")

    def call(value: Tensor, scale: Tensor, bias: Tensor | None = None) -> Tensor:
        shape = value.shape[axis:]
        return functional.layer_norm(value, shape, scale, bias, epsilon)

    return call


def _instance_norm(node: Node) -> Call:
    epsilon = node.attribute("epsilon", 1e-5)

    def call(value: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
        return functional.instance_norm(value, weight=scale, bias=bias, eps=epsilon)

    return call


def _product(value: Tensor, dim: Sequence[int], keepdim: bool) -> Tensor:
    for axis in sorted((axis % value.ndim for axis in dim), reverse=True):
        value = torch.prod(value, axis, keepdim)
    return value


def _reduce(node: Node) -> Call:
    reductions: dict[str, Call] = {
        "ReduceL2": torch.linalg.vector_norm,
        "ReduceProd": _product,
        "ReduceMean": torch.mean,
        "ReduceSum": torch.sum,
        "ReduceMax": torch.amax,
        "ReduceMin": torch.amin,
    }
    reduction, keep = reductions[node.kind], bool(node.attribute("keepdims", 1))
    axes = node.axes()
    if not axes and node.attribute("noop_with_empty_axes", 0):
        return PLAIN["Identity"]
    return lambda value, *_: reduction(value, dim=axes or list(range(value.ndim)), keepdim=keep)


def _divide(first: Tensor, second: Tensor) -> Tensor:
    if first.is_floating_point():
        return first / second
    return torch.div(first, second, rounding_mode="trunc")


def _prelu(value: Tensor, slope: Tensor) -> Tensor:
    if slope.ndim == value.ndim - 1 and slope.numel() == slope.shape[0] == value.shape[1]:
        return functional.prelu(value, slope.reshape(-1))
    return torch.where(value < 0, value * slope, value)


def _fold(call: Call) -> Call:
    """An operation on two values made one on any number, as ONNX has it."""

    def folded(first: Tensor, *others: Tensor) -> Tensor:
        for other in others:
            first = call(first, other)
        return first

    return folded


def _over_axis(call: Call, default: int) -> Callable[[Node], Call]:
    return lambda node: lambda value: call(value, dim=node.attribute("axis", default))


PLAIN: dict[str, Call] = {
    "Abs": torch.abs,
    "Add": torch.add,
    "Ceil": torch.ceil,
    "Cos": torch.cos,
    "Div": _divide,
    "Dropout": lambda value, *_: value,
    "Equal": torch.eq,
    "Erf": torch.erf,
    "Exp": torch.exp,
    "Floor": torch.floor,
    "GlobalAveragePool": lambda value: value.mean(tuple(range(2, value.ndim)), keepdim=True),
    "GlobalMaxPool": lambda value: value.amax(tuple(range(2, value.ndim)), keepdim=True),
    "Greater": torch.gt,
    "HardSwish": functional.hardswish,
    "Identity": lambda value, *_: value,
    "Less": torch.lt,
    "Log": torch.log,
    "MatMul": torch.matmul,
    "Max": _fold(torch.maximum),
    "Min": _fold(torch.minimum),
    "Mish": functional.mish,
    "Mul": torch.mul,
    "Neg": torch.neg,
    "PRelu": _prelu,
    "Pow": torch.pow,
    "Reciprocal": torch.reciprocal,
    "Relu": functional.relu,
    "Round": torch.round,
    "Sigmoid": torch.sigmoid,
    "Sin": torch.sin,
    "Softplus": functional.softplus,
    "Sqrt": torch.sqrt,
    "Sub": torch.sub,
    "Sum": _fold(torch.add),
    "Tanh": torch.tanh,
    "Where": torch.where,
}
"""Operations that need nothing but their inputs."""

BUILDERS: dict[str, Callable[[Node], Call]] = {
    **SHAPE_BUILDERS,
    "AveragePool": _pool,
    "BatchNormalization": _batch_norm,
    "Clip": _clip,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Elu": lambda node: lambda value: functional.elu(value, node.attribute("alpha", 1.0)),
    "Gelu": lambda node: (
        lambda value: functional.gelu(value, approximate=node.attribute("approximate", "none"))
    ),
    "Gemm": _gemm,
    "HardSigmoid": _hard_sigmoid,
    "InstanceNormalization": _instance_norm,
    "LayerNormalization": _layer_norm,
    "LeakyRelu": lambda node: (
        lambda value: functional.leaky_relu(value, node.attribute("alpha", 0.01))
    ),
    "LogSoftmax": _over_axis(torch.log_softmax, -1),
    "MaxPool": _pool,
    "Mod": lambda node: torch.fmod if node.attribute("fmod", 0) else torch.remainder,
    "ReduceL2": _reduce,
    "ReduceMax": _reduce,
    "ReduceMean": _reduce,
    "ReduceMin": _reduce,
    "ReduceProd": _reduce,
    "ReduceSum": _reduce,
    "Softmax": _over_axis(torch.softmax, -1),
}
"""Operations that have attributes or constant inputs."""
