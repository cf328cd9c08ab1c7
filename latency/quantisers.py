"""Rounding of weights and activations to few bits, trained through it straight.

What is rounded stays float: such a network learns what hardware of so few bits would compute.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from .ops import FULL_PRECISION, INITIAL_CLIP, Conv

SMALLEST_CLIP = 1e-3
"""A clip value that training has driven below this one acts as this one."""


class RoundedConv2d(nn.Conv2d):
    """An operation's convolution; its float weight is rounded to `weight_bits` where it is used."""

    def __init__(self, op: Conv) -> None:
        super().__init__(
            op.in_channels,
            op.out_channels,
            op.kernel_size,
            op.stride,
            padding=op.padding,
            dilation=op.dilation,
            groups=op.groups,
            bias=op.bias and not op.batch_norm,
        )
        self.weight_bits = op.weight_bits

    def used_weight(self) -> Tensor:
        """The weight as it is used."""
        return quantise_weight(self.weight, self.weight_bits)

    def forward(self, value: Tensor) -> Tensor:
        """(N, in_channels, height, width) -> (N, out_channels, height', width')."""
        return functional.conv2d(
            value,
            self.used_weight(),
            self.bias,
            self.stride,
            self.padding,
            self.dilation,
            self.groups,
        )


class Quantiser(nn.Module):
    """Clips to a learned range and rounds to 2 ** `bits` levels (PACT, Choi et al. 2018).

    `clip` has three dimensions, all of length 1: so weight decay reaches it as it does weights,
    and not biases (PACT's decay of clip values is as strong as that of weights: recalled).
    """

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.bits = bits
        self.clip = nn.Parameter(torch.full((1, 1, 1), INITIAL_CLIP))

    def forward(self, value: Tensor) -> Tensor:
        """A value of any shape -> the same shape."""
        return quantise_activation(value, self.positive_clip(), self.bits)

    def positive_clip(self) -> Tensor:
        """The clip value in use; its gradient is the parameter's, also where that is too small."""
        return self.clip + (self.clip.clamp(min=SMALLEST_CLIP) - self.clip).detach()


def quantise_activation(value: Tensor, clip: Tensor, bits: int) -> Tensor:
    """`value` within [0, clip], rounded to one of 2 ** `bits` levels from 0 to `clip`.

    The gradient of `value` passes where 0 <= value < clip, that of `clip` is 1 where
    value >= clip: rounding is passed straight, and the size of its steps is no path for gradients
    (PACT, Choi et al. 2018, section 3, recalled).
    """
    steps = 2**bits - 1
    size = clip.detach()
    scaled = torch.where(value < clip, value.clamp(min=0), clip) * torch.div(steps, size)
    return _rounded(scaled) * torch.div(size, steps)


def quantise_weight(weight: Tensor, bits: int) -> Tensor:
    """A weight rounded to 2 ** `bits` levels, symmetric around 0 and without it, for the tensor.

    The levels divide the range of the largest magnitude evenly. This is DoReFa's quantizer (Zhou
    et al. 2016, recalled) without its tanh, which hardly bends small weights; a weight that is
    rounded already stays as it is. One bit is the sign times the mean magnitude. The gradient is
    passed straight.
    """
    if bits >= FULL_PRECISION:
        return weight
    magnitude = weight.detach().abs()
    if bits == 1:
        size = magnitude.mean()
        rounded = torch.where(weight.detach() < 0, -size, size)
    else:
        steps = 2**bits - 1
        size = magnitude.max().clamp(min=torch.finfo(weight.dtype).tiny)
        level = ((weight.detach() / size + 1) * (steps / 2)).round()
        rounded = (2 * level - steps) * (size / steps)
    return weight - weight.detach() + rounded


def _rounded(value: Tensor) -> Tensor:
    """To the nearest whole number, half to even; the difference to it is exact in floats."""
    return value + (value.round() - value).detach()
