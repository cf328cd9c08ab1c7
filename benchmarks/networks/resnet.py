"""ResNet (He et al. 2016, table 1), and RegNetX, of grouped bottlenecks (Radosavovic et al. 2020).

ResNet-50 has its stride in the 3x3 convolution, as has become usual.
"""

from torch import Tensor, nn

from .layers import classifier, conv_norm

REGNETX_400MF = [(32, 1), (64, 2), (160, 7), (384, 12)]
"""Width and blocks of each stage (table 12 there), in groups of 16 channels."""


class Residual(nn.Module):
    """A body, a shortcut (1x1 convolution where sizes change), and a ReLU of their sum."""

    def __init__(self, body: nn.Module, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.body = body
        changes = stride > 1 or in_channels != out_channels
        self.shortcut: nn.Module = nn.Identity()
        if changes:
            self.shortcut = conv_norm(in_channels, out_channels, stride=stride)
        self.activation = nn.ReLU()

    def forward(self, value: Tensor) -> Tensor:
        result: Tensor = self.activation(self.body(value) + self.shortcut(value))
        return result


def basic(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    """Two 3x3 convolutions."""
    body = nn.Sequential(
        conv_norm(in_channels, out_channels, 3, stride, activation=nn.ReLU),
        conv_norm(out_channels, out_channels, 3),
    )
    return Residual(body, in_channels, out_channels, stride)


def bottleneck(
    in_channels: int, inner: int, out_channels: int, stride: int, groups: int = 1
) -> nn.Module:
    """1x1, 3x3, 1x1 convolutions."""
    body = nn.Sequential(
        conv_norm(in_channels, inner, activation=nn.ReLU),
        conv_norm(inner, inner, 3, stride, groups, nn.ReLU),
        conv_norm(inner, out_channels),
    )
    return Residual(body, in_channels, out_channels, stride)


def resnet18() -> nn.Module:
    """ResNet-18."""
    layers, channels = _stem(), 64
    for stage, width in enumerate((64, 128, 256, 512)):
        for index in range(2):
            layers.append(basic(channels, width, 2 if stage > 0 and index == 0 else 1))
            channels = width
    return nn.Sequential(*layers, classifier(channels))


def resnet50() -> nn.Module:
    """ResNet-50."""
    layers, channels = _stem(), 64
    for stage, (inner, blocks) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3))):
        for index in range(blocks):
            stride = 2 if stage > 0 and index == 0 else 1
            layers.append(bottleneck(channels, inner, 4 * inner, stride))
            channels = 4 * inner
    return nn.Sequential(*layers, classifier(channels))


def regnetx_400mf() -> nn.Module:
    """RegNetX-400MF."""
    channels = 32
    layers: list[nn.Module] = [conv_norm(3, channels, 3, 2, activation=nn.ReLU)]
    for width, blocks in REGNETX_400MF:
        for index in range(blocks):
            stride = 2 if index == 0 else 1
            layers.append(bottleneck(channels, width, width, stride, width // 16))
            channels = width
    return nn.Sequential(*layers, classifier(channels))


def _stem() -> list[nn.Module]:
    return [conv_norm(3, 64, 7, 2, activation=nn.ReLU), nn.MaxPool2d(3, 2, 1)]
