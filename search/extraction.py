"""From the supernet to a network of its own: the weights that one architecture uses, copied."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from ..latency.torch_model import TorchModel
from .space import Architecture

if TYPE_CHECKING:
    from .supernet import Supernet


@torch.no_grad()
def extract(supernet: Supernet, architecture: Architecture) -> TorchModel:
    """The architecture's network with a copy of its share of the supernet's weights.

    Where the architecture has scaled middle channels, those whose depthwise kernels have the
    largest L1 norm are copied, in every layer that they pass (TF-NAS). Its batch norms
    have no statistics yet: `recalibration.recalibrate` gives them.
    """
    model = TorchModel(supernet.space.network(architecture))
    weights = supernet.weights(supernet.lent_layers(architecture, model))
    like = next(iter(weights.values()))
    model.to(like.device, like.dtype)
    for name, parameter in model.named_parameters():
        parameter.copy_(weights[name])
    return model
