"""RMSProp that leaves alone what a step did not use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from .sgd import Region


class RMSProp:
    """RMSProp with momentum, with which TuNAS trains weights (Bender et al. 2020, released code).

    The gradient, with weight decay on weights (not on biases and batch norms), is divided by the
    root of its mean square, which `decay` averages; `momentum` then averages the steps. As
    TensorFlow has it (recalled), `epsilon` stands inside the root and mean squares begin at 1.

    As with `SGD`, a parameter without a gradient rests, and of one with an entry in `active` all
    but that region does. TensorFlow's would go on moving a path that was left, and forget how large
    its gradients are; here both are as the path's own last step left them, and each update is of
    the sampled architecture alone, as the reward that follows it.
    """

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        *,
        momentum: float,
        weight_decay: float,
        active: Mapping[str, Region],
        decay: float = 0.9,
        epsilon: float = 1.0,
    ) -> None:
        self._parameters = dict(parameters)
        self._squares = {name: torch.ones_like(value) for name, value in self._parameters.items()}
        self._velocities = {
            name: torch.zeros_like(value) for name, value in self._parameters.items()
        }
        self._momentum = momentum
        self._weight_decay = weight_decay
        self._active = active
        self._decay = decay
        self._epsilon = epsilon

    @torch.no_grad()
    def step(self, learning_rate: float) -> None:
        """Move every parameter that has a gradient, where it is active."""
        for name, parameter in self._parameters.items():
            if parameter.grad is None:
                continue
            region = self._active.get(name, ())
            weight, gradient = parameter[region], parameter.grad[region]
            if parameter.ndim > 1:
                gradient = gradient.add(weight, alpha=self._weight_decay)
            squares, velocity = self._squares[name][region], self._velocities[name][region]
            squares.lerp_(gradient.square(), 1 - self._decay)
            size = squares.add(self._epsilon).sqrt_()
            velocity.mul_(self._momentum).addcdiv_(gradient, size, value=learning_rate)
            weight.sub_(velocity)

    def clear_gradients(self) -> None:
        """Forget all gradients."""
        for parameter in self._parameters.values():
            parameter.grad = None

    def state_dict(self) -> dict[str, dict[str, Tensor]]:
        """Mean squares and velocities, each by the name of their parameter."""
        return {"squares": dict(self._squares), "velocities": dict(self._velocities)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take what `state_dict` gave; `KeyError` where a part is missing."""
        for name in self._parameters:
            self._squares[name].copy_(state["squares"][name])
            self._velocities[name].copy_(state["velocities"][name])
