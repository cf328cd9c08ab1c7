"""MobileNetV3: hard swish and squeeze-and-excite (Howard et al. 2019, tables 1 and 2)."""

from torch import nn

from .layers import InvertedResidual, SqueezeExcite, conv_norm, rounded

Row = tuple[int, int, int, bool, bool, int]

LARGE: list[Row] = [
    (3, 16, 16, False, False, 1),
    (3, 64, 24, False, False, 2),
    (3, 72, 24, False, False, 1),
    (5, 72, 40, True, False, 2),
    (5, 120, 40, True, False, 1),
    (5, 120, 40, True, False, 1),
    (3, 240, 80, False, True, 2),
    (3, 200, 80, False, True, 1),
    (3, 184, 80, False, True, 1),
    (3, 184, 80, False, True, 1),
    (3, 480, 112, True, True, 1),
    (3, 672, 112, True, True, 1),
    (5, 672, 160, True, True, 2),
    (5, 960, 160, True, True, 1),
    (5, 960, 160, True, True, 1),
]
"""Kernel, expanded channels, width, squeeze-and-excite, hard swish, stride."""

SMALL: list[Row] = [
    (3, 16, 16, True, False, 2),
    (3, 72, 24, False, False, 2),
    (3, 88, 24, False, False, 1),
    (5, 96, 40, True, True, 2),
    (5, 240, 40, True, True, 1),
    (5, 240, 40, True, True, 1),
    (5, 120, 48, True, True, 1),
    (5, 144, 48, True, True, 1),
    (5, 288, 96, True, True, 2),
    (5, 576, 96, True, True, 1),
    (5, 576, 96, True, True, 1),
]


def mobilenet_v3_large() -> nn.Module:
    """MobileNetV3-Large 1.0."""
    return _network(LARGE, 960, 1280)


def mobilenet_v3_small() -> nn.Module:
    """MobileNetV3-Small 1.0."""
    return _network(SMALL, 576, 1024)


def _squeeze_excite(channels: int) -> nn.Module:
    return SqueezeExcite(channels, rounded(channels / 4), gate=nn.Hardsigmoid)


def _network(rows: list[Row], last: int, hidden: int) -> nn.Module:
    channels = 16
    layers: list[nn.Module] = [conv_norm(3, channels, 3, 2, activation=nn.Hardswish)]
    for kernel, expanded, width, gated, hard_swish, stride in rows:
        activation = nn.Hardswish if hard_swish else nn.ReLU
        gate = _squeeze_excite if gated else None
        layers.append(InvertedResidual(channels, expanded, width, kernel, stride, activation, gate))
        channels = width
    return nn.Sequential(
        *layers,
        conv_norm(channels, last, activation=nn.Hardswish),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(last, hidden),
        nn.Hardswish(),
        nn.Dropout(0.2),
        nn.Linear(hidden, 1000),
    )
