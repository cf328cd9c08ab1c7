"""The one training loop, of weight-sharing supernets and of single networks."""

from __future__ import annotations

import hashlib
import math
import os
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from ..devices.errors import DamagedFileError, LatkitError, UsageError
from ..latency.batch_norm import shared_statistics
from .checkpoint import read_tensors, write_tensors
from .data import Dataset
from .distributed import (
    average,
    average_gradients,
    average_statistics,
    rank,
    replicas,
    require_equal,
    wait_for_all,
)
from .learning import Learn, LearnsAfterStep, Remembers
from .loading import Ahead, Batch, BatchLoader
from .precision import Computation
from .rmsprop import RMSProp
from .settings import OptimiserKind, TrainingSettings
from .sgd import SGD, Region

CHECKPOINT_VERSION = 1
CHECKPOINT_SECONDS = 15.0
"""A killed run repeats at most this much training, and the step during which it was killed."""

OPTIMISERS: dict[OptimiserKind, type[SGD | RMSProp]] = {"sgd": SGD, "rmsprop": RMSProp}


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a training run is: `step` of `steps` are done, the last one had this loss."""

    step: int
    steps: int
    loss: float


def set_threads(threads: int | None) -> None:
    """Have torch compute with this many threads (`None`: one for each processor), repeatably."""
    torch.set_num_threads(threads or os.cpu_count() or 1)
    # Without it, matrix products on GPUs are refused for not being repeatable.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    # The same as `use_deterministic_algorithms(True)`, which first imports a compiler for seconds.
    torch.set_deterministic_debug_mode("error")


class Trainer:
    """Trains `model` for a number of epochs; goes on from `checkpoint` where that file exists.

    All that is random in a step is drawn from (seed, step), and all that a run changes is in its
    checkpoint: a run that was killed and goes on ends with the weights of one that was not, bit
    for bit with the same number of threads. `subject` names what is trained; a checkpoint of
    another subject, data set or settings is refused. `workers` threads read and augment images.

    It trains where the model is: move that first. A checkpoint may go on on another device. Within
    `distributed.processes`, all processes train one model; the first one writes the checkpoint.
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
        workers: int = 1,
    ) -> None:
        self.model = model
        self.settings = settings
        self.finished_steps = 0
        self._batches = BatchLoader(
            data,
            settings.epochs,
            settings.batch_size * settings.accumulation,
            settings.seed,
            settings.shift,
            settings.flip,
            settings.label_smoothing,
            workers,
            settings.crop,
        )
        self._ahead = Ahead(self._batches)
        images = settings.batch_size * settings.accumulation * replicas()
        if images > max(settings.batch_size, len(data.train)):
            raise UsageError(
                f"a step takes {images} images, and there are {len(data.train)} to train on: use "
                "smaller batches, accumulate less or start fewer processes"
            )
        self.steps = self._batches.steps
        self._like = next(model.parameters())
        self._computation = Computation(settings.precision, self._like.device)
        self._active: dict[str, Region] = getattr(model, "active", {})
        self._parameters = dict(model.named_parameters())
        self._optimiser = OPTIMISERS[settings.optimiser](
            self._parameters,
            momentum=settings.momentum,
            weight_decay=settings.weight_decay,
            active=self._active,
        )
        self._identity = {
            "subject": subject,
            "data": data.key,
            "processes": replicas(),
            **asdict(settings),
        }
        self._average = (
            AveragedModel(model, avg_fn=self._averaged, use_buffers=True)
            if settings.average_decay
            else None
        )
        self._learner: Learn | None = None
        self._learner_state: dict[str, Any] | None = None
        self._checkpoint = checkpoint
        self._checkpoint_seconds = checkpoint_seconds
        if checkpoint is not None and checkpoint.exists():
            self._resume(checkpoint)
        if replicas() > 1:
            start = f"{self._identity} {self.finished_steps} {fingerprint(model)}"
            require_equal(start, self._like.device)

    def run(self, learn: Learn, progress: Callable[[Progress], None] | None = None) -> None:
        """Train to the end, writing the checkpoint every `checkpoint_seconds` and at the end.

        Raises `LatkitError` where the loss is no longer a number.
        """
        self._take_on(learn)
        if self.finished_steps == self.steps:
            return
        self.model.train()
        written_at = time.monotonic()
        for batch in self._batches.batches(self.finished_steps):
            loss = self.step(learn, batch)
            if progress is not None:
                progress(Progress(self.finished_steps, self.steps, loss))
            if time.monotonic() - written_at >= self._checkpoint_seconds:
                self.save()
                written_at = time.monotonic()
        self.save()
        wait_for_all()

    def step(self, learn: Learn, batch: Batch | None = None) -> float:
        """Train on the next batch, made ahead by threads where it is not given; return its loss."""
        settings = self.settings
        if batch is None:
            batch = self._ahead.batch(self.finished_steps)
        batch = batch.to(self._like)
        self._take_on(learn)
        self._active.clear()
        value = self._learn(learn, batch)
        if not math.isfinite(value):
            raise LatkitError(
                f"training diverged in step {self.finished_steps + 1} of {self.steps}: the loss "
                f"is {value}. Use a learning rate below {settings.learning_rate:g}."
            )
        average_gradients(self._parameters, self._active)
        gradients = [weight.grad for weight in self._parameters.values() if weight.grad is not None]
        if self._computation.unscale(gradients, settings.accumulation):
            if settings.gradient_clip:
                nn.utils.clip_grad_norm_(self.model.parameters(), settings.gradient_clip)
            self._optimiser.step(settings.rate((self.finished_steps + 0.5) / self.steps))
        self._optimiser.clear_gradients()
        if self._average is not None:
            self._average.update_parameters(self.model)
        if isinstance(learn, LearnsAfterStep):
            learn.after_step(batch)
        self.finished_steps += 1
        return value

    def _learn(self, learn: Learn, batch: Batch) -> float:
        """Have the gradients of a batch added to the weights'; the loss is of all processes."""
        # What torch draws itself, for dropout, is the step's too, apart for each pass.
        seed = int(batch.random.integers(2**63))
        parts = batch.split(self.settings.accumulation)
        own_statistics = getattr(learn, "own_statistics", False)
        shares = replicas() > 1 and not own_statistics
        device = self._like.device
        devices = [device] if device.type == "cuda" else []
        values = []
        with (
            torch.random.fork_rng(devices=devices),
            self._computation(),
            shared_statistics() if shares else nullcontext(),
        ):
            for number, part in enumerate(parts, start=rank() * len(parts)):
                torch.manual_seed(seed + number)
                values.append(learn(part))
        if replicas() > 1 and own_statistics:
            average_statistics(self.model)
        value = torch.tensor(values, dtype=torch.float64, device=device).mean()
        return float(average([value])[0])

    def take_average(self) -> None:
        """Give the model its averaged weights and statistics, where there is an average."""
        if self._average is not None:
            self.model.load_state_dict(self._average.module.state_dict())

    def _averaged(self, average: Tensor, value: Tensor, _: Tensor | int) -> Tensor:
        """The next average; the first ones weigh less, being far from the end."""
        if not average.is_floating_point():
            return value
        count = self.finished_steps  # torch's own would have to be fetched from a GPU
        decay = min(self.settings.average_decay, (1 + count) / (10 + count))
        return average * decay + value * (1 - decay)

    def _take_on(self, learn: Learn) -> None:
        """Give a way of learning the state that the checkpoint has of it."""
        if learn is self._learner:
            return
        self._learner = learn
        if self._learner_state is not None and isinstance(learn, Remembers):
            learn.load_state_dict(self._learner_state)
            self._learner_state = None

    def save(self) -> None:
        """Write the checkpoint, where there is one to write."""
        if self._checkpoint is None or rank() != 0:
            return
        body = {
            "identity": self._identity,
            "finished_steps": self.finished_steps,
            "model": self.model.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "computation": self._computation.state_dict(),
        }
        if self._average is not None:
            body["average"] = self._average.state_dict()
        if isinstance(self._learner, Remembers):
            body["learner"] = self._learner.state_dict()
        write_tensors(self._checkpoint, "checkpoint", CHECKPOINT_VERSION, body)

    def _resume(self, checkpoint: Path) -> None:
        body = read_tensors(checkpoint, "checkpoint", CHECKPOINT_VERSION)
        try:
            found = body["identity"]
            if found != self._identity:
                self._refuse(checkpoint, found)
            self.model.load_state_dict(body["model"])
            self._optimiser.load_state_dict(body["optimiser"])
            self._computation.load_state_dict(body["computation"])
            self.finished_steps = body["finished_steps"]
            self._learner_state = body.get("learner")
            if self._average is not None:
                self._average.load_state_dict(body["average"])
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


def fingerprint(model: nn.Module) -> str:
    """A short sha256 over a module's weights (not its statistics), equal for equal weights."""
    digest = hashlib.sha256()
    for name, parameter in model.named_parameters():
        digest.update(name.encode())
        digest.update(parameter.detach().cpu().contiguous().numpy().data)
    return digest.hexdigest()[:32]
