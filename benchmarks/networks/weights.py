"""Random weights that keep activations in range, so that outputs can be compared."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

NORMS = (nn.BatchNorm2d, nn.LayerNorm)
BATCH = 2
NORM_BIAS = 1.0
"""Deviation of the biases of norms: with small ones, deep networks magnify every difference."""

LEAST_SPREAD = 0.5
"""Share of a layer's mean square that is taken for variance too.

Deep layers see much the same in all random images; dividing by how little these differ would
magnify rounding errors.
"""


def set_random_weights(module: nn.Module, input_shape: tuple[int, ...], seed: int) -> None:
    """Draw all parameters, set the statistics of batch norms on random inputs, go to eval mode.

    Convolutions keep the variance of what follows a ReLU (He et al. 2015), linear layers that of
    their input. Torch's own state of random numbers is left as it is.
    """
    random = torch.Generator().manual_seed(seed)
    module.eval()
    with torch.no_grad():
        for layer in module.modules():
            _draw(layer, random)
        norms = [layer for layer in module.modules() if isinstance(layer, nn.BatchNorm2d)]
        if norms:
            hooks = [norm.register_forward_pre_hook(_set_statistics) for norm in norms]
            module(torch.randn(BATCH, *input_shape[1:], generator=random))
            for hook in hooks:
                hook.remove()


def _set_statistics(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    """Let a batch norm normalise what it is about to read."""
    value, axes = inputs[0], (0, 2, 3)
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    norm.running_mean.copy_(value.mean(axes))
    spread = value.var(axes, correction=0) + LEAST_SPREAD * value.square().mean()
    norm.running_var.copy_(spread)


def _draw(layer: nn.Module, random: torch.Generator) -> None:
    """Draw a layer's own parameters, not those of layers in it."""
    for name, parameter in layer.named_parameters(recurse=False):
        if name == "bias":
            parameter.normal_(0, NORM_BIAS if isinstance(layer, NORMS) else 0.1, generator=random)
        elif isinstance(layer, NORMS):
            parameter.uniform_(0.5, 1.5, generator=random)
        elif isinstance(layer, nn.Conv2d):
            fan_in = parameter[0].numel()
            parameter.normal_(0, math.sqrt(2 / fan_in), generator=random)
        elif isinstance(layer, nn.ConvTranspose2d | nn.Linear):
            fan_in = parameter.shape[-1] if parameter.ndim == 2 else parameter.shape[0]
            parameter.normal_(0, math.sqrt(1 / fan_in), generator=random)
        else:  # tokens, positions, layer scales
            parameter.uniform_(0.1, 0.5, generator=random)
