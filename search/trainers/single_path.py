"""Single path, uniformly drawn: each step trains one architecture (Guo et al. 2019, section 3.3).

Only what that architecture uses is moved: `sgd.SGD` leaves the weights, momentum and decay of
inactive paths alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ...devices.errors import UsageError
from ..learning import learn
from ..loading import Batch
from ..space import Architecture
from ..supernet import Supernet

Fits = Callable[[Architecture], bool]

TRIES = 1000
"""Draws after which a constraint counts as one that next to nothing meets."""


@dataclass(frozen=True, slots=True)
class SinglePath:
    """Trains one architecture a step, drawn uniformly among those that `fits` admits (all)."""

    supernet: Supernet
    fits: Fits | None = None

    def __call__(self, batch: Batch) -> float:
        """Learn from a batch; `UsageError` where hardly an architecture fits."""
        architecture = self._draw(batch.random)
        return learn(batch.loss(self.supernet(batch.inputs, architecture)))

    def _draw(self, random: np.random.Generator) -> Architecture:
        for _ in range(TRIES):
            architecture = self.supernet.space.sample(random)
            if self.fits is None or self.fits(architecture):
                return architecture
        raise UsageError(
            f"none of {TRIES} random architectures of {self.supernet.space.name} meets the "
            "constraint of training; relax it"
        )
