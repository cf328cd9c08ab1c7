"""Weights and policy in one run (TuNAS, Bender et al. 2020, section 3 and released code).

Each step samples an architecture, trains it on training images, scores it on validation images
with the weights that it has just moved, and updates the policy by what accuracy and latency earn.
At first a choice may be taken from the policy: all operations of a layer run and are averaged, or
all filters are on, so that what is seldom sampled is trained too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...devices.errors import UsageError
from ...latency.cost import CostModel
from ..choices import SKIP
from ..data import Dataset
from ..distributed import gathered
from ..learning import learn
from ..loading import Batch
from ..settings import TrainingSettings
from ..space import Architecture, SearchSpace
from ..strategies.policy import Policy
from ..strategies.reward import RewardKind
from ..strategies.strategy import Evaluation
from ..supernet import Supernet
from ..training import Progress
from .rewarded import RewardedTraining
from .supernet import train_supernet


def tunas_settings(epochs: int, batch_size: int = 64, seed: int = 0) -> TrainingSettings:
    """TuNAS's way of training weights; its weight decay is recalled, not checked."""
    return TrainingSettings(
        epochs,
        batch_size,
        learning_rate=0.165 * batch_size / 256,
        schedule="cosine",
        warmup_share=0.025,
        optimiser="rmsprop",
        momentum=0.9,
        weight_decay=4e-5,
        label_smoothing=0.1,
        seed=seed,
    )


@dataclass(frozen=True, slots=True)
class Draw:
    """What a step samples, and what of it runs.

    `sampled` is the policy's, and `replaced` says which of its choices warm-up has taken away. What
    runs is `architecture`, with every option of the choices at the positions `averaged`. `counted`
    are the choices whose log-probability has a gradient: those that are on and not replaced.
    """

    sampled: tuple[int, ...]
    replaced: tuple[bool, ...]
    architecture: Architecture
    averaged: frozenset[int]
    counted: tuple[bool, ...]


