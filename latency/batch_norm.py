"""Batch norm whose statistics can be those of all processes that train together."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, distributed, nn

_shared: ContextVar[bool] = ContextVar("shared_statistics", default=False)


@contextmanager
def shared_statistics() -> Iterator[None]:
    """In training, batch norms use the statistics of all processes for as long as a `with` lasts.

    The processes must run the same batch norms in the same order, on equally many images each.
    """
    token = _shared.set(True)
    try:
        yield
    finally:
        _shared.reset(token)


class BatchNorm(nn.BatchNorm2d):
    """torch's batch norm, which under `shared_statistics` is as if one process had all images.

    `nn.SyncBatchNorm` does that on GPUs alone, and always.
    """

    def forward(self, value: Tensor) -> Tensor:
        """(N, channels, height, width) -> the same shape."""
        if not (self.training and _shared.get()):
            return super().forward(value)
        # Of few bits, sums over thousands of values would be far off.
        exact = value.float() if value.dtype in (torch.bfloat16, torch.float16) else value
        mean, variance = _statistics(exact)
        if self.track_running_stats and self.running_mean is not None:
            count = distributed.get_world_size() * value.numel() // value.shape[1]
            self._follow(mean.detach(), variance.detach() * count / max(1, count - 1))
        scale = self.weight * torch.rsqrt(variance + self.eps)
        result = (exact - mean[:, None, None]) * scale[:, None, None] + self.bias[:, None, None]
        return result.to(value.dtype)

    @torch.no_grad()
    def _follow(self, mean: Tensor, variance: Tensor) -> None:
        """Move the running statistics towards the batch's."""
        assert self.running_mean is not None and self.running_var is not None
        assert self.num_batches_tracked is not None and self.momentum is not None
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean.to(self.running_mean), self.momentum)
        self.running_var.lerp_(variance.to(self.running_var), self.momentum)


def _statistics(value: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance by channel over the images of all processes."""
    variance, mean = torch.var_mean(value, (0, 2, 3), correction=0)
    everyone = value.new_zeros(distributed.get_world_size(), 2, len(mean))
    own = torch.arange(len(everyone), device=value.device) == distributed.get_rank()
    gathered = torch.where(own[:, None, None], torch.stack([mean, variance]), everyone)
    means, variances = _sum(gathered).unbind(1)
    mean = means.mean(0)
    # Unlike the mean of squares less the squared mean, this loses no digits.
    return mean, (variances + (means - mean).square()).mean(0)


class _Sum(torch.autograd.Function):
    """Sum over processes; what reaches it backwards is summed over them too."""

    @staticmethod
    def forward(context: Any, value: Tensor) -> Tensor:
        """The sum, of the value's shape."""
        return _summed(value)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        """Every process's result depends on this one's value."""
        return _summed(gradient)


_sum: Callable[[Tensor], Tensor] = _Sum.apply


def _summed(value: Tensor) -> Tensor:
    total = value.contiguous().clone()
    distributed.all_reduce(total)
    return total
