"""SSDLite on MobileNetV2 (Sandler et al. 2018, section 6.2): a detector of six scales."""

import torch
from torch import Tensor, nn

from .layers import conv_norm
from .mobilenet_v2 import mobilenet_v2_layers

CLASSES = 91
EXTRAS = ((1280, 256, 512), (512, 128, 256), (256, 128, 256), (256, 64, 128))
"""Channels read, in between, and given, by the layers that halve the size after the backbone."""

SCALES = ((576, 3), (1280, 6), (512, 6), (256, 6), (256, 6), (128, 6))
"""Channels and anchors of the six sizes that boxes are read from."""


def _separable(channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        conv_norm(channels, channels, 3, groups=channels, activation=nn.ReLU6),
        nn.Conv2d(channels, out_channels, 1),
    )


def _extra(in_channels: int, between: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        conv_norm(in_channels, between, activation=nn.ReLU6),
        conv_norm(between, between, 3, 2, between, nn.ReLU6),
        conv_norm(between, out_channels, activation=nn.ReLU6),
    )


class SSDLite(nn.Module):
    """Boxes and class probabilities of all anchors, before non-maximum suppression."""

    def __init__(self) -> None:
        super().__init__()
        layers = mobilenet_v2_layers()
        expansion, *rest = layers[14].get_submodule("body").children()
        self.fine = nn.Sequential(*layers[:14], expansion)
        self.coarse = nn.Sequential(*rest, *layers[15:])
        self.extras = nn.ModuleList(_extra(*channels) for channels in EXTRAS)
        self.boxes = nn.ModuleList(_separable(width, 4 * count) for width, count in SCALES)
        self.classes = nn.ModuleList(_separable(width, CLASSES * count) for width, count in SCALES)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        features = [self.fine(image)]
        features.append(self.coarse(features[-1]))
        for extra in self.extras:
            features.append(extra(features[-1]))
        boxes = [_rows(head(value), 4) for head, value in zip(self.boxes, features, strict=True)]
        scores = [
            _rows(head(value), CLASSES) for head, value in zip(self.classes, features, strict=True)
        ]
        return torch.cat(boxes, dim=1), torch.cat(scores, dim=1).sigmoid()


def _rows(value: Tensor, columns: int) -> Tensor:
    """(N, anchors * columns, H, W) as (N, H * W * anchors, columns)."""
    batch = value.shape[0]
    return value.permute(0, 2, 3, 1).reshape(batch, -1, columns)


def ssdlite_mobilenet_v2() -> nn.Module:
    """SSDLite on MobileNetV2 1.0."""
    return SSDLite()
