"""Batches of training images, read and augmented by threads beside the one that trains."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..devices.errors import UsageError
from . import distributed
from .data import Dataset, augment
from .images.crops import RandomCrops
from .prefetch import prefetched


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """What a step learns from: inputs (N, 3, height, width), and the class of each (N,).

    `random` holds the step's random numbers, `progress` is the share of all steps that are done.
    Steps and epochs count from 0, and the last step of an epoch says so; `seed` is the run's. Of
    several processes, each has a share of the step's images; their `random` is the same.
    """

    inputs: Tensor
    labels: Tensor
    random: np.random.Generator
    step: int
    progress: float
    label_smoothing: float
    classes: int
    epoch: int = 0
    seed: int = 0
    ends_epoch: bool = False

    def to(self, like: Tensor) -> Batch:
        """The batch on the device, and in the type, of a model's weights."""
        return replace(self, inputs=self.inputs.to(like), labels=self.labels.to(like.device))

    def split(self, count: int) -> list[Batch]:
        """Equal parts of the images, which all draw the same from `random`; the last moves it."""
        size = len(self.labels) // count
        parts = [slice(at * size, (at + 1) * size) for at in range(count)]
        randoms = [deepcopy(self.random) for _ in parts[1:]] + [self.random]
        return [
            replace(self, inputs=self.inputs[part], labels=self.labels[part], random=random)
            for part, random in zip(parts, randoms, strict=True)
        ]

    def own_random(self) -> np.random.Generator:
        """Random numbers of this process alone; moves `random` equally in all of them."""
        return np.random.default_rng([int(self.random.integers(2**63)), distributed.rank()])

    def loss(self, logits: Tensor) -> Tensor:
        """Cross entropy of logits (N, classes), with label smoothing.

        Raises `UsageError` where the network tells another number of classes apart.
        """
        if logits.shape[1] != self.classes:
            raise UsageError(
                f"the network tells {logits.shape[1]} classes apart, and the data set has "
                f"{self.classes}: make the space for that many"
            )
        return functional.cross_entropy(
            in_full(logits), self.labels, label_smoothing=self.label_smoothing
        )


def in_full(logits: Tensor) -> Tensor:
    """Logits of at least 32 bits, as a softmax needs."""
    return logits if logits.dtype == torch.float64 else logits.float()


@dataclass(frozen=True, slots=True)
class BatchLoader:
    """The batches of a training run: each depends on the seed and its step alone.

    Every epoch visits the images in an order of its own; what is left over at its end is left
    out. `shift` and `flip` are `data.augment`'s; where `crop` is below 1, a random part of each
    image is seen, of at least that share of its area. The number of `workers`, threads that read
    and augment, changes nothing in the batches. Of the `replicas` processes each, by its `rank`,
    reads its own `batch_size` images of a step: together they see what one process with the
    larger batch would.
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
    rank: int = field(default_factory=distributed.rank)
    replicas: int = field(default_factory=distributed.replicas)

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
        chosen = self.indices(step)[self.rank * self._size : (self.rank + 1) * self._size]
        train = self.data.train
        crops = None
        if self.crop < 1:
            all_crops = RandomCrops.draw(random, self.replicas * len(chosen), self.crop)
            crops = all_crops.share(self.rank, len(chosen))
        pixels = augment(
            train.read(chosen, crops),
            random,
            shift=self.shift,
            flip=self.flip,
            rank=self.rank,
            replicas=self.replicas,
        )
        return Batch(
            self.data.inputs(pixels),
            train.labels[chosen],
            random,
            step,
            step / self.steps,
            self.label_smoothing,
            len(self.data.classes),
            step // self._epoch_steps,
            self.seed,
            (step + 1) % self._epoch_steps == 0,
        )

    def indices(self, step: int) -> Tensor:
        """Which training images a step sees, those of all processes."""
        epoch, index = divmod(step, self._epoch_steps)
        # The 1 keeps the epochs' random numbers apart from the steps'.
        order = np.random.default_rng([self.seed, epoch, 1]).permutation(len(self.data.train))
        size = self.replicas * self._size
        return torch.from_numpy(order[index * size : (index + 1) * size])

    @property
    def _size(self) -> int:
        return min(self.batch_size, len(self.data.train) // self.replicas)

    @property
    def _epoch_steps(self) -> int:
        return len(self.data.train) // (self.replicas * self._size)


@dataclass(frozen=True, slots=True)
class ValidationLoader:
    """Validation images that a step scores by: `batch_size` of them, drawn anew for each step.

    They depend on the seed, the step and the process alone; `workers` threads read them, as they
    are. They are all of the validation images where those are fewer.
    """

    data: Dataset
    batch_size: int
    seed: int
    workers: int = 1
    rank: int = field(default_factory=distributed.rank)

    @property
    def steps(self) -> int:
        """There is no last one."""
        return sys.maxsize

    def batches(self, first: int) -> Iterator[Batch]:
        """The batches from step `first` on, in order."""
        return prefetched(self.batch, range(first, self.steps), self.workers)

    def batch(self, step: int) -> Batch:
        """The batch of one step, made here: for one alone, or in a thread."""
        # The 2 keeps these numbers apart from those of training images.
        random = np.random.default_rng([self.seed, step, 2, self.rank])
        part = self.data.validation
        chosen = torch.from_numpy(random.permutation(len(part))[: self.batch_size])
        return Batch(
            self.data.inputs(part.read(chosen)),
            part.labels[chosen],
            random,
            step,
            progress=0.0,
            label_smoothing=0.0,
            classes=len(self.data.classes),
            seed=self.seed,
        )


class Loader(Protocol):
    """What makes batches by threads, each by its step."""

    @property
    def steps(self) -> int:
        """How many batches there are."""

    def batches(self, first: int) -> Iterator[Batch]:
        """The batches from step `first` to the end, in order."""


class Ahead:
    """A loader's batches by step, the following ones made by its threads meanwhile.

    For steps that are mostly asked for in turn; after the loader's last comes its first again.
    """

    def __init__(self, loader: Loader) -> None:
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
