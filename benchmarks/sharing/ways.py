"""The ways of sharing weights that are compared, by the space that they can search."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from latkit.search.recipes.learning import (
    bi_sampling,
    bilevel,
    joint,
    path_dropout,
    sandwich,
    single_path,
)
from latkit.search.recipes.task import Shared, Task

WARM_SHARE = 0.25
"""Of TF-NAS's epochs, those before the architecture moves; in the paper they are 10."""

POLICY_RATE = 3e-3
"""Ten times TuNAS's, whose policy makes many times more steps."""

Way = Callable[[Task], Shared]


def _sandwich(distils: bool) -> Way:
    def way(task: Task) -> Shared:
        falling = replace(task.settings, schedule="exponential", floor_share=0.05)
        return sandwich(replace(task, settings=falling), distils=distils)

    return way


def _joint(*, operations: bool, filters: bool) -> Way:
    return lambda task: joint(
        task,
        learning_rate=POLICY_RATE,
        operation_warmup=0.25 if operations else 0.0,
        filter_warmup=0.25 if filters else 0.0,
    )


def _bi_sampling(task: Task) -> Shared:
    warm_epochs = max(1, round(WARM_SHARE * task.settings.epochs))
    return bi_sampling(_clipped(task), warm_epochs=warm_epochs)


def _bilevel(second_order: bool) -> Way:
    return lambda task: bilevel(_clipped(task), second_order=second_order)


def _clipped(task: Task) -> Task:
    """With the schedule and the clipped gradients of DARTS and TF-NAS."""
    return replace(task, settings=replace(task.settings, schedule="cosine", gradient_clip=5.0))


WAYS: dict[str, dict[str, Way]] = {
    "operations": {
        "single path": single_path,
        "sandwich": _sandwich(distils=True),
        "joint": _joint(operations=True, filters=True),
        "bi-sampling": _bi_sampling,
    },
    "widths": {
        "single path": single_path,
        "sandwich": _sandwich(distils=True),
        "sandwich without distillation": _sandwich(distils=False),
        "joint": _joint(operations=True, filters=True),
        "joint without operation warm-up": _joint(operations=False, filters=True),
        "joint without filter warm-up": _joint(operations=True, filters=False),
        "joint without warm-ups": _joint(operations=False, filters=False),
    },
    "cells": {
        "single path": single_path,
        "path dropout": path_dropout,
        "bilevel": _bilevel(second_order=False),
        "bilevel to second order": _bilevel(second_order=True),
    },
}
