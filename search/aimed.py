"""The searches for one aim: what the recipe chooses, and random search beside it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from rich.progress import Progress

from ..devices.errors import UsageError
from ..latency.store import Store
from .aim import Aim
from .correcting import Offer
from .log import SearchLog
from .loop import run_strategy
from .recipes.recipe import Recipe
from .recipes.running import LOG, Learned, log_settings, scaled
from .recipes.task import Task
from .space import Architecture
from .strategies.constrained import ConstrainedStrategy
from .strategies.random_search import RandomSearch
from .strategies.reinforce import WARNED_BEYOND, Reinforce
from .strategies.strategy import Strategy
from .trajectory import Trajectory

RANDOM_EVALUATIONS = 100
"""Of random search, where the recipe has no strategy whose number it could have."""


@dataclass(slots=True)
class AimedSearch:
    """Searches for `aim`, one after the other, each with a log of its own in `folder`.

    What was scored in one is not scored again in the next. The cost is the task's, whose target is
    the largest latency that strategies may ask for. Architectures that training chose are scaled
    by `grid`.
    """

    recipe: Recipe
    aim: Aim
    task: Task
    learned: Learned
    folder: Path
    grid: int
    random_search: bool
    store: Store
    progress: Progress
    seconds: dict[str, float]
    logs: list[Path] = field(default_factory=list)
    _trajectory: Trajectory | None = field(default=None, init=False)
    _known: dict[Architecture, float] = field(default_factory=dict, init=False)

    def __call__(self, factor: float, number: int) -> dict[str, Offer]:
        """What the strategies offer under `factor` times the cost, in the search of this number.

        Raises `UnreachableTargetError` where nothing is fast enough then, and `UsageError` where
        the recipe chooses nothing.
        """
        task = self.task.corrected(factor)
        task.cost.require_reachable(self.aim.target_ms)
        offers: dict[str, Offer] = {}
        strategy = self._strategy(task)
        if strategy is None:
            offers[self.recipe.name] = self._trained_offer(task)
            if self.random_search:
                random = _random_search(task, RANDOM_EVALUATIONS)
                offers[random.name], _ = self._run(random, task, *self._log(task, random, number))
            return offers
        log, trajectory = self._log(task, strategy, number)
        offers[strategy.name], evaluations = self._run(strategy, task, log, trajectory)
        if self.random_search and not isinstance(strategy, RandomSearch):
            random = _random_search(task, evaluations)
            offers[random.name], _ = self._run(random, task, log, trajectory)
        return offers

    def remember(
        self, strategy: str, architecture: Architecture, predicted_ms: float, measured_ms: float
    ) -> None:
        """Put what was measured beside the evaluations of the last search, in the store."""
        if self._trajectory is not None:
            self._trajectory.add_finalist(
                strategy, architecture, predicted_ms=predicted_ms, measured_ms=measured_ms
            )

    def _log(self, task: Task, strategy: Strategy, number: int) -> tuple[SearchLog, Trajectory]:
        """The log of a search, and its rows in the store; random search's follow the strategy's."""
        path = self.folder / (f"search-{number}.jsonl" if number else LOG)
        log = SearchLog(path, log_settings(task, self.learned, strategy))
        self.logs.append(path)
        self._trajectory = Trajectory(self.store, log)
        return log, self._trajectory

    def _strategy(self, task: Task) -> Strategy | None:
        """The recipe's; one that comes from both sides aims at the middle of the range."""
        if self.recipe.strategy is None:
            return None
        strategy = self.recipe.strategy(task)
        least_ms, limit_ms = self.aim.range_ms(task.space)
        if isinstance(strategy, ConstrainedStrategy) or not self.aim.lands(task.space):
            return strategy
        return self.recipe.strategy(replace(task, target_ms=(least_ms + limit_ms) / 2))

    def _trained_offer(self, task: Task) -> Offer:
        """What training chose, with widths that bring it within the target where there are any."""
        architecture = self.learned.architecture
        if architecture is None:
            raise UsageError(
                f"recipe {self.recipe.name} chooses nothing: give it a strategy (--strategy)"
            )
        if not self.aim.lands(task.space):
            architecture = scaled(task, architecture, self.grid)
        latency_ms = float(task.cost.latency_ms(task.space.encode([architecture]))[0])
        excess = latency_ms / self.aim.target_ms - 1
        if excess > WARNED_BEYOND and not self.aim.lands(task.space):
            self._warn(
                f"training chose an architecture of {latency_ms:.4g} ms, {excess:.1%} above the "
                f"target of {self.aim.target_ms:.4g} ms: accuracy outweighed latency. Where the "
                "recipe has a reward, a stronger one holds it: --set train.strength=-0.5."
            )
        return Offer(architecture, {architecture: self._accuracy(architecture)})

    def _run(
        self, strategy: Strategy, task: Task, log: SearchLog, trajectory: Trajectory
    ) -> tuple[Offer, int]:
        """What a strategy offers, and how many evaluations it took."""
        shown = self.progress.add_task(f"{strategy.name} search", total=None)
        with timed(self.seconds, f"{strategy.name} search"):
            count = run_strategy(
                strategy,
                task.cost,
                self._accuracy,
                log,
                trajectory=trajectory,
                progress=lambda done: self.progress.update(shown, completed=done),
            )
            accuracies = {
                Architecture(item.architecture): item.accuracy
                for item in log.entries()
                if item.strategy == strategy.name
            }
            self._known.update(accuracies)
            preferred = strategy.best()
            if preferred not in accuracies:  # the mode of a policy
                least_ms, limit_ms = self.aim.range_ms(task.space)
                latency_ms = task.cost.latency_ms(task.space.encode([preferred]))[0]
                if least_ms <= latency_ms <= limit_ms:
                    accuracies[preferred] = self._accuracy(preferred)
        warning = strategy.warning() if isinstance(strategy, Reinforce) else None
        if warning is not None:
            self._warn(warning)
        return Offer(preferred, accuracies), count

    def _warn(self, text: str) -> None:
        self.progress.console.print(text, markup=False, highlight=False)

    def _accuracy(self, architecture: Architecture) -> float:
        if architecture not in self._known:
            self._known[architecture] = self.learned.accuracy(architecture)
        return self._known[architecture]


def _random_search(task: Task, evaluations: int) -> RandomSearch:
    seed = task.seed + 1  # not the first population of an evolution again
    return RandomSearch(
        task.space, task.cost, task.target_ms, budget=evaluations, seed=seed, also=task.also
    )


@contextmanager
def timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    """Add the seconds that this takes to those under `name`."""
    start = time.perf_counter()
    yield
    seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - start
