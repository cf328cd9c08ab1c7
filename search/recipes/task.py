"""What a way of learning is given, and what it leaves behind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from ...latency.blocks import Block
from ...latency.cost import CostModel
from ...latency.limits import Limit
from ...latency.pricing import cost_model
from ..data import Dataset
from ..settings import TrainingSettings
from ..space import Architecture, SearchSpace
from ..trainers.supernet import SharedWeights
from ..training import Progress


@dataclass(frozen=True)
class Task:
    """A space, images, and a cost with its target: what shared weights are trained for.

    An architecture costs `constant_ms` and what `block_cost_ms` tells of each of its blocks, in
    milliseconds or another unit, `target_ms` being in the same. `seed` draws the initial weights;
    the training's own is in `settings`. It goes on from `checkpoint` where that file exists, and
    runs on `device`, as torch calls it; `workers` threads read and augment images. Strategies keep
    the limits `also`.
    """

    space: SearchSpace
    data: Dataset
    settings: TrainingSettings
    block_cost_ms: Callable[[Block], float]
    target_ms: float
    constant_ms: float = 0.0
    seed: int = 0
    checkpoint: Path | None = None
    device: str = "cpu"
    progress: Callable[[Progress], None] | None = None
    workers: int = 1
    also: tuple[Limit, ...] = ()

    @cached_property
    def cost(self) -> CostModel:
        """The cost of architectures, each block priced once."""
        return cost_model(self.space, self.block_cost_ms, self.constant_ms)

    def corrected(self, factor: float) -> Task:
        """The task with `factor` times the cost, as measurements have shown it to be."""
        if factor == 1:
            return self
        return replace(
            self,
            block_cost_ms=lambda block: factor * self.block_cost_ms(block),
            constant_ms=factor * self.constant_ms,
        )


@dataclass(frozen=True, slots=True, eq=False)
class Shared:
    """Trained shared weights, and the architecture that training ended with, if it chose one."""

    weights: SharedWeights
    architecture: Architecture | None = None
