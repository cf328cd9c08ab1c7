"""YOLOX-Nano: a detector with a feature pyramid (Ge et al. 2021, section 2.2, table 5)."""

import torch
from torch import Tensor, nn

from .layers import conv_norm

CLASSES, HIDDEN = 80, 64


def _conv(in_channels: int, out_channels: int, kernel: int = 1) -> nn.Sequential:
    return conv_norm(in_channels, out_channels, kernel, activation=nn.SiLU)


def _separable(in_channels: int, out_channels: int, stride: int = 1) -> nn.Sequential:
    depthwise = conv_norm(in_channels, in_channels, 3, stride, in_channels, nn.SiLU)
    return nn.Sequential(depthwise, _conv(in_channels, out_channels))


class Bottleneck(nn.Module):
    """1x1 and separable 3x3 convolution, added to the input if asked for."""

    def __init__(self, channels: int, shortcut: bool) -> None:
        super().__init__()
        self.body = nn.Sequential(_conv(channels, channels), _separable(channels, channels))
        self.shortcut = shortcut

    def forward(self, value: Tensor) -> Tensor:
        result: Tensor = self.body(value)
        return value + result if self.shortcut else result


class CrossStage(nn.Module):
    """Half of the channels go through bottlenecks, half pass by (CSPNet, Wang et al. 2020)."""

    def __init__(self, in_channels: int, out_channels: int, blocks: int, shortcut: bool) -> None:
        super().__init__()
        half = out_channels // 2
        layers = [Bottleneck(half, shortcut) for _ in range(blocks)]
        self.main = nn.Sequential(_conv(in_channels, half), *layers)
        self.side = _conv(in_channels, half)
        self.join = _conv(out_channels, out_channels)

    def forward(self, value: Tensor) -> Tensor:
        result: Tensor = self.join(torch.cat((self.main(value), self.side(value)), dim=1))
        return result


class Focus(nn.Module):
    """Every second pixel as channels of its own, then a 3x3 convolution."""

    def __init__(self, out_channels: int) -> None:
        super().__init__()
        self.conv = _conv(12, out_channels, 3)

    def forward(self, image: Tensor) -> Tensor:
        corners = [image[..., row::2, column::2] for column in range(2) for row in range(2)]
        result: Tensor = self.conv(torch.cat(corners, dim=1))
        return result


class PyramidPool(nn.Module):
    """Maximum pools of three sizes beside the input (He et al. 2015)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.enter = _conv(channels, channels // 2)
        self.pools = nn.ModuleList(nn.MaxPool2d(size, 1, size // 2) for size in (5, 9, 13))
        self.leave = _conv(2 * channels, channels)

    def forward(self, value: Tensor) -> Tensor:
        value = self.enter(value)
        result: Tensor = self.leave(torch.cat([value, *(pool(value) for pool in self.pools)], 1))
        return result


class Head(nn.Module):
    """Boxes, objectness and classes of one size, by two branches."""

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.stem = _conv(in_channels, HIDDEN)
        self.class_branch = nn.Sequential(*[_separable(HIDDEN, HIDDEN) for _ in range(2)])
        self.box_branch = nn.Sequential(*[_separable(HIDDEN, HIDDEN) for _ in range(2)])
        self.classes = nn.Conv2d(HIDDEN, CLASSES, 1)
        self.boxes = nn.Conv2d(HIDDEN, 4, 1)
        self.objects = nn.Conv2d(HIDDEN, 1, 1)

    def forward(self, value: Tensor) -> Tensor:
        value = self.stem(value)
        boxes = self.box_branch(value)
        parts = [self.boxes(boxes), self.objects(boxes).sigmoid()]
        parts.append(self.classes(self.class_branch(value)).sigmoid())
        return torch.cat(parts, dim=1).flatten(2)


class YoloX(nn.Module):
    """Backbone, features passed down and up again, a head for each of three sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.fine = nn.Sequential(
            Focus(16),
            _separable(16, 32, 2),
            CrossStage(32, 32, 1, True),
            _separable(32, 64, 2),
            CrossStage(64, 64, 3, True),
        )
        self.middle = nn.Sequential(_separable(64, 128, 2), CrossStage(128, 128, 3, True))
        self.coarse = nn.Sequential(
            _separable(128, 256, 2), PyramidPool(256), CrossStage(256, 256, 1, False)
        )
        self.narrow_coarse = _conv(256, 128)
        self.down_middle = CrossStage(256, 128, 1, False)
        self.narrow_middle = _conv(128, 64)
        self.down_fine = CrossStage(128, 64, 1, False)
        self.halve_fine = _separable(64, 64, 2)
        self.up_middle = CrossStage(128, 128, 1, False)
        self.halve_middle = _separable(128, 128, 2)
        self.up_coarse = CrossStage(256, 256, 1, False)
        self.upsample = nn.Upsample(scale_factor=2, mode="nearest")
        self.heads = nn.ModuleList(Head(width) for width in (64, 128, 256))

    def forward(self, image: Tensor) -> Tensor:
        fine = self.fine(image)
        middle = self.middle(fine)
        coarse = self.narrow_coarse(self.coarse(middle))
        middle = self.down_middle(torch.cat((self.upsample(coarse), middle), dim=1))
        middle = self.narrow_middle(middle)
        fine = self.down_fine(torch.cat((self.upsample(middle), fine), dim=1))
        middle = self.up_middle(torch.cat((self.halve_fine(fine), middle), dim=1))
        coarse = self.up_coarse(torch.cat((self.halve_middle(middle), coarse), dim=1))
        sizes = zip(self.heads, (fine, middle, coarse), strict=True)
        return torch.cat([head(value) for head, value in sizes], dim=2).permute(0, 2, 1)


def yolox_nano() -> nn.Module:
    """YOLOX-Nano."""
    return YoloX()
