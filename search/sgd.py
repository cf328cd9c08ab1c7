"""Stochastic gradient descent that leaves alone what a step did not use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

Region = tuple[slice, ...]
"""The part of a tensor that an architecture uses: the first channels in each dimension."""


class SGD:
    """SGD with momentum (heavy ball) and weight decay on weights (not on biases and batch norms).

    A parameter without a gradient gets neither momentum nor decay; of one with an entry in
    `active`, only that region does. So a path that a step did not take keeps its weights and its
    momentum (SPOS, Guo et al. 2019: exactly one path is updated in a step). `torch.optim.SGD`
    would move and shrink the channels beyond those in use, whose gradient is 0, not missing.
    """

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        *,
        momentum: float,
        weight_decay: float,
        active: Mapping[str, Region],
    ) -> None:
        self._parameters = dict(parameters)
        self._velocities = {
            name: torch.zeros_like(value) for name, value in self._parameters.items()
        }
        self._momentum = momentum
        self._weight_decay = weight_decay
        self._active = active

    @torch.no_grad()
    def step(self, learning_rate: float) -> None:
        """Move every parameter that has a gradient, where it is active."""
        for name, parameter in self._parameters.items():
            if parameter.grad is None:
                continue
            region = self._active.get(name, ())
            weight, velocity = parameter[region], self._velocities[name][region]
            velocity.mul_(self._momentum).add_(parameter.grad[region])
            if parameter.ndim > 1:
                velocity.add_(weight, alpha=self._weight_decay)
            weight.sub_(velocity, alpha=learning_rate)

    def clear_gradients(self) -> None:
        """Forget all gradients."""
        for parameter in self._parameters.values():
            parameter.grad = None

    def state_dict(self) -> dict[str, Tensor]:
        """The velocities, by the name of their parameter."""
        return dict(self._velocities)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take velocities written by `state_dict`; `KeyError` where one is missing."""
        for name, velocity in self._velocities.items():
            velocity.copy_(state[name])
