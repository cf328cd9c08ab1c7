"""SqueezeNet 1.1: fire modules (Iandola et al. 2016, section 3; 1.1 pools earlier)."""

import torch
from torch import Tensor, nn

FIRES = [(16, 64), (16, 64), None, (32, 128), (32, 128), None]
FIRES += [(48, 192), (48, 192), (64, 256), (64, 256)]
"""Squeezed channels, and those of each of the two expansions; a pool where there are none."""


class Fire(nn.Module):
    """A 1x1 convolution that squeezes, then a 1x1 and a 3x3 that expand, side by side."""

    def __init__(self, in_channels: int, squeezed: int, expanded: int) -> None:
        super().__init__()
        self.squeeze = nn.Sequential(nn.Conv2d(in_channels, squeezed, 1), nn.ReLU())
        self.narrow = nn.Sequential(nn.Conv2d(squeezed, expanded, 1), nn.ReLU())
        self.wide = nn.Sequential(nn.Conv2d(squeezed, expanded, 3, padding=1), nn.ReLU())

    def forward(self, value: Tensor) -> Tensor:
        value = self.squeeze(value)
        return torch.cat((self.narrow(value), self.wide(value)), dim=1)


def squeezenet_1_1() -> nn.Module:
    """SqueezeNet 1.1."""
    channels = 64
    layers: list[nn.Module] = [nn.Conv2d(3, channels, 3, 2), nn.ReLU(), _pool()]
    for fire in FIRES:
        if fire is None:
            layers.append(_pool())
            continue
        layers.append(Fire(channels, *fire))
        channels = 2 * fire[1]
    layers += [nn.Dropout(0.5), nn.Conv2d(channels, 1000, 1), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())


def _pool() -> nn.Module:
    return nn.MaxPool2d(3, 2, ceil_mode=True)
