"""MobileNet: depthwise separable convolutions (Howard et al. 2017, table 1)."""

from torch import nn

from .layers import classifier, conv_norm

WIDTHS_AND_STRIDES = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2)]
WIDTHS_AND_STRIDES += [(512, 1)] * 5 + [(1024, 2), (1024, 1)]


def mobilenet_v1() -> nn.Module:
    """MobileNet 1.0."""
    channels = 32
    layers: list[nn.Module] = [conv_norm(3, channels, 3, 2, activation=nn.ReLU)]
    for width, stride in WIDTHS_AND_STRIDES:
        layers.append(conv_norm(channels, channels, 3, stride, channels, nn.ReLU))
        layers.append(conv_norm(channels, width, activation=nn.ReLU))
        channels = width
    return nn.Sequential(*layers, classifier(channels))
