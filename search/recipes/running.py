"""Running a recipe: from images and a cost to an architecture, in steps that each resume."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from ...devices.errors import UnreachableTargetError, UsageError
from ...latency.blocks import Block
from ...latency.torch_model import TorchModel
from ..data import Dataset
from ..elasticity import architecture_latency, is_scalable, scale
from ..evaluators.stand_alone import StandAlone
from ..log import SearchLog
from ..loop import run_strategy
from ..recalibration import SupernetEvaluator
from ..retraining import fresh_model
from ..settings import TrainingSettings
from ..space import Architecture, SearchSpace
from ..spaces.scale import PAPER
from ..strategies.strategy import Strategy
from ..trainers.supernet import SharedWeights
from ..training import Progress, fingerprint
from .recipe import Recipe
from .task import Task

WEIGHTS = "weights.checkpoint"
LOG = "search.jsonl"
ALONE = "networks"

PRICED = 256
"""Random architectures whose costs tell a cost apart from another."""

Report = Callable[[str, int, int | None], None]
"""Called with what is going on, how much of it is done, and of how much, where that is known."""


@dataclass(frozen=True, slots=True, eq=False)
class Learned:
    """What a recipe has learned, for architectures to be scored by.

    `accuracy` is an architecture's on the validation images, 0 to 1; `network` its network to be
    trained on, with the shared weights and statistics of its own. Of a recipe that shares none,
    `weights` are None, the accuracy is that of a training of its own, and the network has fresh
    weights. `identity` names all that these depend on. `architecture` is what training ended with,
    if it chose one.
    """

    accuracy: Callable[[Architecture], float]
    network: Callable[[Architecture], TorchModel]
    identity: str | dict[str, Any]
    weights: SharedWeights | None
    architecture: Architecture | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """What a recipe ends with.

    `accuracy` is the architecture's on the validation images, with the trained shared weights and
    statistics of its own. Its network with these weights is `weights.extract(architecture)`. Of a
    recipe that shares none, `weights` are None and the accuracy is that of its own training.
    `evaluations` were made by the recipe's strategy, 0 where it has none.
    """

    recipe: str
    space: SearchSpace
    architecture: Architecture
    weights: SharedWeights | None
    accuracy: float
    latency_ms: float
    target_ms: float
    evaluations: int

    @property
    def meets_target(self) -> bool:
        """Whether it is as fast as asked for; not all recipes hold their result to that."""
        return self.latency_ms <= self.target_ms


def run(
    recipe: Recipe,
    data: Dataset,
    block_cost_ms: Callable[[Block], float],
    target_ms: float,
    folder: Path,
    *,
    constant_ms: float = 0.0,
    space: SearchSpace | None = None,
    settings: TrainingSettings | None = None,
    seed: int = 0,
    device: str = "cpu",
    progress: Report | None = None,
) -> Found:
    """Train a recipe's shared weights, where it has any, and end with an architecture.

    The cost is `Task`'s. `space` is the recipe's own at the paper's scale, for the classes of
    `data`, where it is not given, and `settings` are the paper's, with this seed. A run that was
    killed goes on from what it left in `folder`. Raises `UnreachableTargetError` at once where no
    architecture is fast enough, `UsageError` where `folder` holds another run.
    """
    task = Task(
        space or recipe.space(len(data.classes), PAPER),
        data,
        settings or replace(recipe.settings, seed=seed),
        block_cost_ms,
        target_ms,
        constant_ms,
        seed,
        folder / WEIGHTS,
        device,
        None if progress is None else _training_progress(progress),
    )
    task.cost.require_reachable(target_ms)
    folder.mkdir(parents=True, exist_ok=True)
    learned = learn(recipe, task)
    architecture, evaluations = learned.architecture, 0
    if recipe.strategy is not None:
        strategy = recipe.strategy(task)
        log = SearchLog(folder / LOG, log_settings(task, learned, strategy))
        done = None if progress is None else _searching_progress(progress, strategy)
        evaluations = run_strategy(strategy, task.cost, learned.accuracy, log, progress=done)
        architecture = strategy.best()
    if architecture is None:
        raise UsageError(f"recipe {recipe.name} chooses nothing: give it a strategy")
    if recipe.width_grid is not None:
        architecture = scaled(task, architecture, recipe.width_grid)
    latency_of = architecture_latency(task.space, block_cost_ms, constant_ms)
    return Found(
        recipe.name,
        task.space,
        architecture,
        learned.weights,
        learned.accuracy(architecture),
        latency_of(architecture),
        target_ms,
        evaluations,
    )


def learn(recipe: Recipe, task: Task) -> Learned:
    """What architectures are scored by: weights that are trained first, or trainings of their own.

    The former go on from the task's checkpoint; beside that is what the latter have led to.
    """
    if recipe.train is None:
        folder = None if task.checkpoint is None else task.checkpoint.with_name(ALONE)
        alone = StandAlone(
            task.space,
            task.data,
            task.settings,
            seed=task.seed,
            folder=folder,
            device=task.device,
            workers=task.workers,
            progress=task.progress,
        )

        def fresh(architecture: Architecture) -> TorchModel:
            return fresh_model(task.space.network(architecture), task.seed).to(task.device)

        return Learned(alone.accuracy, fresh, asdict(task.settings), None)
    shared = recipe.train(task)
    evaluator = SupernetEvaluator(shared.weights, task.data, seed=task.seed)
    return Learned(
        evaluator.accuracy,
        evaluator.calibrated,
        fingerprint(shared.weights),
        shared.weights,
        shared.architecture,
    )


def scaled(task: Task, architecture: Architecture, grid: int) -> Architecture:
    """The architecture with middle channels that bring it to the target, or as it is.

    The latter where no widths do, or the space has none to scale.
    """
    if not is_scalable(task.space):
        return architecture
    latency_of = architecture_latency(task.space, task.block_cost_ms, task.constant_ms)
    try:
        return scale(architecture, task.space, latency_of, task.target_ms, grid)
    except UnreachableTargetError:
        return architecture


def log_settings(task: Task, learned: Learned, strategy: Strategy) -> dict[str, Any]:
    """All that a search log depends on: the scores, the cost, and what the strategy was given."""
    rows = task.space.sample_choices(PRICED, np.random.default_rng(0))
    options = {
        name: value
        for name, value in vars(strategy).items()
        if not name.startswith("_") and isinstance(value, int | float | str)
    }
    return {
        "space": task.space.name,
        "data": task.data.key,
        "weights": learned.identity,
        "cost": hashlib.sha256(task.cost.latency_ms(rows).tobytes()).hexdigest(),
        "seed": task.seed,
        "strategy": strategy.name,
        "options": options,
        "versions": {name: version(name) for name in ("latkit", "numpy", "torch")},
    }


def _training_progress(progress: Report) -> Callable[[Progress], None]:
    return lambda at: progress("training", at.step, at.steps)


def _searching_progress(progress: Report, strategy: Strategy) -> Callable[[int], None]:
    return lambda done: progress(f"{strategy.name} search", done, None)
