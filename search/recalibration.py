"""Scoring architectures with the supernet's weights, each with batch-norm statistics of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from ..devices.errors import LatkitError
from ..latency.torch_model import TorchModel
from .data import Dataset, Part, at_resolution
from .prefetch import prefetched
from .space import Architecture

SCORING_BATCH = 64
"""Larger batches are slower on a CPU: their values leave its caches."""


@torch.no_grad()
def recalibrate(model: nn.Module, batches: Sequence[Tensor]) -> None:
    """Replace batch-norm statistics by their average over `batches` of training inputs.

    Statistics gathered while other architectures trained fit none (SPOS, Guo et al. 2019). Changes
    nothing else, and leaves the model in evaluation mode.
    """
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a cumulative average
    model.train()
    try:
        for batch in batches:
            model(_as_read(model, batch))
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        model.eval()


@torch.no_grad()
def accuracy(model: nn.Module, data: Dataset, part: Part) -> float:
    """Share of the images of `part` that the model, in evaluation mode, classifies correctly.

    They are read by a thread, and brought to the resolution that the model reads.
    """
    model.eval()
    right = 0
    count = len(part)
    batches = [
        range(start, min(start + SCORING_BATCH, count)) for start in range(0, count, SCORING_BATCH)
    ]
    inputs = prefetched(lambda chosen: data.inputs(part.read(chosen)), batches)
    for chosen, images in zip(batches, inputs, strict=True):
        logits = model(_as_read(model, images))
        if not torch.isfinite(logits).all():
            raise LatkitError(
                f"the network's outputs for {data.name} are not all numbers: its training has "
                "diverged. Train again with a lower learning rate."
            )
        right += int((logits.argmax(1).cpu() == part.labels[chosen.start : chosen.stop]).sum())
    return right / count


def _as_read(model: nn.Module, images: Tensor) -> Tensor:
    """Inputs on the model's device, in its type, at the resolution that it reads."""
    first = next(model.parameters(), None)
    images = images if first is None else images.to(first)
    if not isinstance(model, TorchModel):
        return images
    return at_resolution(images, model.graph.input_shape[1:])


def calibration_batches(data: Dataset, batches: int, batch_size: int, seed: int) -> list[Tensor]:
    """Inputs drawn from the training images, each at most once, for `recalibrate`."""
    order = np.random.default_rng(seed).permutation(len(data.train))
    size = min(batch_size, len(order))
    starts = range(0, min(batches * size, len(order) - size + 1), size)
    chosen = [order[start : start + size] for start in starts]
    return list(prefetched(lambda numbers: data.inputs(data.train.read(numbers)), chosen))


class Extractable(Protocol):
    """What holds the weights of all architectures of a space, each its own or shared."""

    def extract(self, architecture: Architecture) -> TorchModel:
        """The architecture's network with a copy of its weights."""


class SupernetEvaluator:
    """Validation accuracy of architectures that use a trained supernet's weights.

    Batch norms are recalibrated on `batches` batches of training images, the same ones for every
    architecture, so a score does not depend on what was scored before. Scores are cached; make a
    new evaluator when the supernet has been trained further.
    """

    def __init__(
        self,
        supernet: Extractable,
        data: Dataset,
        *,
        batches: int = 4,
        batch_size: int = SCORING_BATCH,
        seed: int = 0,
    ) -> None:
        self._supernet = supernet
        self._data = data
        self._batches = calibration_batches(data, batches, batch_size, seed)
        self._scores: dict[Architecture, float] = {}

    def accuracy(self, architecture: Architecture) -> float:
        """Share of the validation images classified correctly, 0 to 1."""
        if architecture not in self._scores:
            model = self.calibrated(architecture)
            self._scores[architecture] = accuracy(model, self._data, self._data.validation)
        return self._scores[architecture]

    def calibrated(self, architecture: Architecture) -> TorchModel:
        """The architecture's network with the supernet's weights and statistics of its own."""
        model = self._supernet.extract(architecture)
        recalibrate(model, self._batches)
        return model
