"""Torch realisation of a graph of operations: what is trained."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from .batch_norm import BatchNorm
from .blocks import Block
from .network import Network
from .onnx_model import Parameters, subject_graph
from .ops import (
    FULL_PRECISION,
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
    Zero,
)
from .quantisers import Quantiser, RoundedConv2d

WithParameters = Conv | Linear | Normalise | Quantise
"""Operations that are layers of a `TorchModel`."""


def activate(activation: Activation, value: Tensor) -> Tensor:
    """Apply an activation by its name."""
    match activation:
        case "none":
            return value
        case "relu":
            return functional.relu(value)
        case "relu6":
            return functional.relu6(value)
        case "swish":
            return functional.silu(value)
        case "hard_swish":
            return functional.hardswish(value)
        case "sigmoid":
            return torch.sigmoid(value)
        case "hard_sigmoid":
            return functional.hardsigmoid(value)


class ConvNorm(nn.Module):
    """Convolution, batch norm where the operation has one, activation."""

    def __init__(self, op: Conv) -> None:
        super().__init__()
        self.op = op
        self.conv = RoundedConv2d(op)
        self.norm = BatchNorm(op.out_channels) if op.batch_norm else None

    def forward(self, value: Tensor) -> Tensor:
        """(N, in_channels, height, width) -> (N, out_channels, height', width')."""
        value = self.conv(value)
        if self.norm is not None:
            value = self.norm(value)
        return activate(self.op.activation, value)


def layer_of(op: WithParameters) -> nn.Module:
    """The layer of an operation that has parameters."""
    match op:
        case Conv():
            return ConvNorm(op)
        case Linear():
            return nn.Linear(op.in_features, op.out_features)
        case Normalise():
            return BatchNorm(op.channels)
        case Quantise():
            return Quantiser(op.bits)


class TorchModel(nn.Module):
    """A block, network or graph as a plain torch module, to train and to export.

    `layers` holds the operations that have parameters, named as in the ONNX form with `_` for
    dots: `layers["3_expand"]`. In training, `dropout` is the share of a classifier's inputs that
    is left out.
    """

    def __init__(
        self,
        subject: Block | Network | OpGraph,
        make_layer: Callable[[WithParameters], nn.Module] = layer_of,
    ) -> None:
        super().__init__()
        self.graph = subject_graph(subject)
        self.dropout = 0.0
        self.layers = nn.ModuleDict()
        for node in self.graph.nodes:
            if isinstance(node.op, WithParameters):
                self.layers[_layer_name(node.prefix, node.op.name)] = make_layer(node.op)

    def forward(self, value: Tensor, *others: Tensor) -> Tensor:
        """(N, *input_shape) -> (N, *output_shape); `others` are the graph's further inputs."""
        values = [value]
        given = iter(others)
        for node in self.graph.nodes:
            if isinstance(node.op, Input):
                values.append(next(given))
            else:
                values.append(self._run(node, [values[index] for index in node.inputs]))
        return values[-1]

    def _run(self, node: OpNode, read: list[Tensor]) -> Tensor:
        first = read[0]
        match node.op:
            case Conv() | Linear() | Normalise() | Quantise() as op:
                if self.dropout and op.name == "classifier":
                    first = functional.dropout(first, self.dropout, self.training)
                result: Tensor = self.layers[_layer_name(node.prefix, op.name)](first)
                return result
            case Activate() as op:
                return activate(op.activation, first)
            case Pool() as op:
                return _pool(op, first)
            case GlobalAveragePool():
                return first.mean((2, 3), keepdim=True)
            case Flatten():
                return first.flatten(1)
            case Add():
                return first + read[1]
            case Multiply():
                return first * read[1]
            case Zero():
                return torch.zeros_like(first)
            case Concat():
                return torch.cat(read, 1)
            case Channels() as op:
                return first[:, op.start : op.stop]
            case ChannelShuffle() as op:
                return functional.channel_shuffle(first, op.groups)
            case Crop() as op:
                return first[:, :, op.top :, op.left :]
            case Pad() as op:
                (top, left), (bottom, right) = op.before(first.shape[1:]), op.after(first.shape[1:])
                return functional.pad(first, (left, right, top, bottom))
            case Input():
                raise AssertionError(node)

    def load_folded(self, parameters: Parameters) -> None:
        """Take the parameters of the ONNX form; batch norms become identities plus the bias.

        Weights are used as they come from then on: where they are of few bits, they are rounded
        already, and batch norm scaled each channel after that.
        """
        for node in self.graph.nodes:
            if not isinstance(node.op, WithParameters):
                continue
            layer = self.layers[_layer_name(node.prefix, node.op.name)]
            name = node.prefix + node.op.name
            if isinstance(layer, Quantiser):
                nn.init.constant_(layer.clip, float(parameters[f"{name}.clip"]))
                continue
            _load_layer(layer, parameters[f"{name}.weight"], parameters.get(f"{name}.bias"))

    @torch.no_grad()
    def folded(self) -> dict[str, NDArray[np.float32]]:
        """Parameters of the ONNX form: batch norms' running statistics folded into weights.

        Weights are rounded to their bits before that.
        """
        parameters = {}
        for node in self.graph.nodes:
            if not isinstance(node.op, WithParameters):
                continue
            layer = self.layers[_layer_name(node.prefix, node.op.name)]
            if isinstance(layer, Quantiser):
                clip = layer.positive_clip().float().reshape(())
                parameters[f"{node.prefix}{node.op.name}.clip"] = clip.cpu().numpy()
                continue
            weight, bias = _folded_layer(layer)
            parameters[f"{node.prefix}{node.op.name}.weight"] = weight.float().cpu().numpy()
            if bias is not None:
                parameters[f"{node.prefix}{node.op.name}.bias"] = bias.float().cpu().numpy()
        return parameters


