"""What both sides of a comparison share: a space, its cost and target, images, and training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from latkit.latency.cost import CostModel
from latkit.search.data import Dataset
from latkit.search.recipes.task import Task
from latkit.search.settings import TrainingSettings
from latkit.search.space import Architecture, SearchSpace
from numpy.typing import NDArray
from sharing.alone import Alone
from sharing.costs import BlockCosts

RANDOM_SEEDS = 1000
"""Random search draws by this and the seed: not what the other side draws."""

FINAL_SEEDS = 2000
"""Winners are trained by this and the seed, alike: not as what they were chosen by."""

PRICED = 4096
"""Random architectures whose median cost is the target."""


@dataclass(frozen=True)
class Terms:
    """A space with what its architectures cost; images; how weights learn, and where they are.

    `label` names what is kept in `folder`. The target is the median cost of random architectures.
    """

    label: str
    space: SearchSpace
    data: Dataset
    costs: BlockCosts
    batch_size: int
    learning_rate: float
    folder: Path
    device: str

    @cached_property
    def cost(self) -> CostModel:
        """The cost of architectures."""
        return self.costs.of(self.space)

    @cached_property
    def target(self) -> float:
        """The median cost of random architectures."""
        drawn = self.space.sample_choices(PRICED, np.random.default_rng(0))
        return float(np.median(self.cost.latency_ms(drawn)))

    def costs_of(self, architectures: Sequence[Architecture]) -> NDArray[np.float64]:
        """(N,) costs."""
        return self.cost.latency_ms(self.space.encode(architectures))

    def task(self, epochs: int, seed: int) -> Task:
        """Shared weights to train, from a seed of their own."""
        return Task(
            self.space,
            self.data,
            self._settings(epochs, seed),
            self.costs.block_cost,
            self.target,
            self.costs.constant,
            seed,
            self.folder / f"{self.label}-{seed}.checkpoint",
            self.device,
        )

    def alone(self, epochs: int) -> Alone:
        """Trains architectures on their own, all alike."""
        return Alone(self.space, self.data, self._settings(epochs), self.folder, self.device)

    def _settings(self, epochs: int, seed: int = 0) -> TrainingSettings:
        return TrainingSettings(epochs, self.batch_size, self.learning_rate, flip=True, seed=seed)
