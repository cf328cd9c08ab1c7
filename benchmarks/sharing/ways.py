"""The ways of sharing weights that are compared: each trains a supernet for a task."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from latkit.latency.blocks import Block
from latkit.latency.cost import CostModel
from latkit.search.data import Dataset, divided, halves
from latkit.search.loading import BatchLoader
from latkit.search.relaxed import RelaxedSupernet
from latkit.search.space import Architecture, SearchSpace
from latkit.search.supernet import Supernet
from latkit.search.trainers.bi_sampling import HELD_OUT_SHARE, BiSampling
from latkit.search.trainers.bilevel import Bilevel
from latkit.search.trainers.joint import Joint
from latkit.search.trainers.path_dropout import PathDropout
from latkit.search.trainers.sandwich import Sandwich
from latkit.search.trainers.single_path import SinglePath
from latkit.search.training import Learn, Trainer, TrainingSettings

WARM_SHARE = 0.25
"""Of TF-NAS's epochs, those before the architecture moves; in the paper 10 of them."""


@dataclass(frozen=True, slots=True)
class Task:
    """What a way is given: a space, images, how long to train, a cost and its target."""

    space: SearchSpace
    data: Dataset
    settings: TrainingSettings
    cost: CostModel
    block_cost: Callable[[Block], float]
    target: float
    checkpoint: Path
    device: str


@dataclass(frozen=True, slots=True)
class Shared:
    """Trained shared weights, and the architecture that training itself ended with, if any."""

    supernet: Supernet | RelaxedSupernet
    chosen: Architecture | None = None


Way = Callable[[Task], Shared]


def single_path(task: Task) -> Shared:
    """SPOS: one uniformly drawn path a step."""
    supernet = Supernet(task.space, task.settings.seed).to(task.device)
    _train(supernet, SinglePath(supernet), task, task.settings)
    return Shared(supernet)


def sandwich(task: Task, *, distils: bool = True) -> Shared:
    """BigNAS: the largest, the smallest and two random children a step."""
    supernet = Supernet(task.space, task.settings.seed, zero_gamma=True, crops_kernels=True)
    supernet.to(task.device)
    settings = replace(task.settings, weight_decay=0.0, schedule="exponential", floor_share=0.05)
    _train(supernet, Sandwich(supernet, distils=distils), task, settings)
    return Shared(supernet)


def joint(task: Task, *, operations: bool = True, filters: bool = True) -> Shared:
    """TuNAS: weights and a policy, with and without each warm-up.

    The policy's rate is larger than the paper's, which has many more steps.
    """
    supernet = Supernet(task.space, task.settings.seed).to(task.device)
    learn = Joint(
        supernet,
        task.data,
        task.cost,
        task.target,
        learning_rate=POLICY_RATE,
        operation_warmup=0.25 if operations else 0.0,
        filter_warmup=0.25 if filters else 0.0,
    )
    _train(supernet, learn, task, task.settings)
    return Shared(supernet, learn.best())


POLICY_RATE = 3e-3


def bi_sampling(task: Task) -> Shared:
    """TF-NAS: two paths a step, operations and depths by gradients."""
    train, held_out = divided(task.data, 1 - HELD_OUT_SHARE, task.settings.seed)
    settings = replace(task.settings, schedule="cosine", gradient_clip=5.0)
    supernet = RelaxedSupernet(task.space, settings.seed).to(task.device)
    learn = BiSampling(
        supernet,
        _loader(held_out, settings),
        task.block_cost,
        task.target,
        task.cost.constant,
        warm_epochs=max(1, round(WARM_SHARE * settings.epochs)),
    )
    _train(supernet, learn, replace(task, data=train), settings)
    return Shared(supernet, learn.best())


def bilevel(task: Task, *, second_order: bool = False) -> Shared:
    """DARTS: all candidates at once, weighted."""
    train, held_out = halves(task.data, task.settings.seed)
    settings = replace(task.settings, schedule="cosine", gradient_clip=5.0)
    supernet = RelaxedSupernet(task.space, settings.seed).to(task.device)
    learn = Bilevel(
        supernet,
        _loader(held_out, settings),
        second_order=second_order,
        ahead=settings.learning_rate,
        seed=settings.seed,
    )
    _train(supernet, learn, replace(task, data=train), settings)
    return Shared(supernet, learn.best())


def path_dropout(task: Task) -> Shared:
    """One-Shot: all candidates at once, ever more of them left out."""
    supernet = RelaxedSupernet(task.space, task.settings.seed, affine=True).to(task.device)
    _train(supernet, PathDropout(supernet), task, task.settings)
    return Shared(supernet)


WAYS: dict[str, dict[str, Way]] = {
    "operations": {
        "single path": single_path,
        "sandwich": sandwich,
        "joint": joint,
        "bi-sampling": bi_sampling,
    },
    "widths": {
        "single path": single_path,
        "sandwich": sandwich,
        "sandwich without distillation": partial(sandwich, distils=False),
        "joint": joint,
        "joint without operation warm-up": partial(joint, operations=False),
        "joint without filter warm-up": partial(joint, filters=False),
        "joint without warm-ups": partial(joint, operations=False, filters=False),
    },
    "cells": {
        "single path": single_path,
        "path dropout": path_dropout,
        "bilevel": bilevel,
        "bilevel to second order": partial(bilevel, second_order=True),
    },
}
"""By space, the ways that can search it."""


def _loader(data: Dataset, settings: TrainingSettings) -> BatchLoader:
    return BatchLoader(
        data,
        settings.epochs,
        settings.batch_size,
        settings.seed,
        settings.shift,
        settings.flip,
        settings.label_smoothing,
    )


def _train(
    supernet: Supernet | RelaxedSupernet, learn: Learn, task: Task, settings: TrainingSettings
) -> None:
    subject = f"{type(learn).__name__} on {task.space.name}"
    Trainer(supernet, task.data, settings, subject=subject, checkpoint=task.checkpoint).run(learn)
