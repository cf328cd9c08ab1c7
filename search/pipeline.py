"""A search from a latency table to measured, exported networks, in steps that each resume."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
from rich.progress import Progress

from ..devices.convert import SUFFIXES
from ..devices.device import Device, TimingProtocol
from ..devices.errors import DeviceError
from ..devices.measurement import Measurement
from ..latency.cost import CostModel
from ..latency.counts import network_counts
from ..latency.pricing import cost_model
from ..latency.profile import profile
from ..latency.store import Store
from ..latency.subject import ModelFile, subject_id
from ..latency.table import LatencyTable
from .data import Dataset
from .elasticity import is_scalable
from .export import Exported, export
from .landing import Landing, land
from .log import LogEntry, SearchLog
from .loop import run_strategy
from .recalibration import SupernetEvaluator, calibration_batches, recalibrate
from .recipes.learning import single_path
from .recipes.strategies import evolution
from .recipes.task import Task
from .result import Finalist, SearchResult
from .retraining import Retrained, retrain, test_accuracy
from .settings import RETRAINING_SETTINGS, SUPERNET_SETTINGS, TrainingSettings
from .space import Architecture, SearchSpace
from .strategies.random_search import RandomSearch
from .strategies.reinforce import Reinforce
from .strategies.strategy import Strategy
from .trainers.supernet import SharedWeights
from .training import Progress as TrainingProgress
from .training import set_threads
from .trajectory import Trajectory

StrategyName = Literal["evolution", "reinforce"]

HEADROOM = (1.03, 1.15)
"""The winner is chosen among architectures whose predicted latency is this many times the target:
scaling widths only shrinks them, so the choice has to be made from above. In a space without widths
to scale it is made at the target or below."""

REINFORCE_RATE = 0.1
"""Learning rate of the policy: a search here has about a hundred steps, the paper's a hundred
thousand, and one step moves a logit by about the rate."""


@dataclass(frozen=True, slots=True)
class SearchSettings:
    """What a search depends on, besides space, table and images.

    `population` times `rounds` supernet evaluations are made by the strategy, and again by random
    search. `threads` are torch's; another number may change weights in the last digits.
    """

    target_ms: float
    strategy: StrategyName = "evolution"
    population: int = 20
    rounds: int = 6
    seed: int = 0
    threads: int = 2
    supernet: TrainingSettings = SUPERNET_SETTINGS
    retraining: TrainingSettings = RETRAINING_SETTINGS

    @property
    def evaluations(self) -> int:
        """Supernet evaluations of each of the two searches."""
        return self.population * self.rounds


@dataclass(frozen=True, slots=True)
class Chosen:
    """What a strategy ended with, before widths are scaled."""

    architecture: Architecture
    predicted_ms: float
    accuracy: float
    evaluations: int


@dataclass(frozen=True, slots=True)
class Trained:
    """A finalist's network, trained on its own and exported."""

    retrained: Retrained
    exported: Exported
    test_accuracy: float