def _layer_name(prefix: str, name: str) -> str:
    return prefix.replace(".", "_") + name


@torch.no_grad()
def _load_layer(
    layer: nn.Module, weight: NDArray[np.float32], bias: NDArray[np.float32] | None
) -> None:
    if isinstance(layer, nn.BatchNorm2d):
        assert bias is not None
        layer.reset_running_stats()
        layer.weight.copy_(torch.from_numpy(np.array(weight).ravel()) * (1 + layer.eps) ** 0.5)
        layer.bias.copy_(torch.from_numpy(np.array(bias).ravel()))
        return
    target = layer
    if isinstance(layer, ConvNorm):
        target, layer.conv.weight_bits = layer.conv, FULL_PRECISION
    assert isinstance(target, nn.Conv2d | nn.Linear)
    target.weight.copy_(torch.from_numpy(np.array(weight)))
    if bias is None:
        return
    if target.bias is not None:
        target.bias.copy_(torch.from_numpy(np.array(bias)))
    elif isinstance(layer, ConvNorm) and layer.norm is not None:
        layer.norm.reset_running_stats()
        layer.norm.weight.fill_((1 + layer.norm.eps) ** 0.5)
        layer.norm.bias.copy_(torch.from_numpy(np.array(bias)))


def _folded_layer(layer: nn.Module) -> tuple[Tensor, Tensor | None]:
    """Weight and bias of a layer in float64, batch norm folded; `None`: it has no bias."""
    if isinstance(layer, nn.Linear):
        return layer.weight.double(), layer.bias.double()
    if isinstance(layer, nn.BatchNorm2d):
        scale, shift = _scale_and_shift(layer)
        return scale[:, None, None], shift[:, None, None]
    assert isinstance(layer, ConvNorm)
    weight = layer.conv.used_weight().double()
    if layer.norm is None:
        return weight, None if layer.conv.bias is None else layer.conv.bias.double()
    scale, shift = _scale_and_shift(layer.norm)
    return weight * scale[:, None, None, None], shift


def _scale_and_shift(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """What a batch norm does in evaluation mode, by channel."""
    assert norm.running_mean is not None and norm.running_var is not None
    scale = norm.weight.double() / torch.sqrt(norm.running_var.double() + norm.eps)
    return scale, norm.bias.double() - norm.running_mean.double() * scale


def _pool(op: Pool, value: Tensor) -> Tensor:
    if op.kind == "max":
        return functional.max_pool2d(value, op.kernel, op.stride, op.padding)
    return functional.avg_pool2d(value, op.kernel, op.stride, op.padding, count_include_pad=False)
