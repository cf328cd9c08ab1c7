"""U-Net: an encoder and a decoder joined at every size (Ronneberger et al. 2015, figure 1).

Depth is the paper's; widths are a quarter of its, convolutions keep the size, with batch norm.
"""

import torch
from torch import Tensor, nn

from .layers import conv_norm

WIDTHS = (16, 32, 64, 128, 256)


def _double(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        conv_norm(in_channels, out_channels, 3, activation=nn.ReLU),
        conv_norm(out_channels, out_channels, 3, activation=nn.ReLU),
    )


class UNet(nn.Module):
    """Two 3x3 convolutions at each of five sizes; up again by transposed convolutions."""

    def __init__(self, classes: int = 2) -> None:
        super().__init__()
        pairs = list(zip((3, *WIDTHS), WIDTHS, strict=False))
        self.down = nn.ModuleList(_double(*pair) for pair in pairs)
        rising = list(reversed(pairs[1:]))
        self.up = nn.ModuleList(nn.ConvTranspose2d(high, low, 2, 2) for low, high in rising)
        self.join = nn.ModuleList(_double(2 * low, low) for low, _ in rising)
        self.pool = nn.MaxPool2d(2)
        self.head = nn.Conv2d(WIDTHS[0], classes, 1)

    def forward(self, value: Tensor) -> Tensor:
        kept = []
        for level, layer in enumerate(self.down):
            value = layer(value if level == 0 else self.pool(value))
            kept.append(value)
        for skipped, up, join in zip(reversed(kept[:-1]), self.up, self.join, strict=True):
            value = join(torch.cat((skipped, up(value)), dim=1))
        result: Tensor = self.head(value)
        return result


def unet() -> nn.Module:
    """U-Net with a quarter of the paper's widths."""
    return UNet()
