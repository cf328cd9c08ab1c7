"""ConvNeXt-T: 7x7 depthwise convolutions, layer norm, GELU (Liu et al. 2022, section 2)."""

import torch
from torch import Tensor, nn

WIDTHS, BLOCKS = (96, 192, 384, 768), (3, 3, 9, 3)


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of an image."""

    def forward(self, value: Tensor) -> Tensor:
        return super().forward(value.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ConvNeXtBlock(nn.Module):
    """Depthwise 7x7, then two linear layers on channels, scaled and added to the input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.body = nn.Sequential(
            nn.LayerNorm(channels, eps=1e-6),
            nn.Linear(channels, 4 * channels),
            nn.GELU(),
            nn.Linear(4 * channels, channels),
        )
        self.layer_scale = nn.Parameter(torch.ones(channels))

    def forward(self, value: Tensor) -> Tensor:
        scaled = self.layer_scale * self.body(self.depthwise(value).permute(0, 2, 3, 1))
        result: Tensor = value + scaled.permute(0, 3, 1, 2)
        return result


def convnext_tiny() -> nn.Module:
    """ConvNeXt-T."""
    channels = WIDTHS[0]
    layers: list[nn.Module] = [nn.Conv2d(3, channels, 4, 4), ChannelNorm(channels, eps=1e-6)]
    for stage, (width, blocks) in enumerate(zip(WIDTHS, BLOCKS, strict=True)):
        if stage > 0:
            layers += [ChannelNorm(channels, eps=1e-6), nn.Conv2d(channels, width, 2, 2)]
            channels = width
        layers += [ConvNeXtBlock(channels) for _ in range(blocks)]
    return nn.Sequential(
        *layers,
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.LayerNorm(channels, eps=1e-6),
        nn.Linear(channels, 1000),
    )
