"""ShuffleNetV2: half of the channels go through a branch (Ma et al. 2018, figure 3, table 5)."""

import torch
from torch import Tensor, nn

from .layers import classifier, conv_norm

STAGES = [(116, 4), (232, 8), (464, 4)]
"""Width and units of each stage at 1.0."""


class Unit(nn.Module):
    """Two branches, concatenated and shuffled; without a stride, the first is half the input."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        half = out_channels // 2
        source = in_channels if stride > 1 else half
        self.passed = half if stride == 1 else 0
        self.branch = nn.Sequential(
            conv_norm(source, half, activation=nn.ReLU),
            conv_norm(half, half, 3, stride, half),
            conv_norm(half, half, activation=nn.ReLU),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1:
            self.shortcut = nn.Sequential(
                conv_norm(source, source, 3, stride, source),
                conv_norm(source, half, activation=nn.ReLU),
            )

    def forward(self, value: Tensor) -> Tensor:
        left, right = value, value
        if self.passed:
            left, right = torch.split(value, self.passed, dim=1)
        joined = torch.cat((self.shortcut(left), self.branch(right)), dim=1)
        batch, channels, height, width = joined.shape
        groups = joined.view(batch, 2, channels // 2, height, width)
        return groups.transpose(1, 2).reshape(batch, channels, height, width)


def shufflenet_v2() -> nn.Module:
    """ShuffleNetV2 1.0."""
    channels = 24
    layers: list[nn.Module] = [
        conv_norm(3, channels, 3, 2, activation=nn.ReLU),
        nn.MaxPool2d(3, 2, 1),
    ]
    for width, units in STAGES:
        for index in range(units):
            layers.append(Unit(channels, width, 2 if index == 0 else 1))
            channels = width
    return nn.Sequential(*layers, conv_norm(channels, 1024, activation=nn.ReLU), classifier(1024))