@dataclass(frozen=True, slots=True)
class Search:
    """One search: what it runs on, and the folder that it resumes from.

    `workers` threads read training images; their number changes nothing in the result.
    """

    space: SearchSpace
    space_address: str
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
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def range_ms(self) -> tuple[float, float]:
        """Predicted latencies among which the winner is chosen; strategies ask for none above."""
        target_ms = self.settings.target_ms
        if not is_scalable(self.space):
            return 0.0, target_ms
        return target_ms * HEADROOM[0], target_ms * HEADROOM[1]

    def _task(self) -> Task:
        """What the supernet is trained for, and strategies search under."""
        settings = self.settings
        return Task(
            self.space,
            self.data,
            settings.supernet,
            self.table.block_cost_ms,
            self.range_ms[1],
            self.table.calibration.constant_ms,
            settings.seed,
            self.folder / "supernet.checkpoint",
            progress=self._training_progress("training the supernet"),
            workers=self.workers,
        )

    def run(self) -> SearchResult:
        """Train the supernet, search, scale, retrain, export and measure; write the result.

        Raises `UnreachableTargetError` at once where no architecture is fast enough.
        """
        task = self._task()
        task.cost.require_reachable(self.settings.target_ms)
        set_threads(self.settings.threads)
        with self._timed("supernet training"):
            supernet = single_path(task).weights
        chosen = self._searched(task, supernet)
        with self._timed("landing on the target"):
            landings, table = land(
                {name: item.architecture for name, item in chosen.items()},
                self.space,
                self.table,
                self.device,
                self.store,
                self.protocol,
                self.settings.target_ms,
                self.progress,
            )
        with self._timed("retraining and export"):
            trained = {
                name: self._trained(supernet, name, landing) for name, landing in landings.items()
            }
        with self._timed("measuring the finalists"):
            measured = self._measured(trained)
        finalists = tuple(
            self._finalist(name, chosen[name], landings[name], trained[name], measured[name], table)
            for name in chosen
        )
        result = SearchResult(
            self.space.name,
            self.space_address,
            self.data.classes,
            self.data.name,
            self.settings.target_ms,
            self.range_ms[1],
            self.settings.seed,
            self.table.setup,
            str(self.table_file),
            str(self.store),
            asdict(self.settings),
            finalists,
            self.seconds,
        )
        result.save(self.folder / "result.json")
        return result

    def _searched(self, task: Task, supernet: SharedWeights) -> dict[str, Chosen]:
        """Run the strategy, then random search with as many evaluations."""
        cost = task.cost
        evaluator = SupernetEvaluator(supernet, self.data, seed=self.settings.seed)
        log = SearchLog(self.folder / "search.jsonl", self._log_settings())
        trajectory = Trajectory(self.store, log)
        chosen = {}
        for strategy in self._strategies(task):
            advance = self._counting_progress(f"{strategy.name} search")
            with self._timed(f"{strategy.name} search"):
                count = run_strategy(
                    strategy,
                    cost,
                    evaluator.accuracy,
                    log,
                    trajectory=trajectory,
                    progress=advance,
                )
                warning = strategy.warning() if isinstance(strategy, Reinforce) else None
                if warning is not None:
                    self.progress.console.print(warning, markup=False, highlight=False)
                entries = [item for item in log.entries() if item.strategy == strategy.name]
                architecture = self._choose(strategy, cost, entries)
                predicted_ms = float(cost.latency_ms(self.space.encode([architecture]))[0])
                accuracy = evaluator.accuracy(architecture)
            chosen[strategy.name] = Chosen(architecture, predicted_ms, accuracy, count)
        return chosen

    def _strategies(self, task: Task) -> tuple[Strategy, Strategy]:
        settings = self.settings
        search: Strategy
        if settings.strategy == "evolution":
            search = evolution(task, population=settings.population, rounds=settings.rounds)
        else:
            search = Reinforce(
                self.space,
                sum(self.range_ms) / 2 if is_scalable(self.space) else settings.target_ms,
                steps=settings.evaluations,
                learning_rate=REINFORCE_RATE,
                seed=settings.seed,
            )
        random = RandomSearch(
            self.space,
            task.cost,
            task.target_ms,
            budget=settings.evaluations,
            seed=settings.seed + 1,  # not the first population of the evolution again
        )
        return search, random

    def _choose(
        self, strategy: Strategy, cost: CostModel, entries: Sequence[LogEntry]
    ) -> Architecture:
        """The strategy's architecture to scale down to the target, or to take as it is.

        Within `range_ms`: there, REINFORCE's is its policy's mode, the others' the most accurate
        one evaluated (then the fastest). Where none was evaluated there, the one nearest to its
        lower end.
        """
        least_ms, limit_ms = self.range_ms
        if isinstance(strategy, Reinforce):
            mode = strategy.best()
            if least_ms <= cost.latency_ms(self.space.encode([mode]))[0] <= limit_ms:
                return mode
        inside = [item for item in entries if least_ms <= item.predicted_ms <= limit_ms]
        if inside:
            best = min(inside, key=lambda item: (-item.accuracy, item.predicted_ms))
        else:
            best = min(entries, key=lambda item: abs(item.predicted_ms - least_ms))
        return Architecture(best.architecture)

    def _trained(self, supernet: SharedWeights, name: str, landing: Landing) -> Trained:
        settings = self.settings
        model = supernet.extract(landing.architecture)
        recalibrate(model, calibration_batches(self.data, 4, 64, settings.seed))
        retrained = retrain(
            model,
            self.data,
            settings.retraining,
            checkpoint=self.folder / name / "retraining.checkpoint",
            progress=self._training_progress(f"retraining {name}"),
            workers=self.workers,
        )
        exported = export(retrained.model, self.data, self.folder / name)
        return Trained(retrained, exported, test_accuracy(retrained.model, self.data))

    def _measured(self, trained: Mapping[str, Trained]) -> dict[str, Measurement]:
        """Time the exported files, all in the same rounds."""
        litert = SUFFIXES[self.table.setup.runtime] == ".tflite"
        files = {
            name: ModelFile.read(item.exported.tflite if litert else item.exported.onnx)
            for name, item in trained.items()
        }
        found = profile(
            self.device,
            [(file, 0) for file in files.values()],
            self.store,
            self.protocol,
            progress=self.progress,
            description="measuring the finalists",
        )
        for (model, _), cause in found.failures.items():
            raise DeviceError(f"{model} could not be timed: {cause}")
        return {name: found.measurements[subject_id(file), 0] for name, file in files.items()}

    def _finalist(
        self,
        name: str,
        chosen: Chosen,
        landing: Landing,
        trained: Trained,
        measured: Measurement,
        table: LatencyTable,
    ) -> Finalist:
        network = self.space.network(landing.architecture)
        predicted = table.network(network)
        counts = network_counts(network)
        return Finalist(
            strategy=name,
            architecture=landing.architecture,
            description=self.space.describe(landing.architecture.choices),
            searched_choices=chosen.architecture.choices,
            searched_ms=chosen.predicted_ms,
            supernet_accuracy=chosen.accuracy,
            evaluations=chosen.evaluations,
            corrections=landing.corrections,
            predicted_ms=predicted.latency_ms,
            low_ms=predicted.low_ms,
            high_ms=predicted.high_ms,
            prediction_source=predicted.source,
            measured_ms=measured.median_ms,
            measured_low_ms=measured.low_ms,
            measured_high_ms=measured.high_ms,
            verdict=measured.verdict.kind,
            verdict_reasons=measured.verdict.reasons,
            validation_accuracy=trained.retrained.validation_accuracy,
            test_accuracy=trained.test_accuracy,
            flops=counts.flops,
            parameters=counts.parameters,
            block_ms=tuple(table.block_cost_ms(block) for block in network.blocks),
            onnx_file=trained.exported.onnx.name,
            tflite_file=trained.exported.tflite.name,
        )

    def _log_settings(self) -> dict[str, Any]:
        """All that the search log depends on."""
        settings = asdict(self.settings)
        del settings["retraining"]
        return {
            **settings,
            "space": self.space.name,
            "data": self.data.key,
            "table_sha256": hashlib.sha256(self.table_file.read_bytes()).hexdigest(),
            "versions": {name: version(name) for name in ("latkit", "numpy", "torch")},
        }

    def _training_progress(self, description: str) -> Callable[[TrainingProgress], None]:
        task = self.progress.add_task(description, total=None)

        def update(at: TrainingProgress) -> None:
            self.progress.update(task, completed=at.step, total=at.steps)

        return update

    def _counting_progress(self, description: str) -> Callable[[int], None]:
        task = self.progress.add_task(description, total=self.settings.evaluations)
        return lambda done: self.progress.update(task, completed=done)

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - start


def default_target_ms(space: SearchSpace, table: LatencyTable) -> float:
    """A target in the middle of the space: the median latency of random architectures."""
    cost = cost_model(space, table.block_cost_ms, table.calibration.constant_ms)
    latency_ms = cost.latency_ms(space.sample_choices(cost.rows_at_once, np.random.default_rng(0)))
    return float(f"{np.median(latency_ms):.3g}")
