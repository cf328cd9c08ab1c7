"""The search loop: a strategy asks, an evaluator answers, log and trajectory remember."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ..devices.errors import UsageError
from ..latency.cost import CostModel
from .evaluators.evaluate import Evaluator, evaluate
from .log import LogEntry, SearchLog
from .space import Architecture
from .strategies.strategy import Strategy
from .trajectory import Trajectory

ASKED_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class Budget:
    """How much a strategy may evaluate; `None`: until it is done.

    `evaluations` counts architectures: one that the strategy asks for again costs nothing.
    `seconds` are those of its evaluations, by runs that were killed too (all but the last second
    or so before the kill). The evaluation that exceeds them is the last one.
    """

    evaluations: int | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        if self.evaluations is not None and self.evaluations < 1:
            raise UsageError(f"a budget is at least 1 evaluation, not {self.evaluations}")
        if self.seconds is not None and not self.seconds > 0:
            raise UsageError(f"a budget is more than 0 seconds, not {self.seconds}")


def run_strategy(
    strategy: Strategy,
    cost: CostModel,
    accuracy: Evaluator,
    log: SearchLog,
    *,
    budget: Budget | None = None,
    trajectory: Trajectory | None = None,
    progress: Callable[[int], None] | None = None,
) -> int:
    """Run `strategy` until it is done or its budget spent; return how many evaluations it took.

    Latencies are the cost model's, and come first. What `log` holds is not evaluated again: what
    a killed run left, and what the strategy, or one before it in that log, has asked for already.
    A repeated architecture has a line and a row of its own, and is no evaluation. A budget of
    seconds needs a `trajectory`, which remembers them. `progress` is called with the number of
    architectures answered so far.

    Raises `LatkitError` naming the architecture where `accuracy` raises or gives no accuracy; the
    strategy was told then about all before it, and the same call later goes on from there.
    """
    run = _Run(strategy, accuracy, log, budget, trajectory)
    while not (strategy.done or run.is_over):
        asked = strategy.ask(ASKED_AT_ONCE)
        if not asked:
            break
        latencies_ms = [float(value) for value in cost.latency_ms(strategy.space.encode(asked))]
        figures = strategy.figures()
        accuracies: list[float] = []
        try:
            for architecture, latency_ms in zip(asked, latencies_ms, strict=True):
                found = run.answer(architecture, latency_ms, figures)
                if found is None:
                    break
                accuracies.append(found)
                if progress is not None:
                    progress(run.answered)
        finally:
            if accuracies:
                count = len(accuracies)
                strategy.tell(asked[:count], accuracies, latencies_ms[:count])
            if trajectory is not None:
                trajectory.save()
    return len(run.evaluated)


class _Run:
    """One strategy's answers: from the log, or evaluated, within the budget."""

    def __init__(
        self,
        strategy: Strategy,
        evaluator: Evaluator,
        log: SearchLog,
        budget: Budget | None,
        trajectory: Trajectory | None,
    ) -> None:
        self._strategy = strategy
        self._evaluator = evaluator
        self._log = log
        self._budget = budget
        self._trajectory = trajectory
        self._most = math.inf if budget is None else budget.evaluations or math.inf
        self._seconds = math.inf if budget is None else budget.seconds or math.inf
        if trajectory is None and self._seconds < math.inf:
            raise UsageError(
                "a budget of seconds needs a trajectory, which remembers what killed runs took"
            )
        self.answered = 0
        self.evaluated: set[Architecture] = set()
        self.is_over = False

    def answer(
        self, architecture: Architecture, latency_ms: float, figures: Mapping[str, float]
    ) -> float | None:
        """The architecture's accuracy, noted in log and trajectory; `None` ends the run."""
        name, index, log = self._strategy.name, self.answered, self._log
        if architecture not in self.evaluated and len(self.evaluated) >= self._most:
            self.is_over = True
        elif self._budget is not None and log.goes_on_without(name):
            self.is_over = True  # an earlier run's budget was spent here
        if self.is_over:
            return None
        found, seconds = log.replay(name, index, architecture), math.nan
        is_logged = found is not None
        if found is None:
            found, seconds = log.accuracy(architecture), 0.0
        if found is None:
            if self._trajectory is not None and self._trajectory.seconds(name) >= self._seconds:
                self.is_over = True
                return None
            began = time.perf_counter()
            found = evaluate(self._evaluator, self._strategy.space, architecture)
            seconds = time.perf_counter() - began
        if not is_logged:
            log.append(LogEntry(name, index, architecture.choices, latency_ms, found))
        if self._trajectory is not None:
            self._trajectory.add(
                name,
                index,
                architecture,
                seed=self._strategy.seed,
                predicted_ms=latency_ms,
                accuracy=found,
                seconds=seconds,
                figures=figures,
            )
        self.evaluated.add(architecture)
        self.answered += 1
        return found
