"""The size of a space's networks: as its paper has them for ImageNet, or for small images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ...devices.errors import UsageError

CHANNEL_MULTIPLE = 8


@dataclass(frozen=True, slots=True)
class Scale:
    """How a space of ImageNet is made to fit other images.

    All channel counts are multiplied by `width` and rounded to multiples of 8; at width 1 they
    stay as they are. `resolutions` are
    those that its networks read, in pixels; a paper's own where empty. The first `unit_strides`
    layers with stride 2 (the stem is the first) have stride 1 instead, so that small images keep
    their size longer.
    """

    width: float = 1.0
    resolutions: tuple[int, ...] = ()
    unit_strides: int = 0

    def __post_init__(self) -> None:
        if not self.width > 0 or self.unit_strides < 0 or any(r < 1 for r in self.resolutions):
            raise UsageError(f"{self} is no scale: widths and resolutions are above 0")

    def channels(self, channels: int) -> int:
        """A channel count at this scale."""
        return channels if self.width == 1 else rounded_channels(channels * self.width)

    def strides(self, strides: Sequence[int]) -> list[int]:
        """These strides, the stem's first, with the first `unit_strides` of 2 replaced by 1."""
        left, found = self.unit_strides, []
        for stride in strides:
            if stride > 1 and left > 0:
                left, stride = left - 1, 1
            found.append(stride)
        return found


PAPER = Scale()
"""As published."""

SMALL_IMAGES = Scale(width=0.25, resolutions=(32,), unit_strides=2)
"""For 32-pixel images: a quarter of the channels, and the first two strides left out."""


def rounded_channels(channels: float) -> int:
    """The nearest multiple of 8, half up, at least 8 (TuNAS, Bender et al. 2020, released code)."""
    return max(CHANNEL_MULTIPLE, int(channels / CHANNEL_MULTIPLE + 0.5) * CHANNEL_MULTIPLE)
