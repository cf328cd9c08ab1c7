"""Batches of training images, read and augmented by threads beside the one that trains."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..devices.errors import UsageError
from .data import Dataset, augment
from .images.crops import RandomCrops
from .prefetch import prefetched


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """What a step learns from: inputs (N, 3, height, width), and the class of each (N,).

    `random` holds the step's random numbers, `progress` is the share of all steps that are done.
    Steps and epochs count from 0.
    """

    inputs: Tensor
    labels: Tensor
    random: np.random.Generator
    step: int
    progress: float
    label_smoothing: float
    classes: int
    epoch: int = 0

    def loss(self, logits: Tensor) -> Tensor:
        """Cross entropy of logits (N, classes), with label smoothing.

        Raises `UsageError` where the network tells another number of classes apart.
        """
        if logits.shape[1] != self.classes:
            raise UsageError(
                f"the network tells {logits.shape[1]} classes apart, and the data set has "
                f"{self.classes}: make the space for that many"
            )
        return functional.cross_entropy(logits, self.labels, label_smoothing=self.label_smoothing)


@dataclass(frozen=True, slots=True)
class BatchLoader:
    """The batches of a training run: each depends on the seed and its step alone.

    Every epoch visits the images in an order of its own; what is left over at its end is left
    out. `shift` and `flip` are `data.augment`'s; where `crop` is below 1, a random part of each
    image is seen, of at least that share of its area. The number of `workers`, threads that read
    and augment, changes nothing in the batches.
    """

    data: Dataset
    epochs: int
    batch_size: int
    seed: int
    shift: int
    flip: bool
    label_smoothing: float
    workers: int = 1
    crop: float = 1.0

    @property
    def steps(self) -> int:
        """Batches of the whole run."""
        return self.epochs * self._epoch_steps

    def batches(self, first: int) -> Iterator[Batch]:
        """The batches from step `first` to the end, in order."""
        return prefetched(self.batch, range(first, self.steps), self.workers)

    def batch(self, step: int) -> Batch:
        """The batch of one step, made here: for one alone, or in a thread."""
        random = np.random.default_rng([self.seed, step])
        chosen = self.indices(step)
        train = self.data.train
        crops = RandomCrops.draw(random, len(chosen), self.crop) if self.crop < 1 else None
        pixels = augment(train.read(chosen, crops), random, shift=self.shift, flip=self.flip)
        return Batch(
            self.data.inputs(pixels),
            train.labels[chosen],
            random,
            step,
            step / self.steps,
            self.label_smoothing,
            len(self.data.classes),
            step // self._epoch_steps,
        )

    def indices(self, step: int) -> Tensor:
        """Which training images a step sees."""
        epoch, index = divmod(step, self._epoch_steps)
        # The 1 keeps the epochs' random numbers apart from the steps'.
        order = np.random.default_rng([self.seed, epoch, 1]).permutation(len(self.data.train))
        start = index * self._size
        return torch.from_numpy(order[start : start + self._size])

    @property
    def _size(self) -> int:
        return min(self.batch_size, len(self.data.train))

    @property
    def _epoch_steps(self) -> int:
        return len(self.data.train) // self._size


class Ahead:
    """A loader's batches by step, the following ones made by its threads meanwhile.

    For steps that are mostly asked for in turn; after the loader's last comes its first again.
    """

    def __init__(self, loader: BatchLoader) -> None:
        self._loader = loader
        self._batches: Iterator[Batch] = iter(())
        self._next = -1

    def batch(self, step: int) -> Batch:
        """The batch of one step, counted on beyond the loader's last."""
        step %= self._loader.steps
        if step != self._next:
            self._batches = self._loader.batches(step)
        batch = next(self._batches)
        self._next = step + 1
        return batch
