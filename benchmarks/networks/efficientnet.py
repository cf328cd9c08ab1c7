"""EfficientNet-B0 (Tan and Le 2019, table 1) and MnasNet-A1 (Tan et al. 2019, figure 7)."""

from collections.abc import Callable
from functools import partial

from torch import nn

from .layers import InvertedResidual, SqueezeExcite, classifier, conv_norm

Stage = tuple[int, int, int, int, int, bool]

B0: list[Stage] = [
    (1, 16, 1, 1, 3, True),
    (6, 24, 2, 2, 3, True),
    (6, 40, 2, 2, 5, True),
    (6, 80, 3, 2, 3, True),
    (6, 112, 3, 1, 5, True),
    (6, 192, 4, 2, 5, True),
    (6, 320, 1, 1, 3, True),
]
"""Expansion, width, blocks, stride of the first block, kernel, squeeze-and-excite."""

A1: list[Stage] = [
    (1, 16, 1, 1, 3, False),
    (6, 24, 2, 2, 3, False),
    (3, 40, 3, 2, 5, True),
    (6, 80, 4, 2, 3, False),
    (6, 112, 2, 1, 3, True),
    (6, 160, 3, 2, 5, True),
    (6, 320, 1, 1, 3, False),
]


def efficientnet_b0() -> nn.Module:
    """EfficientNet-B0: swish throughout."""
    return _network(B0, nn.SiLU)


def mnasnet_a1() -> nn.Module:
    """MnasNet-A1: ReLU, squeeze-and-excite in some stages."""
    return _network(A1, nn.ReLU)


def _network(stages: list[Stage], activation: Callable[[], nn.Module]) -> nn.Module:
    channels = 32
    layers: list[nn.Module] = [conv_norm(3, channels, 3, 2, activation=activation)]
    for expansion, width, blocks, first_stride, kernel, gated in stages:
        for index in range(blocks):
            expanded = expansion * channels
            gate = partial(SqueezeExcite, squeezed=channels // 4, activation=activation)
            stride = first_stride if index == 0 else 1
            block = InvertedResidual(
                channels, expanded, width, kernel, stride, activation, gate if gated else None
            )
            layers.append(block)
            channels = width
    last = conv_norm(channels, 1280, activation=activation)
    return nn.Sequential(*layers, last, classifier(1280))
