"""The one training loop, of weight-sharing supernets and of single networks."""

from __future__ import annotations

import hashlib
import math
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ..devices.errors import DamagedFileError, LatkitError, UsageError
from .checkpoint import read_tensors, write_tensors
from .data import Dataset, augment
from .sgd import SGD, Region
from .supernet import Supernet

CHECKPOINT_VERSION = 1
CHECKPOINT_SECONDS = 15.0
"""A killed run repeats at most this much training, and the step during which it was killed."""

Schedule = Literal["linear", "cosine"]
Forward = Callable[[Tensor, np.random.Generator], Tensor]
"""Inputs (N, 3, height, width) and the step's random numbers -> logits (N, classes)."""


@dataclass(frozen=True, slots=True)
class TrainingSettings:
    """How weights are trained.

    SGD with momentum .9, weight decay 4e-5, linear decay and label smoothing .1 are SPOS's (Guo
    et al. 2019); its rate of .5 is for batches of 1024, the one here for small batches and data.
    The rate rises linearly over the first `warmup_share` of all steps, then falls to 0. `shift`
    and `flip` are `data.augment`'s. `seed` fixes the order of images, augmentation and paths.
    """

    epochs: int
    batch_size: int = 64
    learning_rate: float = 0.1
    schedule: Schedule = "linear"
    warmup_share: float = 0.05
    momentum: float = 0.9
    weight_decay: float = 4e-5
    label_smoothing: float = 0.1
    shift: int = 2
    flip: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 2:
            raise UsageError(
                f"training takes at least 1 epoch and batches of at least 2 images, not "
                f"{self.epochs} and {self.batch_size}"
            )

    def rate(self, progress: float) -> float:
        """Learning rate after this share of all steps."""
        if progress < self.warmup_share:
            return self.learning_rate * progress / self.warmup_share
        left = (1 - progress) / (1 - self.warmup_share)
        if self.schedule == "linear":
            return self.learning_rate * left
        return self.learning_rate * (1 - math.cos(math.pi * left)) / 2


SUPERNET_SETTINGS = TrainingSettings(epochs=40)
RETRAINING_SETTINGS = TrainingSettings(epochs=20, schedule="cosine")
"""Defaults that suit the digits in the mobile space: about 90 and 30 processor-seconds."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a training run is: `step` of `steps` are done, the last one had this loss."""

    step: int
    steps: int
    loss: float


def set_threads(threads: int | None) -> None:
    """Have torch compute with this many threads (`None`: one for each processor), repeatably."""
    torch.set_num_threads(threads or os.cpu_count() or 1)
    torch.use_deterministic_algorithms(True)


