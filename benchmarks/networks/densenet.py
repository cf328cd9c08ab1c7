"""DenseNet-121: every layer reads all before it (Huang et al. 2017, table 1)."""

import torch
from torch import Tensor, nn

from .layers import classifier

GROWTH = 32
BLOCKS = (6, 12, 24, 16)


class DenseLayer(nn.Module):
    """Batch norm and ReLU before a 1x1 and a 3x3 convolution; the result is appended."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, 4 * GROWTH, 1, bias=False),
            nn.BatchNorm2d(4 * GROWTH),
            nn.ReLU(),
            nn.Conv2d(4 * GROWTH, GROWTH, 3, padding=1, bias=False),
        )

    def forward(self, value: Tensor) -> Tensor:
        return torch.cat((value, self.body(value)), dim=1)


def densenet121() -> nn.Module:
    """DenseNet-121."""
    channels = 2 * GROWTH
    layers: list[nn.Module] = [nn.Conv2d(3, channels, 7, 2, 3, bias=False)]
    layers += [nn.BatchNorm2d(channels), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    for stage, count in enumerate(BLOCKS):
        for _ in range(count):
            layers.append(DenseLayer(channels))
            channels += GROWTH
        layers += [nn.BatchNorm2d(channels), nn.ReLU()]
        if stage < len(BLOCKS) - 1:
            layers += [nn.Conv2d(channels, channels // 2, 1, bias=False), nn.AvgPool2d(2)]
            channels //= 2
    return nn.Sequential(*layers, classifier(channels))
