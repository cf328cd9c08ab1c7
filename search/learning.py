"""What a way of learning is, which `training.Trainer` calls in every step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from .loading import Batch
from .precision import backward

Learn = Callable[[Batch], float]
"""One way of learning: adds the gradients of a batch to the weights', and returns the loss.

Gradients come from `learn`, or from `precision.gradients` for what it moves itself: of several
processes `Trainer` averages the weights', and `distributed.average` anything else. Processes that
run other layers than each other, as after `Batch.own_random`, can't share batch-norm statistics:
then, or where it wants its own, a way of learning has an attribute `own_statistics` that is true.
"""


@runtime_checkable
class Remembers(Protocol):
    """A way of learning that has a state of its own, which belongs into the checkpoint."""

    def state_dict(self) -> dict[str, Any]:
        """The state, of tensors and plain values."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take a state that `state_dict` gave."""


@runtime_checkable
class LearnsAfterStep(Protocol):
    """A way of learning that goes on once the weights were moved by what they learned."""

    def after_step(self, batch: Batch) -> None:
        """Called in the same step, with the same batch; leaves the weights and gradients alone."""


def learn(loss: Tensor) -> float:
    """Add a loss's gradients to the weights' and return its value."""
    backward(loss)
    return loss.item()
