"""Training in several processes, each on a share of every batch.

A script started by `torchrun` puts all that it does into `with processes() as device`; `Trainer`
does the rest. Every process makes the same model and data.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, distributed, nn

from ..devices.errors import UsageError
from .sgd import Region


@contextmanager
def processes() -> Iterator[torch.device]:
    """Join the processes that `torchrun` started with this one; gives this one's device.

    They talk by NCCL where there are GPUs, one for each process, else by gloo. A script that
    `torchrun` did not start is alone.
    """
    device = torch.device("cpu")
    if torch.cuda.is_available():
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    if not distributed.is_available() or not distributed.is_torchelastic_launched():
        yield device
        return
    distributed.init_process_group("gloo" if device.type == "cpu" else "nccl")
    try:
        yield device
    finally:
        distributed.destroy_process_group()


def replicas() -> int:
    """How many processes train together; 1 where this one is alone."""
    return distributed.get_world_size() if _together() else 1


def rank() -> int:
    """Which of the processes this is, from 0."""
    return distributed.get_rank() if _together() else 0


def _together() -> bool:
    return distributed.is_available() and distributed.is_initialized()


def wait_for_all() -> None:
    """Return when all processes have come here."""
    if _together():
        distributed.barrier()


@torch.no_grad()
def average(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The mean over all processes of each tensor, which has one shape in all of them."""
    if replicas() == 1 or not tensors:
        return list(tensors)
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
    distributed.all_reduce(flat)
    parts = torch.split(flat / replicas(), [tensor.numel() for tensor in tensors])
    return [part.view(tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]


@torch.no_grad()
def gathered(rows: Tensor) -> Tensor:
    """(N, ...) -> (processes * N, ...): what all processes have, in the order of their ranks."""
    if replicas() == 1:
        return rows
    found = [torch.empty_like(rows) for _ in range(replicas())]
    distributed.all_gather(found, rows.contiguous())
    return torch.cat(found)


@torch.no_grad()
def average_gradients(parameters: Mapping[str, nn.Parameter], active: dict[str, Region]) -> None:
    """Make every gradient its mean over all processes, and `active` the union of their regions.

    Where one process has no gradient and another one has, it counts as zeros.
    """
    if replicas() == 1:
        return
    first = next(iter(parameters.values()))
    rows = [_used(parameter, active.get(name, ())) for name, parameter in parameters.items()]
    used = torch.tensor(rows, device=first.device)
    distributed.all_reduce(used, distributed.ReduceOp.MAX)
    regions = []
    for (name, parameter), row in zip(parameters.items(), used.tolist(), strict=True):
        if not row[0]:
            continue
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        active[name] = tuple(
            slice(-low, high)
            for low, high in zip(row[1 : 2 * parameter.ndim : 2], row[2::2], strict=False)
        )
        regions.append(parameter.grad[active[name]])
    for region, mean in zip(regions, average(regions), strict=True):
        region.copy_(mean)


MOST_DIMENSIONS = 4


def _used(parameter: Tensor, region: Region) -> list[int]:
    """Whether there is a gradient, then -start and stop by dimension: unions are their maxima."""
    if parameter.grad is None:
        return [0] + 2 * MOST_DIMENSIONS * [torch.iinfo(torch.int64).min]
    full = [slice(0, size) for size in parameter.shape]
    sides = [*region, *full[len(region) :]]
    ends = [end for side in sides for end in (-side.start, side.stop)]
    return [1, *ends, *(2 * (MOST_DIMENSIONS - parameter.ndim) * [0])]


@torch.no_grad()
def average_statistics(model: nn.Module) -> None:
    """Make batch norms' running statistics their mean over all processes."""
    statistics = [buffer for buffer in model.buffers() if buffer.is_floating_point()]
    for buffer, mean in zip(statistics, average(statistics), strict=True):
        buffer.copy_(mean)


def require_equal(what: str, device: torch.device) -> None:
    """Raise `UsageError` where the processes came here with different texts."""
    if replicas() == 1:
        return
    number = int.from_bytes(hashlib.sha256(what.encode()).digest()[:7], "big")
    ends = torch.tensor([number, -number], device=device)
    distributed.all_reduce(ends, distributed.ReduceOp.MAX)
    if ends.tolist() != [number, -number]:
        raise UsageError(
            "the processes do not train the same: give all of them the same model, initial "
            "weights, data, settings and checkpoint"
        )
