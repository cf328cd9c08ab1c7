"""A recipe: what a paper searches in, how its shared weights learn, and how it then chooses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..settings import TrainingSettings
from ..space import SearchSpace
from ..spaces.scale import Scale
from ..strategies.strategy import Strategy
from .task import Shared, Task


@dataclass(frozen=True, slots=True)
class Recipe:
    """A space, a way of learning, and how it ends with an architecture.

    `space` takes a number of classes and a scale, `train` a task, which may be of another space or
    other settings. After it, `strategy` searches among architectures, scored with the trained
    weights; without one, the architecture that training chose stands. Where `train` is None,
    nothing is shared: each architecture that the strategy asks for is trained on its own with
    `settings`. With a `width_grid`, the middle channels of what was found are then scaled to the
    target, in multiples of that.

    Change what a recipe does with `dataclasses.replace`: its settings, or
    `strategy=partial(evolution, rounds=5)`.
    """

    name: str
    source: str
    space: Callable[[int, Scale], SearchSpace]
    settings: TrainingSettings
    train: Callable[[Task], Shared] | None
    strategy: Callable[[Task], Strategy] | None = None
    width_grid: int | None = None
