"""MobileNetV2: inverted residuals (Sandler et al. 2018, table 2)."""

from torch import nn

from .layers import InvertedResidual, classifier, conv_norm

STAGES = [
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
]
"""Expansion, width, blocks, stride of the first block."""


def mobilenet_v2_layers() -> list[nn.Module]:
    """All layers before the pooling: the first convolution, 17 blocks, the last convolution."""
    channels = 32
    layers: list[nn.Module] = [conv_norm(3, channels, 3, 2, activation=nn.ReLU6)]
    for expansion, width, blocks, stride in STAGES:
        for index in range(blocks):
            step = stride if index == 0 else 1
            layers.append(InvertedResidual(channels, expansion * channels, width, stride=step))
            channels = width
    return [*layers, conv_norm(channels, 1280, activation=nn.ReLU6)]


def mobilenet_v2() -> nn.Module:
    """MobileNetV2 1.0."""
    return nn.Sequential(*mobilenet_v2_layers(), classifier(1280))