class Trainer:
    """Trains `model` for a number of epochs; goes on from `checkpoint` where that file exists.

    All that is random in a step is drawn from (seed, step), and all that a run changes is in its
    checkpoint: a run that was killed and goes on ends with the weights of one that was not, bit
    for bit with the same number of threads. `subject` names what is trained; a checkpoint of
    another subject, data set or settings is refused.
    """

    def __init__(
        self,
        model: nn.Module,
        data: Dataset,
        settings: TrainingSettings,
        *,
        subject: str,
        checkpoint: Path | None = None,
        checkpoint_seconds: float = CHECKPOINT_SECONDS,
    ) -> None:
        self.model = model
        self.settings = settings
        self.finished_steps = 0
        self._data = data
        self._batch_size = min(settings.batch_size, len(data.train))
        self._epoch_steps = len(data.train) // self._batch_size
        self.steps = settings.epochs * self._epoch_steps
        self._active: dict[str, Region] = getattr(model, "active", {})
        self._optimiser = SGD(
            dict(model.named_parameters()),
            momentum=settings.momentum,
            weight_decay=settings.weight_decay,
            active=self._active,
        )
        self._identity = {"subject": subject, "data": data.key, **asdict(settings)}
        self._checkpoint = checkpoint
        self._checkpoint_seconds = checkpoint_seconds
        if checkpoint is not None and checkpoint.exists():
            self._resume(checkpoint)

    def run(self, forward: Forward, progress: Callable[[Progress], None] | None = None) -> None:
        """Train to the end, writing the checkpoint every `checkpoint_seconds` and at the end.

        Raises `LatkitError` where the loss is no longer a number.
        """
        if self.finished_steps == self.steps:
            return
        self.model.train()
        written_at = time.monotonic()
        while self.finished_steps < self.steps:
            loss = self.step(forward)
            if progress is not None:
                progress(Progress(self.finished_steps, self.steps, loss))
            if time.monotonic() - written_at >= self._checkpoint_seconds:
                self.save()
                written_at = time.monotonic()
        self.save()

    def step(self, forward: Forward) -> float:
        """Train on the next batch; return its loss."""
        settings, data = self.settings, self._data
        random = np.random.default_rng([settings.seed, self.finished_steps])
        chosen = self._batch()
        pixels = augment(
            data.train.pixels[chosen], random, shift=settings.shift, flip=settings.flip
        )
        self._active.clear()
        logits = forward(data.inputs(pixels), random)
        if logits.shape[1] != len(data.classes):
            raise UsageError(
                f"the network tells {logits.shape[1]} classes apart, and {data.name} has "
                f"{len(data.classes)}: make the space for that many"
            )
        loss = functional.cross_entropy(
            logits, data.train.labels[chosen], label_smoothing=settings.label_smoothing
        )
        value = loss.item()
        if not math.isfinite(value):
            raise LatkitError(
                f"training diverged in step {self.finished_steps + 1} of {self.steps}: the loss "
                f"is {value}. Use a learning rate below {settings.learning_rate:g}."
            )
        torch.autograd.backward(loss)
        self._optimiser.step(settings.rate((self.finished_steps + 0.5) / self.steps))
        self._optimiser.clear_gradients()
        self.finished_steps += 1
        return value

    def save(self) -> None:
        """Write the checkpoint, where there is one to write."""
        if self._checkpoint is None:
            return
        body = {
            "identity": self._identity,
            "finished_steps": self.finished_steps,
            "model": self.model.state_dict(),
            "optimiser": self._optimiser.state_dict(),
        }
        write_tensors(self._checkpoint, "checkpoint", CHECKPOINT_VERSION, body)

    def _resume(self, checkpoint: Path) -> None:
        body = read_tensors(checkpoint, "checkpoint", CHECKPOINT_VERSION)
        try:
            found = body["identity"]
            if found != self._identity:
                self._refuse(checkpoint, found)
            self.model.load_state_dict(body["model"])
            self._optimiser.load_state_dict(body["optimiser"])
            self.finished_steps = body["finished_steps"]
        except (KeyError, TypeError, AttributeError, RuntimeError) as error:
            raise DamagedFileError(
                f"{checkpoint} lacks a part of the training run. Delete it to train again."
            ) from error

    def _refuse(self, checkpoint: Path, found: dict[str, object]) -> None:
        names = [name for name, value in self._identity.items() if found.get(name) != value]
        raise UsageError(
            f"{checkpoint} is of another training run: its {', '.join(names)} differ. Delete it, "
            "or choose another place for this run."
        )

    def _batch(self) -> Tensor:
        """Indices of the next batch: each epoch visits the images in an order of its own."""
        epoch, index = divmod(self.finished_steps, self._epoch_steps)
        # The 1 keeps the epochs' random numbers apart from the steps'.
        random = np.random.default_rng([self.settings.seed, epoch, 1])
        order = random.permutation(len(self._data.train))
        start = index * self._batch_size
        return torch.from_numpy(order[start : start + self._batch_size])


def train_supernet(
    supernet: Supernet,
    data: Dataset,
    settings: TrainingSettings = SUPERNET_SETTINGS,
    *,
    checkpoint: Path | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> None:
    """Train the shared weights: each step one architecture, drawn uniformly (SPOS).

    Goes on from `checkpoint` where that file exists; a finished one is taken as it is.
    """
    subject = f"supernet of {supernet.space.name} with initial weights {fingerprint(supernet)}"
    trainer = Trainer(supernet, data, settings, subject=subject, checkpoint=checkpoint)
    sample = supernet.space.sample
    trainer.run(lambda images, random: supernet(images, sample(random)), progress)


def fingerprint(model: nn.Module) -> str:
    """A short sha256 over a module's weights (not its statistics), equal for equal weights."""
    digest = hashlib.sha256()
    for name, parameter in model.named_parameters():
        digest.update(name.encode())
        digest.update(parameter.detach().contiguous().numpy().data)
    return digest.hexdigest()[:32]
