"""Training in fewer bits: which operations compute so, and losses scaled to stay above zero."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

from ..devices.errors import LatkitError
from .settings import Precision

FIRST_SCALE = 2.0**16
GROWTH_STEPS = 2000
"""Steps without overflow after which the scale doubles; both numbers are torch's own."""

_scale: ContextVar[float] = ContextVar("loss_scale", default=1.0)


def backward(loss: Tensor) -> None:
    """Add a loss's gradients to the weights', times the loss scale of the step."""
    # Backward operations have the types of the forward ones; autocast is for these alone.
    with torch.autocast(loss.device.type, enabled=False):
        torch.autograd.backward(loss * _scale.get())


def gradients(loss: Tensor, inputs: Sequence[Tensor]) -> list[Tensor]:
    """A loss's gradients by `inputs`, for what a way of learning moves itself."""
    scale = _scale.get()
    with torch.autocast(loss.device.type, enabled=False):
        found = torch.autograd.grad(loss * scale, inputs)
    return [gradient / scale for gradient in found]


class Computation:
    """How a training step computes.

    In `bfloat16` and `float16`, convolutions and products do so by `torch.autocast`, while
    weights, their updates and batch-norm statistics keep the weights' own type. Gradients that
    would be zero in `float16` are kept by a factor on the loss, which halves at an overflow
    (dynamic loss scaling; Micikevicius et al. 2018, section 3.2, recalled).
    """

    def __init__(self, precision: Precision, device: torch.device) -> None:
        self.scale = FIRST_SCALE if precision == "float16" else 1.0
        self._precision = precision
        self._device = device.type
        self._steady_steps = 0

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Compute so for as long as a `with` lasts."""
        # Cast weights are not kept: some ways of learning move weights between two passes.
        token = _scale.set(self.scale)
        try:
            with torch.autocast(
                self._device,
                getattr(torch, self._precision) if self._lower else None,
                enabled=self._lower,
                cache_enabled=False,
            ):
                yield
        finally:
            _scale.reset(token)

    def unscale(self, gradients: Sequence[Tensor], passes: int) -> bool:
        """Divide summed gradients by the scale and the number of passes.

        False where they overflowed, and the step must be left out; raises `LatkitError` where
        that is not for the scale.
        """
        divisor = self.scale * passes
        if divisor != 1:
            for gradient in gradients:
                gradient.div_(divisor)
        if self._precision != "float16" or not gradients:
            return True
        if torch.stack([gradient.isfinite().all() for gradient in gradients]).all():
            self._steady_steps += 1
            if self._steady_steps == GROWTH_STEPS:
                self.scale, self._steady_steps = 2 * self.scale, 0
            return True
        if self.scale < 1:
            raise LatkitError(
                "training diverged: gradients in float16 are not numbers. Use a lower learning "
                "rate, or bfloat16."
            )
        self.scale, self._steady_steps = self.scale / 2, 0
        return False

    @property
    def _lower(self) -> bool:
        return self._precision != "float32"

    def state_dict(self) -> dict[str, float]:
        """The scale, and since how many steps it has been right."""
        return {"scale": self.scale, "steady_steps": self._steady_steps}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Take a state that `state_dict` gave."""
        self.scale, self._steady_steps = state["scale"], int(state["steady_steps"])
