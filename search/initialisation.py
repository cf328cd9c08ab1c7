"""Initial weights, of supernets and of networks that are trained on their own."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def initialise(weight: Tensor, random: torch.Generator) -> None:
    """Draw initial weights, uniform with variance 1 / (3 * fan-in), as torch's own layers have.

    Under batch norm the size of weights changes the learning rate alone: with the larger ones of
    He et al. (2015), a supernet takes several times as long to learn.
    """
    nn.init.kaiming_uniform_(weight, a=math.sqrt(5), generator=random)
