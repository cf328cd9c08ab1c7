"""Which channels of a shared weight an architecture uses."""

from __future__ import annotations

from torch import Tensor

Channels = slice | Tensor
"""The channels of a shared weight that an architecture uses: the first N, or those listed."""


def strongest_channels(weight: Tensor, count: int) -> Tensor:
    """The `count` channels of a depthwise weight whose kernels have the largest L1 norm, in order.

    They are what elasticity-scaling keeps (TF-NAS, Hu et al. 2020).
    """
    norms = weight.detach().abs().sum((1, 2, 3))
    return norms.argsort(descending=True, stable=True)[:count].sort().values


def channel_count(channels: Channels) -> int:
    """How many channels are in use."""
    return len(channels) if isinstance(channels, Tensor) else int(channels.stop)


def extent(channels: Channels) -> slice:
    """From the first channel to the last one in use."""
    if isinstance(channels, Tensor):
        return slice(0, int(channels.max()) + 1)
    return slice(0, 1 if channels.stop is None else int(channels.stop))
