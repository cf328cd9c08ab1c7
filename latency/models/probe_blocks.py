"""Blocks of probe networks: the motifs of published networks, with numbers drawn at random.

The mix and the ranges are the literature's: each function names its source. None of them is a
copy of one network's table of layers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .probe_graph import ProbeActivation, ProbeGraph, Value

SMALL_WINDOWS = (1, 3, 5, 7)


@dataclass(frozen=True, slots=True)
class Draw:
    """The source of a network's numbers."""

    random: np.random.Generator

    def choice(self, options: tuple[int, ...], weights: tuple[float, ...] | None = None) -> int:
        """One of some whole numbers."""
        total = None if weights is None else np.array(weights) / sum(weights)
        return int(self.random.choice(options, p=total))

    def chance(self, probability: float) -> bool:
        """Whether something with this probability happens."""
        return bool(self.random.random() < probability)

    def log_uniform(self, low: float, high: float) -> float:
        """A number whose logarithm is uniform."""
        return float(np.exp(self.random.uniform(math.log(low), math.log(high))))

    def channels(self, about: float) -> int:
        """Channels close to a number, from 8 to 2048: mostly multiples of 8, but not only."""
        unit = self.choice((8, 16, 32, 4, 2, 1), (0.5, 0.15, 0.1, 0.1, 0.05, 0.1))
        return max(8, min(2048, unit * max(1, round(about / unit))))

    def activation(self) -> ProbeActivation:
        """An activation behind a convolution."""
        names: tuple[ProbeActivation, ...] = (
            *("relu", "relu6", "hard_swish", "silu", "leaky", "gelu", "sigmoid", "tanh", "none"),
        )
        weights = (0.4, 0.14, 0.12, 0.16, 0.06, 0.05, 0.02, 0.01, 0.04)
        return names[int(self.random.choice(len(names), p=weights))]


BlockWriter = Callable[[ProbeGraph, Draw, Value, int, int, ProbeActivation], Value]
"""Writes a block: graph, numbers, input, output channels, stride, the network's activation."""


def inverted_residual(
    graph: ProbeGraph, draw: Draw, value: Value, out: int, stride: int, act: ProbeActivation
) -> Value:
    """MobileNetV2 and V3, EfficientNet (Sandler 2018, Howard 2019, Tan 2019), with their SE."""
    expanded = draw.channels(value.channels * draw.choice((1, 2, 3, 4, 6), (1, 1, 2, 2, 4)))
    kernel = draw.choice((3, 5, 7), (0.55, 0.38, 0.07))
    inner = value
    if expanded != value.channels:
        inner = graph.conv(inner, expanded, activation=act)
    inner = graph.conv(
        inner, inner.channels, kernel, stride=stride, groups=inner.channels, activation=act
    )
    if draw.chance(0.4):
        inner = squeeze_excite(graph, draw, inner)
    return _residual(graph, value, graph.conv(inner, out))


def separable(
    graph: ProbeGraph, draw: Draw, value: Value, out: int, stride: int, act: ProbeActivation
) -> Value:
    """Depthwise, then 1x1 (MobileNetV1, Howard 2017)."""
    kernel = draw.choice((3, 5, 7), (0.7, 0.2, 0.1))
    inner = graph.conv(
        value, value.channels, kernel, stride=stride, groups=value.channels, activation=act
    )
    return graph.conv(inner, out, activation=act)


def basic_residual(
    graph: ProbeGraph, draw: Draw, value: Value, out: int, stride: int, act: ProbeActivation
) -> Value:
    """Two dense convolutions (ResNet, He 2016)."""
    inner = graph.conv(value, out, 3, stride=stride, activation=act)
    return _joined(graph, value, graph.conv(inner, out, 3), stride, act)


def bottleneck(
    graph: ProbeGraph, draw: Draw, value: Value, out: int, stride: int, act: ProbeActivation
) -> Value:
    """1x1, 3x3, 1x1 (He 2016); grouped as in ResNeXt and RegNet (Xie 2017, Radosavovic 2020)."""
    middle = draw.channels(out / draw.choice((1, 2, 4, 8), (1, 1, 3, 1)))
    groups = 1
    if draw.chance(0.4):
        each = draw.choice((4, 8, 16, 24, 32, 48))
        groups = max(1, round(middle / each))
        middle = groups * each
    dilation = draw.choice((1, 2, 4), (8, 1, 1)) if stride == 1 and groups == 1 else 1
    inner = graph.conv(value, middle, activation=act)
    inner = graph.conv(
        inner, middle, 3, stride=stride, groups=groups, dilation=dilation, activation=act
    )
    return _joined(graph, value, graph.conv(inner, out), stride, act)


