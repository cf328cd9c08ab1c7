"""MobileViT-XS: transformers between convolutions (Mehta and Rastegari 2022, table 4)."""

import torch
from torch import Tensor, nn

from .layers import InvertedResidual, TransformerLayer, classifier, conv_norm

PATCH = 2


class MobileViTBlock(nn.Module):
    """Convolutions, a transformer over the pixels at the same place of each patch, a fusion."""

    def __init__(self, channels: int, tokens: int, layers: int) -> None:
        super().__init__()
        self.local = nn.Sequential(
            conv_norm(channels, channels, 3, activation=nn.SiLU),
            nn.Conv2d(channels, tokens, 1, bias=False),
        )
        self.layers = nn.Sequential(
            *[TransformerLayer(tokens, 4, 2 * tokens, nn.SiLU) for _ in range(layers)],
            nn.LayerNorm(tokens),
        )
        self.back = conv_norm(tokens, channels, activation=nn.SiLU)
        self.fusion = conv_norm(2 * channels, channels, 3, activation=nn.SiLU)

    def forward(self, value: Tensor) -> Tensor:
        image = self.local(value)
        batch, channels, height, width = image.shape
        rows, columns = height // PATCH, width // PATCH
        # (B, C, H, W) -> (B C rows, 2, columns, 2) -> (B, C, patches, 4) -> (B 4, patches, C)
        parts = image.reshape(batch * channels * rows, PATCH, columns, PATCH).transpose(1, 2)
        parts = parts.reshape(batch, channels, rows * columns, PATCH**2).transpose(1, 3)
        tokens = self.layers(parts.reshape(batch * PATCH**2, rows * columns, channels))
        parts = tokens.reshape(batch, PATCH**2, rows * columns, channels).transpose(1, 3)
        parts = parts.reshape(batch * channels * rows, columns, PATCH, PATCH).transpose(1, 2)
        image = self.back(parts.reshape(batch, channels, height, width))
        result: Tensor = self.fusion(torch.cat((value, image), dim=1))
        return result


def mobilevit_xs() -> nn.Module:
    """MobileViT-XS."""

    def mobile(in_channels: int, out_channels: int, stride: int) -> nn.Module:
        expanded = 4 * in_channels
        return InvertedResidual(
            in_channels, expanded, out_channels, stride=stride, activation=nn.SiLU
        )

    return nn.Sequential(
        conv_norm(3, 16, 3, 2, activation=nn.SiLU),
        mobile(16, 32, 1),
        mobile(32, 48, 2),
        mobile(48, 48, 1),
        mobile(48, 48, 1),
        mobile(48, 64, 2),
        MobileViTBlock(64, 96, 2),
        mobile(64, 80, 2),
        MobileViTBlock(80, 120, 4),
        mobile(80, 96, 2),
        MobileViTBlock(96, 144, 3),
        conv_norm(96, 384, activation=nn.SiLU),
        classifier(384),
    )
