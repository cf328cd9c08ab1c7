"""What ends a staged space's networks."""

from __future__ import annotations

from ...latency.blocks import Head, PooledHead
from ...latency.ops import Activation
from .staged import MakeHead


def pooled_head(classes: int, activation: Activation = "relu6") -> MakeHead:
    """1x1 convolution of the chosen width, global average pool, classifier."""

    def head(in_channels: int, size: int, hidden: int) -> Head:
        return Head(
            in_channels=in_channels,
            height=size,
            width=size,
            hidden_channels=hidden,
            classes=classes,
            activation=activation,
        )

    return head


def mobilenet_v3_head(classes: int) -> MakeHead:
    """1x1 convolution, global average pool, hidden layer, classifier: two widths are chosen."""

    def head(in_channels: int, size: int, hidden: int, pooled: int) -> PooledHead:
        return PooledHead(
            in_channels=in_channels,
            height=size,
            width=size,
            hidden_channels=hidden,
            pooled_features=pooled,
            classes=classes,
        )

    return head