class Joint(RewardedTraining):
    """TuNAS's search: a step trains an architecture, scores it, and moves the policy.

    Warm-up replaces each choice of an operation, and each one of a width, with a probability that
    falls linearly from 1 to 0 over the share `operation_warmup`, `filter_warmup` of all steps; a
    share of 0 switches it off. A replaced choice adds log p to the log-probability of the sample,
    which no logit changes; another one log(1 - p) and its own. The policy must rest until then.

    `per_step` architectures share the images of a step, as TuNAS's replicas do; of several
    processes, each draws its own, and the policy learns from all of them. Scoring takes
    `scoring_batches` times as many images as training, drawn anew for each step and read ahead by
    `workers` threads, and the batch's statistics. The latency is that of the architecture as
    sampled, without what warm-up adds to it. `learning_rate`, the policy's, is as for `Reinforce`.
    Raises `UsageError` where a warm-up outlasts the policy's delay, `UnreachableTargetError` where
    no architecture is that fast.
    """

    def __init__(
        self,
        supernet: Supernet,
        data: Dataset,
        cost: CostModel,
        target_ms: float,
        *,
        reward: RewardKind = "absolute",
        strength: float = -0.10,
        learning_rate: float = 3e-4,
        delay: float = 0.25,
        operation_warmup: float = 0.25,
        filter_warmup: float = 0.25,
        per_step: int = 1,
        scoring_batches: int = 4,
        workers: int = 1,
    ) -> None:
        super().__init__(
            supernet, data, cost, target_ms, reward=reward, strength=strength, workers=workers
        )
        for name, share in (("operation", operation_warmup), ("filter", filter_warmup)):
            if not 0 <= share <= delay:
                raise UsageError(
                    f"{name} warm-up over a share of {share} of all steps would outlast the "
                    f"policy's delay of {delay}: choose from 0 (none) to {delay}"
                )
        if per_step < 1 or scoring_batches < 1:
            raise UsageError("a step takes at least one architecture, and one batch to score it")
        if len(data.validation) < 2 * per_step:
            raise UsageError(
                f"{len(data.validation)} validation images are too few to score {per_step} "
                "architectures a step: each needs two of them at least"
            )
        self.operation_warmup = operation_warmup
        self.filter_warmup = filter_warmup
        self.per_step = per_step
        self.scoring_batches = scoring_batches
        space = supernet.space
        self.policy: Policy = Policy(space.option_counts, learning_rate=learning_rate, delay=delay)
        self.draws: list[Draw] = []
        self._warm_options = tuple(
            _warm_option(space, index) for index in range(len(space.choices))
        )

    def best(self) -> Architecture:
        """The most probable option of every choice, made canonical."""
        return self.supernet.space.architecture(self.policy.mode())

    def __call__(self, batch: Batch) -> float:
        """Sample, and learn from a batch; returns its loss."""
        count = len(batch.labels)
        if count < 2 * self.per_step:
            raise UsageError(
                f"{count} images are too few for {self.per_step} architectures a step: each needs "
                "two of them at least"
            )
        self.draws = self.draw(batch.progress, batch.own_random())
        total = 0.0
        for draw, part in zip(self.draws, _parts(count, self.per_step), strict=True):
            own = replace(batch, inputs=batch.inputs[part], labels=batch.labels[part])
            logits = self.supernet(own.inputs, draw.architecture, averaged=draw.averaged)
            total += learn(own.loss(logits) * (len(own.labels) / count))
        return total

    def after_step(self, batch: Batch) -> None:
        """Score what the step has trained, and update the policy."""
        space = self.supernet.space
        sampled = [space.architecture(draw.sampled) for draw in self.draws]
        latencies_ms = self._latencies_ms(sampled)
        accuracies = self._accuracies(batch)
        self.evaluations = [
            Evaluation(architecture, draw.sampled, accuracy, latency_ms)
            for architecture, draw, accuracy, latency_ms in zip(
                sampled, self.draws, accuracies, latencies_ms, strict=True
            )
        ]
        rewards = self._rewards(accuracies, latencies_ms)
        sampled_rows = np.array([draw.sampled for draw in self.draws])
        counted = np.array([draw.counted for draw in self.draws])
        own = torch.from_numpy(np.column_stack([sampled_rows, counted, rewards]))
        rows = gathered(own.to(batch.inputs.device)).cpu().numpy()
        count = len(space.choices)
        self.policy.update(
            rows[:, :count].astype(int).tolist(),
            rows[:, count : 2 * count],
            rows[:, -1],
            batch.progress,
        )

    def draw(self, progress: float, random: np.random.Generator) -> list[Draw]:
        """What a step trains and scores, after this share of all steps."""
        sampled = self.policy.sample(self.per_step, random)
        chances = self._chances(progress)
        replaced = random.random((self.per_step, len(chances))) < chances
        return [
            self._warmed(row, tuple(taken))
            for row, taken in zip(sampled, replaced.tolist(), strict=True)
        ]

    def _settings(self) -> dict[str, Any]:
        return {
            **super()._settings(),
            "learning_rate": self.policy.learning_rate,
            "delay": self.policy.delay,
            "operation_warmup": self.operation_warmup,
            "filter_warmup": self.filter_warmup,
            "per_step": self.per_step,
            "scoring_batches": self.scoring_batches,
        }

    def _chances(self, progress: float) -> list[float]:
        """For each choice the probability that warm-up replaces it."""
        shares = {"operation": self.operation_warmup, "width": self.filter_warmup}
        return [
            max(0.0, 1 - progress / share) if (share := shares.get(choice.kind, 0.0)) else 0.0
            for choice in self.supernet.space.choices
        ]

    def _warmed(self, sampled: tuple[int, ...], replaced: tuple[bool, ...]) -> Draw:
        space = self.supernet.space
        run = tuple(
            warm if taken else choice
            for choice, taken, warm in zip(sampled, replaced, self._warm_options, strict=True)
        )
        # Layers of a run move to their canonical places, and their warm-up with them.
        averaged = frozenset(
            position
            for position, origin in enumerate(space.origins(run))
            if replaced[origin] and space.choices[origin].kind == "operation"
        )
        counted = tuple(
            on and not taken for on, taken in zip(space.active(run), replaced, strict=True)
        )
        return Draw(sampled, replaced, space.architecture(run), averaged, counted)

    @torch.no_grad()
    def _accuracies(self, batch: Batch) -> list[float]:
        """For each draw the share of its validation images that it classifies correctly."""
        size = self.scoring_batches * len(batch.labels)
        scoring = self._scoring_batch(batch, size, batch.step)
        inputs, labels = scoring.inputs, scoring.labels
        found = []
        for draw, images in zip(self.draws, _parts(len(labels), self.per_step), strict=True):
            logits = self.supernet(inputs[images], draw.architecture, averaged=draw.averaged)
            found.append((logits.argmax(1) == labels[images]).double().mean().item())
        return found


def train_jointly(
    joint: Joint,
    settings: TrainingSettings,
    *,
    checkpoint: Path | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Architecture:
    """Search from the beginning, or from `checkpoint`, to the end; the architecture it ends with.

    `tunas_settings` are the paper's. The joint step's `workers` make the images of both parts.
    """
    train_supernet(
        joint.supernet,
        joint.data,
        settings,
        learn=joint,
        checkpoint=checkpoint,
        progress=progress,
        workers=joint.workers,
    )
    return joint.best()


def _warm_option(space: SearchSpace, position: int) -> int:
    """The option that stands for a replaced choice: the largest width, or one that is no skip."""
    choice = space.choices[position]
    if choice.kind == "width":
        return max(range(len(choice.options)), key=lambda index: float(choice.options[index]))
    return next((index for index, option in enumerate(choice.options) if option != SKIP), 0)


def _parts(count: int, parts: int) -> list[slice]:
    """`count` images as `parts` slices, as equal as can be."""
    edges = np.linspace(0, count, parts + 1).astype(int).tolist()
    return [slice(start, stop) for start, stop in pairwise(edges)]
