"""Layers that several of the networks are made of."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

Activation = Callable[[], nn.Module]
"""Makes an activation; `nn.Identity` for none."""


def conv_norm(
    in_channels: int,
    out_channels: int,
    kernel: int = 1,
    stride: int = 1,
    groups: int = 1,
    activation: Activation = nn.Identity,
) -> nn.Sequential:
    """Convolution that keeps the size (but for its stride), batch norm, activation."""
    padding = kernel // 2
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel, stride, padding, groups=groups, bias=False),
        nn.BatchNorm2d(out_channels),
        activation(),
    )


def classifier(channels: int, classes: int = 1000) -> nn.Sequential:
    """Global average pooling and a linear layer, with dropout between them as papers have it."""
    return nn.Sequential(
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(channels, classes)
    )


def rounded(channels: float, divisor: int = 8) -> int:
    """The multiple of `divisor` next to a width, never below 90 % of it (MobileNetV2's rule)."""
    width = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return width + divisor if width < 0.9 * channels else width


class SqueezeExcite(nn.Module):
    """Gates channels by what they are on average (Hu et al. 2018, section 3)."""

    def __init__(
        self,
        channels: int,
        squeezed: int,
        activation: Activation = nn.ReLU,
        gate: Activation = nn.Sigmoid,
    ) -> None:
        super().__init__()
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, squeezed, 1),
            activation(),
            nn.Conv2d(squeezed, channels, 1),
            gate(),
        )

    def forward(self, value: Tensor) -> Tensor:
        result: Tensor = value * self.gate(value)
        return result


class InvertedResidual(nn.Module):
    """1x1, depthwise, 1x1 convolutions (Sandler et al. 2018, section 3.3).

    `squeeze_excite` makes the gate on the expanded channels, given their number.
    """

    def __init__(
        self,
        in_channels: int,
        expanded: int,
        out_channels: int,
        kernel: int = 3,
        stride: int = 1,
        activation: Activation = nn.ReLU6,
        squeeze_excite: Callable[[int], nn.Module] | None = None,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        if expanded != in_channels:
            layers.append(conv_norm(in_channels, expanded, activation=activation))
        layers.append(conv_norm(expanded, expanded, kernel, stride, expanded, activation))
        if squeeze_excite is not None:
            layers.append(squeeze_excite(expanded))
        layers.append(conv_norm(expanded, out_channels))
        self.body = nn.Sequential(*layers)
        self.has_shortcut = stride == 1 and in_channels == out_channels

    def forward(self, value: Tensor) -> Tensor:
        result: Tensor = self.body(value)
        return value + result if self.has_shortcut else result


class SelfAttention(nn.Module):
    """Attention of tokens (batch, tokens, channels) among themselves (Vaswani et al. 2017)."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.scale = (channels // heads) ** -0.5
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, channels)

    def forward(self, value: Tensor) -> Tensor:
        batch, tokens, channels = value.shape
        split = self.qkv(value).reshape(batch, tokens, 3, self.heads, channels // self.heads)
        query, key, content = split.permute(2, 0, 3, 1, 4).unbind(0)
        weights = ((query * self.scale) @ key.transpose(-2, -1)).softmax(dim=-1)
        joined = (weights @ content).transpose(1, 2).reshape(batch, tokens, channels)
        result: Tensor = self.out(joined)
        return result


class TransformerLayer(nn.Module):
    """Attention and two linear layers, each after a layer norm (Dosovitskiy et al. 2021)."""

    def __init__(
        self, channels: int, heads: int, hidden: int, activation: Activation = nn.GELU
    ) -> None:
        super().__init__()
        self.attention = nn.Sequential(nn.LayerNorm(channels), SelfAttention(channels, heads))
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(channels),
            nn.Linear(channels, hidden),
            activation(),
            nn.Linear(hidden, channels),
        )

    def forward(self, value: Tensor) -> Tensor:
        value = value + self.attention(value)
        result: Tensor = value + self.feed_forward(value)
        return result
