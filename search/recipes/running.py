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
from ..data import Dataset
from ..elasticity import architecture_latency, is_scalable, scale
from ..evaluators.stand_alone import StandAlone
from ..log import SearchLog
from ..loop import run_strategy
from ..recalibration import SupernetEvaluator
from ..settings import TrainingSettings
from ..space import Architecture, SearchSpace
from ..spaces.scale import PAPER
from ..strategies.strategy import Strategy
from ..trainers.supernet import SharedWeights
from ..training import Progress, fingerprint
from .recipe import Recipe
from .task import Task

PRICED = 256
"""Random architectures whose costs tell a cost apart from another."""

Report = Callable[[str, int, int | None], None]
"""Called with what is going on, how much of it is done, and of how much, where that is known."""


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
        folder / "weights.checkpoint",
        device,
        None if progress is None else _training_progress(progress),
    )
    task.cost.require_reachable(target_ms)
    folder.mkdir(parents=True, exist_ok=True)
    weights: SharedWeights | None = None
    architecture: Architecture | None = None
    evaluations = 0
    if recipe.train is None:
        accuracy = _stand_alone(task, folder, progress).accuracy
    else:
        shared = recipe.train(task)
        weights, architecture = shared.weights, shared.architecture
        accuracy = SupernetEvaluator(weights, data, seed=seed).accuracy
    if recipe.strategy is not None:
        strategy = recipe.strategy(task)
        log = SearchLog(folder / "search.jsonl", _log_settings(task, strategy, weights))
        done = None if progress is None else _searching_progress(progress, strategy)
        evaluations = run_strategy(strategy, task.cost, accuracy, log, progress=done)
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
        weights,
        accuracy(architecture),
        latency_of(architecture),
        target_ms,
        evaluations,
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


def _stand_alone(task: Task, folder: Path, progress: Report | None) -> StandAlone:
    """What trains each architecture on its own; the results are kept in `folder`."""
    return StandAlone(
        task.space,
        task.data,
        task.settings,
        seed=task.seed,
        folder=folder / "networks",
        device=task.device,
        workers=task.workers,
        progress=None if progress is None else _training_progress(progress),
    )


def _log_settings(task: Task, strategy: Strategy, weights: SharedWeights | None) -> dict[str, Any]:
    """All that a search log depends on: what accuracies come from, the cost, and the strategy."""
    rows = task.space.sample_choices(PRICED, np.random.default_rng(0))
    options = {
        name: value
        for name, value in vars(strategy).items()
        if not name.startswith("_") and isinstance(value, int | float | str)
    }
    return {
        "space": task.space.name,
        "data": task.data.key,
        "weights": asdict(task.settings) if weights is None else fingerprint(weights),
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
