"""Path dropout: all candidates train together, ever more of them left out (Bender et al. 2018).

A candidate of k is left out with probability rate^(1/k), and the rate rises linearly from 0
(section 3.2; that form is recalled, not checked). What is left out is not run: it gets no
gradient, and no weight decay. Batch norms see `ghost_size` images at a time.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from ..learning import learn
from ..loading import Batch
from ..relaxed import RelaxedSupernet


@dataclass(frozen=True, slots=True)
class PathDropout:
    """Trains a random part of the candidates of each mixture a step, at least one of them.

    `rate` is what the rate has risen to at the end of training.
    """

    supernet: RelaxedSupernet
    rate: float = 0.5
    ghost_size: int = 32
    own_statistics: ClassVar[bool] = True

    def __call__(self, batch: Batch) -> float:
        """Learn from a batch; returns its loss."""
        kept = self.kept(batch.progress, batch.random)
        total = 0.0
        count = len(batch.labels)
        ghosts = max(1, count // self.ghost_size)
        for chosen in np.array_split(np.arange(count), ghosts):
            part = slice(int(chosen[0]), int(chosen[-1]) + 1)
            ghost = replace(batch, inputs=batch.inputs[part], labels=batch.labels[part])
            loss = ghost.loss(self.supernet(ghost.inputs, kept))
            total += learn(loss * (len(chosen) / count))
        return total

    def kept(self, progress: float, random: np.random.Generator) -> dict[str, list[float]]:
        """By the name of a mixture or a sink, 1 for each candidate that is kept, else 0."""
        counts = self.supernet.counts
        found = {}
        for name in sorted(counts):
            count = counts[name]
            keep = random.random(count) >= (self.rate * progress) ** (1 / count)
            if not keep.any():
                keep[random.integers(count)] = True
            found[name] = keep.astype(float).tolist()
        return found
