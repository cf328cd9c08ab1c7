"""How weights are trained: the settings of a run, and defaults for supernets and winners."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from ..devices.errors import UsageError

Schedule = Literal["linear", "cosine", "exponential"]
OptimiserKind = Literal["sgd", "rmsprop"]
Precision = Literal["float32", "bfloat16", "float16"]

EXPONENTIAL_END = 0.01
"""Share of the first rate at which an exponential schedule would end, were there no floor."""


@dataclass(frozen=True, slots=True)
class TrainingSettings:
    """How weights are trained.

    SGD with momentum .9, weight decay 4e-5, linear decay and label smoothing .1 are SPOS's (Guo
    et al. 2019); its rate of .5 is for batches of 1024, the one here for small batches and data.
    The rate rises linearly over the first `warmup_share` of all steps, then falls to 0, or to
    `floor_share` of its height where it then stays (BigNAS, Yu et al. 2020, section 3.2:
    exponential, 5 %). Gradients are scaled to a norm of `gradient_clip` at most, where it is not
    0. With an `average_decay` the trainer keeps an exponential moving average of the weights.
    `shift` and `flip` are `data.augment`'s; with a `crop` below 1, a random part of each image is
    trained on, of at least that share of its area (`crops.IMAGENET_CROP` is ImageNet's, without
    `shift`). `seed` fixes the order of images, augmentation and paths.

    A step sees `accumulation` times `batch_size` images, and that in each process, whose
    gradients it averages: as one batch would give, but for batch norms, which see `batch_size`
    images (of all processes) at a time, and dropout. A way of learning is called for each
    `batch_size` images and draws the same paths each time. `precision.Computation` says what
    `precision` is.
    """

    epochs: int
    batch_size: int = 64
    learning_rate: float = 0.1
    schedule: Schedule = "linear"
    warmup_share: float = 0.05
    floor_share: float = 0.0
    gradient_clip: float = 0.0
    average_decay: float = 0.0
    optimiser: OptimiserKind = "sgd"
    momentum: float = 0.9
    weight_decay: float = 4e-5
    label_smoothing: float = 0.1
    shift: int = 2
    flip: bool = False
    crop: float = 1.0
    seed: int = 0
    accumulation: int = 1
    precision: Precision = "float32"

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 2:
            raise UsageError(
                f"training takes at least 1 epoch and batches of at least 2 images, not "
                f"{self.epochs} and {self.batch_size}"
            )
        if not 0 < self.crop <= 1:
            raise UsageError(
                f"crop is a share of an image's area, above 0 and at most 1, not {self.crop}"
            )
        if self.optimiser not in get_args(OptimiserKind):
            raise UsageError(
                f"there is no optimiser {self.optimiser}; choose one of {get_args(OptimiserKind)}"
            )
        if self.accumulation < 1 or self.precision not in get_args(Precision):
            raise UsageError(
                f"a step accumulates at least 1 batch, in {', '.join(get_args(Precision))}; not "
                f"{self.accumulation}, in {self.precision}"
            )

    def rate(self, progress: float) -> float:
        """Learning rate after this share of all steps."""
        if progress < self.warmup_share:
            return self.learning_rate * progress / self.warmup_share
        left = (1 - progress) / (1 - self.warmup_share)
        match self.schedule:
            case "linear":
                share = left
            case "cosine":
                share = (1 - math.cos(math.pi * left)) / 2
            case "exponential":
                share = EXPONENTIAL_END ** (1 - left)
        return self.learning_rate * max(self.floor_share, share)


SUPERNET_SETTINGS = TrainingSettings(epochs=40)
RETRAINING_SETTINGS = TrainingSettings(epochs=20, schedule="cosine", average_decay=0.999)
"""Defaults that suit the digits in the mobile space: about 90 and 30 processor-seconds.

On runs as short as these, where it has hardly more to average than the end of a falling rate, the
average changes the accuracy by a thousandth or so.
"""
