"""DeiT-Tiny: a vision transformer (Dosovitskiy et al. 2021; Touvron et al. 2021, table 1)."""

import torch
from torch import Tensor, nn

from .layers import TransformerLayer

CHANNELS, HEADS, LAYERS, PATCH, PIXELS = 192, 3, 12, 16, 224


class VisionTransformer(nn.Module):
    """Patches as tokens, with one token more that the class is read from; batch 1."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, CHANNELS, PATCH, PATCH)
        self.class_token = nn.Parameter(torch.zeros(1, 1, CHANNELS))
        self.positions = nn.Parameter(torch.zeros(1, (PIXELS // PATCH) ** 2 + 1, CHANNELS))
        layers = [TransformerLayer(CHANNELS, HEADS, 4 * CHANNELS) for _ in range(LAYERS)]
        self.layers = nn.Sequential(*layers, nn.LayerNorm(CHANNELS))
        self.head = nn.Linear(CHANNELS, 1000)

    def forward(self, image: Tensor) -> Tensor:
        tokens = self.patches(image).flatten(2).transpose(1, 2)
        tokens = torch.cat((self.class_token, tokens), dim=1) + self.positions
        result: Tensor = self.head(self.layers(tokens)[:, 0])
        return result


def deit_tiny() -> nn.Module:
    """DeiT-Tiny of 16-pixel patches."""
    return VisionTransformer()
