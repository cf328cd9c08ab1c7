"""GhostNet: half of the channels made by cheap convolutions (Han et al. 2020, table 1)."""

import torch
from torch import Tensor, nn

from .layers import Activation, SqueezeExcite, conv_norm, rounded

ROWS = [
    (3, 16, 16, False, 1),
    (3, 48, 24, False, 2),
    (3, 72, 24, False, 1),
    (5, 72, 40, True, 2),
    (5, 120, 40, True, 1),
    (3, 240, 80, False, 2),
    (3, 200, 80, False, 1),
    (3, 184, 80, False, 1),
    (3, 184, 80, False, 1),
    (3, 480, 112, True, 1),
    (3, 672, 112, True, 1),
    (5, 672, 160, True, 2),
    (5, 960, 160, False, 1),
    (5, 960, 160, True, 1),
    (5, 960, 160, False, 1),
    (5, 960, 160, True, 1),
]
"""Kernel, expanded channels, width, squeeze-and-excite, stride."""


class Ghost(nn.Module):
    """A 1x1 convolution, and a depthwise one of what it gives."""

    def __init__(self, in_channels: int, out_channels: int, activation: Activation) -> None:
        super().__init__()
        half = out_channels // 2
        self.primary = conv_norm(in_channels, half, activation=activation)
        self.cheap = conv_norm(half, half, 3, groups=half, activation=activation)

    def forward(self, value: Tensor) -> Tensor:
        primary = self.primary(value)
        return torch.cat((primary, self.cheap(primary)), dim=1)


class GhostBottleneck(nn.Module):
    """Two ghost modules, a depthwise convolution between them where there is a stride."""

    def __init__(
        self, in_channels: int, expanded: int, width: int, kernel: int, stride: int, gated: bool
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = [Ghost(in_channels, expanded, nn.ReLU)]
        if stride > 1:
            layers.append(conv_norm(expanded, expanded, kernel, stride, expanded))
        if gated:
            layers.append(SqueezeExcite(expanded, rounded(expanded / 4, 4), gate=nn.Hardsigmoid))
        self.body = nn.Sequential(*layers, Ghost(expanded, width, nn.Identity))
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or in_channels != width:
            self.shortcut = nn.Sequential(
                conv_norm(in_channels, in_channels, kernel, stride, in_channels),
                conv_norm(in_channels, width),
            )

    def forward(self, value: Tensor) -> Tensor:
        result: Tensor = self.body(value) + self.shortcut(value)
        return result


def ghostnet() -> nn.Module:
    """GhostNet 1.0."""
    channels = 16
    layers: list[nn.Module] = [conv_norm(3, channels, 3, 2, activation=nn.ReLU)]
    for kernel, expanded, width, gated, stride in ROWS:
        layers.append(GhostBottleneck(channels, expanded, width, kernel, stride, gated))
        channels = width
    return nn.Sequential(
        *layers,
        conv_norm(channels, 960, activation=nn.ReLU),
        nn.AdaptiveAvgPool2d(1),
        nn.Conv2d(960, 1280, 1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(1280, 1000),
    )
