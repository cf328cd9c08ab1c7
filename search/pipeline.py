"""A search from a recipe and a latency table to measured, exported networks, resuming anywhere."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from rich.progress import Progress

from ..devices.device import Device, TimingProtocol
from ..devices.errors import UsageError
from ..latency.limits import Limit
from ..latency.pricing import cost_model
from ..latency.store import Store
from ..latency.table import LatencyTable
from .aim import Aim
from .aimed import AimedSearch, timed
from .correcting import Settled, settle
from .data import Dataset
from .export import export
from .finalists import Landed, Trained, finalist
from .landing import land
from .limits import limits_of
from .measuring import Networks, measure_files
from .profiling import require_reachable
from .recipes.recipe import Recipe
from .recipes.running import WEIGHTS, Learned, learn
from .recipes.task import Task
from .result import SearchResult, Target
from .retraining import retrain, test_accuracy
from .settings import RETRAINING_SETTINGS, TrainingSettings
from .space import SearchSpace
from .spaces.scale import Scale
from .training import Progress as TrainingProgress
from .training import set_threads


@dataclass(frozen=True, slots=True)
class SearchSettings:
    """What a search depends on, besides recipe, space, table and images.

    With `random_search`, that is run too, with the same weights, limit and number of evaluations,
    and its winner trained alike. `limits` are kept besides the aims, as `limits_of` reads them.
    `threads` are torch's; another number may change weights in the last digits.
    """

    aims: tuple[Aim, ...]
    random_search: bool = True
    seed: int = 0
    threads: int = 2
    retraining: TrainingSettings = RETRAINING_SETTINGS
    limits: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Search:
    """One search: what it runs on, and the folder that it resumes from.

    `space` is what `recipes.spaces.space_of` gives for address and scale. The recipe's settings are
    those that weights are trained with, seed included. `workers` threads read training images;
    their number changes nothing in the result. Shared weights, and networks on their own, are
    trained on `training_device`.
    """

    recipe: Recipe
    space: SearchSpace
    space_address: str
    scale: Scale
    table: LatencyTable
    table_file: Path
    device: Device
    store: Store
    protocol: TimingProtocol
    data: Dataset
    settings: SearchSettings
    folder: Path
    progress: Progress
    workers: int = 1
    training_device: str = "cpu"
    seconds: dict[str, float] = field(default_factory=dict)

    def run(self) -> SearchResult:
        """Train, search, correct, scale, retrain, export and measure; write the result.

        Where a strategy chooses, all aims share the trained weights; where training itself does,
        there is one training for each. Raises `UnreachableTargetError` at once where for one of
        the aims no architecture is fast enough.
        """
        aims = self.settings.aims
        also = limits_of(self.space, self.settings.limits)
        require_reachable(self.space, self.table, aims, also)
        if also:
            self._check_that_limits_are_kept(self._task(aims[0], self.folder, also))
        set_threads(self.settings.threads)
        networks = Networks(
            self.space,
            self.table,
            self.device,
            self.store,
            self.protocol,
            self.folder / "networks.json",
            self.progress,
        )
        learned: Learned | None = None
        targets: list[Target] = []
        trained: list[Trained] = []
        searches: dict[Aim, AimedSearch] = {}
        for aim in aims:
            folder = self.folder if len(aims) == 1 else self.folder / f"{aim.target_ms:g}ms"
            task = self._task(aim, self.folder if self.recipe.strategy else folder, also)
            if learned is None or self.recipe.strategy is None:
                with timed(self.seconds, "training"):
                    learned = learn(self.recipe, task)
            search = AimedSearch(
                self.recipe,
                aim,
                task,
                learned,
                folder,
                self.recipe.width_grid or self.table.channel_grid,
                self.settings.random_search,
                self.store,
                self.progress,
                self.seconds,
            )
            searches[aim] = search
            settled = settle(search, networks, aim)
            for name, item in settled.chosen.items():
                search.remember(name, item.architecture, item.predicted_ms, item.timed.median_ms)
            with timed(self.seconds, "landing on the target"):
                landed = self._landed(settled, networks, aim, folder)
            with timed(self.seconds, "retraining and export"):
                trained += [self._trained(learned, item) for item in landed]
            limit_ms = aim.range_ms(self.space)[1]
            logs = tuple(str(path.relative_to(self.folder)) for path in search.logs)
            targets.append(Target(aim.target_ms, aim.kind, limit_ms, settled.factor, logs))
        with timed(self.seconds, "measuring the finalists"):
            measured = measure_files(
                {str(item.landed.folder): item.file(self.table.setup) for item in trained},
                self.device,
                self.store,
                self.protocol,
                self.progress,
            )
        finalists = tuple(
            finalist(
                item,
                measured[str(item.landed.folder)],
                networks.usual_canary_ns,
                self.space,
                networks.table,
                self.folder,
            )
            for item in trained
        )
        for found in finalists:
            searches[Aim(found.target_ms, found.kind)].remember(
                found.strategy, found.architecture, found.predicted_ms, found.measured_ms
            )
        result = SearchResult(
            self.recipe.name,
            self.space.name,
            self.space_address,
            asdict(self.scale),
            self.data.classes,
            self.data.name,
            tuple(targets),
            self.settings.seed,
            self.table.setup,
            str(self.table_file),
            str(self.store),
            {**asdict(self.settings), "training": asdict(self.recipe.settings)},
            finalists,
            self.seconds,
        )
        result.save(self.folder / "result.json")
        return result

    def _check_that_limits_are_kept(self, task: Task) -> None:
        """Refuse a recipe that would end with what breaks them, before it trains anything."""
        if self.recipe.strategy is None:
            raise UsageError(
                f"recipe {self.recipe.name} chooses while it trains, by latency alone, and keeps "
                "no other limit: give it a strategy, as --strategy bayesian"
            )
        self.recipe.strategy(task)

    def _task(self, aim: Aim, folder: Path, also: tuple[Limit, ...]) -> Task:
        """What the recipe trains for, and its strategies search under."""
        return Task(
            self.space,
            self.data,
            self.recipe.settings,
            self.table.block_cost_ms,
            aim.range_ms(self.space)[1],
            self.table.calibration.constant_ms,
            self.settings.seed,
            folder / WEIGHTS,
            self.training_device,
            self._training_progress(f"training, {self.recipe.name}"),
            self.workers,
            also,
        )

    def _landed(self, settled: Settled, networks: Networks, aim: Aim, folder: Path) -> list[Landed]:
        """What the strategies chose, with widths scaled where they have to land."""
        chosen = settled.chosen
        if not aim.lands(self.space):
            return [
                Landed(name, aim, item, item.architecture, settled.corrections, folder / name)
                for name, item in chosen.items()
            ]
        landings = land(
            {name: item.architecture for name, item in chosen.items()},
            networks,
            aim.target_ms,
            {name: item.factor for name, item in chosen.items()},
        )
        return [
            Landed(
                name,
                aim,
                chosen[name],
                landing.architecture,
                settled.corrections + landing.corrections,
                folder / name,
            )
            for name, landing in landings.items()
        ]

    def _trained(self, learned: Learned, landed: Landed) -> Trained:
        retrained = retrain(
            learned.network(landed.architecture),
            self.data,
            self.settings.retraining,
            checkpoint=landed.folder / "retraining.checkpoint",
            progress=self._training_progress(f"retraining {landed.strategy}"),
            workers=self.workers,
        )
        accuracy = test_accuracy(retrained.model, self.data)
        exported = export(retrained.model.cpu(), self.data, landed.folder)
        return Trained(landed, retrained, exported, accuracy)

    def _training_progress(self, description: str) -> Callable[[TrainingProgress], None]:
        """Shows how far a training is."""
        task = self.progress.add_task(description, total=None)

        def update(at: TrainingProgress) -> None:
            self.progress.update(task, completed=at.step, total=at.steps)

        return update


def default_aim(space: SearchSpace, table: LatencyTable) -> Aim:
    """To land in the middle of the space: on the median latency of random architectures."""
    cost = cost_model(space, table.block_cost_ms, table.calibration.constant_ms)
    latency_ms = cost.latency_ms(space.sample_choices(cost.rows_at_once, np.random.default_rng(0)))
    return Aim(float(f"{np.median(latency_ms):.3g}"), "exactly")
