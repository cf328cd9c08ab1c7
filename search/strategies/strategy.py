"""Strategies that sample: which architectures next, asked for and told about."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...devices.errors import UsageError
from ..space import Architecture, SearchSpace


@dataclass(frozen=True, slots=True)
class Evaluation:
    """An architecture, the choices it was sampled as, and what it was told to be worth.

    `choices` may differ from the architecture's where their canonical form does.
    """

    architecture: Architecture
    choices: tuple[int, ...]
    accuracy: float
    latency_ms: float


class Strategy(ABC):
    """Asks for architectures to evaluate and learns from what it is told.

    A strategy knows the space and no device, data or supernet. The same seed, asks and tells give
    the same architectures. `state` between any two calls, loaded into a strategy made with the
    same arguments, goes on as if there had been no break; what was asked for and not told about is
    asked for again.
    """

    name: str
    """What the state is filed under."""

    def __init__(self, space: SearchSpace, seed: int = 0) -> None:
        self.space = space
        self.seed = seed
        self.evaluations: list[Evaluation] = []
        self._random = np.random.default_rng(seed)
        self._queue: list[tuple[int, ...]] = []
        self._pending: list[tuple[int, ...]] = []

    # --- what a search loop calls ------------------------------------------------------------

    @property
    @abstractmethod
    def done(self) -> bool:
        """Whether everything that the strategy wanted to know was told."""

    @abstractmethod
    def best(self) -> Architecture:
        """The architecture that the search ends with. `UsageError` before there is one."""

    def figures(self) -> dict[str, float]:
        """What the strategy tells of itself now, by name, to be drawn over a search."""
        return {}

    def ask(self, count: int) -> list[Architecture]:
        """At most `count` architectures to evaluate next.

        Fewer, or none, where the strategy has to be told about earlier ones first, or is done.
        """
        if count < 1:
            raise UsageError(f"at least one architecture must be asked for, not {count}")
        if len(self._queue) < count:
            self._queue += self._propose(count - len(self._queue))
        taken, self._queue = self._queue[:count], self._queue[count:]
        self._pending += taken
        return [self.space.architecture(choices) for choices in taken]

    def tell(
        self,
        architectures: Sequence[Architecture],
        accuracies: Sequence[float],
        latencies_ms: Sequence[float],
    ) -> None:
        """What asked-for architectures are worth: accuracy as a share of 1, latency in ms.

        Raises `UsageError` where one was not asked for or a value is no finite number; nothing is
        learned then.
        """
        if not len(architectures) == len(accuracies) == len(latencies_ms):
            raise UsageError("tell() needs one accuracy and one latency for each architecture")
        pending = list(self._pending)
        told = []
        for architecture, accuracy, latency in zip(
            architectures, accuracies, latencies_ms, strict=True
        ):
            if not (math.isfinite(accuracy) and math.isfinite(latency)):
                raise UsageError(
                    f"architecture {architecture} was told to have accuracy {accuracy} and "
                    f"latency {latency} ms: both must be finite numbers"
                )
            choices = self._find(architecture, pending)
            pending.remove(choices)
            told.append(Evaluation(architecture, choices, float(accuracy), float(latency)))
        self._pending = pending
        self._learn(told)

    def state(self) -> dict[str, Any]:
        """Everything that the strategy knows, as plain JSON values."""
        return {
            "strategy": self.name,
            "space": self.space.name,
            "random": self._random.bit_generator.state,
            "queue": [list(choices) for choices in (*self._pending, *self._queue)],
            "evaluations": [
                [list(item.choices), item.accuracy, item.latency_ms] for item in self.evaluations
            ],
            **self._own_state(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Take over what `state` gave. Raises `UsageError` where it is another strategy's."""
        for key, own in (("strategy", self.name), ("space", self.space.name)):
            if state.get(key) != own:
                raise UsageError(f"the saved search is of {key} {state.get(key)}, not {own}")
        self._random.bit_generator.state = state["random"]
        self._pending = []
        self._queue = [tuple(choices) for choices in state["queue"]]
        self.evaluations = [
            Evaluation(self.space.architecture(choices), tuple(choices), accuracy, latency)
            for choices, accuracy, latency in state["evaluations"]
        ]
        self._load_own_state(state)

    # --- what a strategy adds ----------------------------------------------------------------

    @abstractmethod
    def _propose(self, count: int) -> list[tuple[int, ...]]:
        """More choices to ask for; any number of them, none where it must be told first."""

    @abstractmethod
    def _own_state(self) -> dict[str, Any]:
        """What `state` needs beyond what all strategies have."""

    @abstractmethod
    def _load_own_state(self, state: dict[str, Any]) -> None:
        """Take that over."""

    def _learn(self, told: list[Evaluation]) -> None:
        """Take in what was just told."""
        self.evaluations += told

    def _find(self, architecture: Architecture, pending: list[tuple[int, ...]]) -> tuple[int, ...]:
        for choices in pending:
            same = choices == architecture.choices
            if same or self.space.canonical(choices) == architecture.choices:
                return choices
        raise UsageError(f"architecture {architecture} was not asked for, or already told about")


def rank(evaluation: Evaluation) -> tuple[float, float, tuple[int, ...]]:
    """Sorts the most accurate first, of equally accurate ones the fastest."""
    return (-evaluation.accuracy, evaluation.latency_ms, evaluation.choices)