def plain(
    graph: ProbeGraph, draw: Draw, value: Value, out: int, stride: int, act: ProbeActivation
) -> Value:
    """Convolutions in a row (VGG, Simonyan 2015; U-Net's double convolution, Ronneberger 2015)."""
    kernel = draw.choice(SMALL_WINDOWS, (0.2, 0.6, 0.15, 0.05))
    if stride == 2 and draw.chance(0.5):
        value, stride = graph.pool(value, "Max", draw.choice((2, 3)), 2), 1
    inner = graph.conv(value, out, kernel, stride=stride, activation=act)
    if draw.chance(0.5):
        inner = graph.conv(inner, out, 3, activation=act)
    return inner


def fire(
    graph: ProbeGraph, draw: Draw, value: Value, out: int, stride: int, act: ProbeActivation
) -> Value:
    """Squeeze, then 1x1 beside 3x3 (SqueezeNet, Iandola 2016)."""
    if stride == 2:
        value = graph.pool(value, "Max", draw.choice((2, 3)), 2)
    squeezed = graph.conv(value, draw.channels(out / draw.choice((4, 8))), activation=act)
    half = max(4, out // 2)
    sides = [graph.conv(squeezed, half, 1, activation=act)]
    sides.append(graph.conv(squeezed, max(4, out - half), 3, activation=act))
    return graph.concat(sides)


def dense(
    graph: ProbeGraph, draw: Draw, value: Value, out: int, stride: int, act: ProbeActivation
) -> Value:
    """Dense layers and a transition (DenseNet, Huang 2017): batch norm before the convolution."""
    growth = draw.choice((12, 16, 24, 32, 48))
    for _ in range(draw.choice((1, 2, 3))):
        inner = graph.activation(graph.batch_norm(value), "relu")
        if draw.chance(0.7):
            inner = graph.conv(inner, 4 * growth, activation="relu")
        value = graph.concat([value, graph.conv(inner, growth, 3)])
    if stride == 2 or draw.chance(0.3):
        inner = graph.activation(graph.batch_norm(value), "relu")
        value = graph.conv(inner, out)
    return graph.pool(value, "Average", 2, 2) if stride == 2 else value


def shuffle_unit(
    graph: ProbeGraph, draw: Draw, value: Value, out: int, stride: int, act: ProbeActivation
) -> Value:
    """Split, a branch, concat, channel shuffle (ShuffleNetV2, Ma 2018)."""
    half = max(4, out // 2)
    kernel = draw.choice((3, 5), (0.8, 0.2))
    if stride == 2:
        left = graph.conv(value, value.channels, kernel, stride=2, groups=value.channels)
        left, right = graph.conv(left, half, activation=act), value
    else:
        if value.channels % 2 or value.channels != 2 * half:
            value = graph.conv(value, 2 * half, activation=act)
        if draw.chance(0.7):
            left, right = graph.split(value, [half, half])
        else:
            left, right = graph.slice(value, 0, half), graph.slice(value, half, 2 * half)
    inner = graph.conv(right, half, activation=act)
    inner = graph.conv(inner, half, kernel, stride=stride, groups=half)
    joined = graph.concat([left, graph.conv(inner, half, activation=act)])
    groups = 2 if joined.channels % 4 or draw.chance(0.8) else 4
    height, width = joined.shape[2:]
    split = graph.reshape(joined, (1, groups, joined.channels // groups, height, width))
    return graph.reshape(graph.transpose(split, (0, 2, 1, 3, 4)), joined.shape)


def inception(
    graph: ProbeGraph, draw: Draw, value: Value, out: int, stride: int, act: ProbeActivation
) -> Value:
    """Branches of several windows, factorised ones among them (Szegedy 2015, 2016)."""
    if stride == 2:
        value = graph.pool(value, "Max", 3, 2)
    part = max(4, out // 4)
    branches = [graph.conv(value, part, activation=act)]
    reduced = graph.conv(value, draw.channels(part * 0.75), activation=act)
    branches.append(graph.conv(reduced, part, draw.choice((3, 5)), activation=act))
    if draw.chance(0.6):
        long = draw.choice((3, 7))
        inner = graph.conv(value, draw.channels(part * 0.75), activation=act)
        inner = graph.conv(inner, inner.channels, (1, long), activation=act)
        branches.append(graph.conv(inner, part, (long, 1), activation=act))
    pooled = graph.pool(value, "Average" if draw.chance(0.7) else "Max", 3, 1)
    branches.append(graph.conv(pooled, part, activation=act))
    return graph.concat(branches)


def cross_stage(
    graph: ProbeGraph, draw: Draw, value: Value, out: int, stride: int, act: ProbeActivation
) -> Value:
    """Cross-stage partial block of detectors (Wang 2020): a part goes by, the rest is refined."""
    if stride == 2:
        value = graph.conv(value, out, 3, stride=2, activation=act)
    half = max(4, out // 2)
    left, right = graph.split(graph.conv(value, 2 * half, activation=act), [half, half])
    parts = [left, right]
    for _ in range(draw.choice((1, 2))):
        inner = graph.conv(parts[-1], half, draw.choice((1, 3)), activation=act)
        inner = graph.conv(inner, half, 3, activation=act)
        parts.append(graph.add(parts[-1], inner) if draw.chance(0.7) else inner)
    return graph.conv(graph.concat(parts), out, activation=act)


def pooled_pyramid(
    graph: ProbeGraph, draw: Draw, value: Value, out: int, stride: int, act: ProbeActivation
) -> Value:
    """Max pools (SPP, He 2015) or dilated convolutions (ASPP, Chen 2017) of growing reach."""
    if stride == 2:
        value = graph.conv(value, value.channels, 3, stride=2, activation=act)
    inner = graph.conv(value, draw.channels(out / 2), activation=act)
    parts = [inner]
    kind = draw.choice((0, 1, 2))
    if kind == 0:
        parts += [graph.pool(inner, "Max", window, 1) for window in (5, 9, 13)]
    elif kind == 1:
        for _ in range(3):
            parts.append(graph.pool(parts[-1], "Max", draw.choice((3, 5)), 1))
    else:
        for dilation in (2, 4, 6):
            grouped = draw.chance(0.3)
            parts.append(
                graph.conv(
                    inner,
                    inner.channels,
                    3,
                    dilation=dilation,
                    groups=inner.channels if grouped else 1,
                    activation=act,
                )
            )
    return graph.conv(graph.concat(parts), out, activation=act)


def large_window(
    graph: ProbeGraph, draw: Draw, value: Value, out: int, stride: int, act: ProbeActivation
) -> Value:
    """Depthwise 7x7, layer norm and MLP with channels last (ConvNeXt, Liu 2022)."""
    if stride == 2 or value.channels != out:
        kernel = 2 if stride == 2 else 1
        value = graph.conv(value, out, kernel, stride=stride, padded=False)
    inner = graph.conv(value, out, draw.choice((5, 7), (0.2, 0.8)), groups=out)
    inner = graph.layer_norm(graph.transpose(inner, (0, 2, 3, 1)))
    inner = graph.linear(inner, out * draw.choice((2, 4)), "gelu")
    inner = graph.transpose(graph.linear(inner, out), (0, 3, 1, 2))
    return graph.add(inner, value)


def squeeze_excite(graph: ProbeGraph, draw: Draw, value: Value) -> Value:
    """Channels scaled by what their means say (Hu 2018)."""
    narrow = max(4, draw.channels(value.channels / draw.choice((4, 4, 8, 16, 24))))
    gate = graph.global_pool(value, reduce=draw.chance(0.3))
    gate = graph.conv(gate, narrow, activation="silu" if draw.chance(0.4) else "relu")
    hard = draw.chance(0.5)
    gate = graph.conv(gate, value.channels, activation="hard_sigmoid" if hard else "sigmoid")
    return graph.mul(value, gate)


BLOCKS: tuple[tuple[BlockWriter, float], ...] = (
    (inverted_residual, 5.0),
    (separable, 2.0),
    (basic_residual, 2.0),
    (bottleneck, 2.5),
    (plain, 1.5),
    (fire, 1.5),
    (dense, 2.5),
    (shuffle_unit, 2.5),
    (inception, 1.0),
    (cross_stage, 1.5),
    (pooled_pyramid, 0.8),
    (large_window, 1.0),
)
"""The motifs, each with how often it is drawn relative to the others."""


def _residual(graph: ProbeGraph, value: Value, inner: Value) -> Value:
    return graph.add(value, inner) if value.shape == inner.shape else inner


def _joined(
    graph: ProbeGraph, value: Value, inner: Value, stride: int, act: ProbeActivation
) -> Value:
    """The sum with the input, projected where its shape is another, and an activation."""
    if value.shape != inner.shape:
        value = graph.conv(value, inner.channels, 1, stride=stride)
    return graph.activation(graph.add(inner, value), act)
