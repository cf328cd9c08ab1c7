"""How recipes choose, once weights are trained: strategies under the task's target.

Options are those of the strategy's class.
"""

from __future__ import annotations

from typing import Any

from ..strategies.bayesian import Bayesian
from ..strategies.coarse_to_fine import CoarseToFine
from ..strategies.evolution import Evolution
from ..strategies.nsga2 import Nsga2
from ..strategies.random_search import RandomSearch
from ..strategies.regularised_evolution import RegularisedEvolution
from .task import Task


def evolution(task: Task, **options: Any) -> Evolution:
    """Evolution as in SPOS (Guo et al. 2019)."""
    return Evolution(task.space, task.cost, task.target_ms, seed=task.seed, **options)


def random_search(task: Task, **options: Any) -> RandomSearch:
    """Random architectures, the best one kept."""
    return RandomSearch(task.space, task.cost, task.target_ms, seed=task.seed, **options)


def regularised_evolution(task: Task, **options: Any) -> RegularisedEvolution:
    """Regularised evolution (Real et al. 2019)."""
    return RegularisedEvolution(task.space, task.cost, task.target_ms, seed=task.seed, **options)


def nsga2(task: Task, **options: Any) -> Nsga2:
    """NSGA-II (Deb et al. 2002), within the target."""
    return Nsga2(task.space, task.cost, task.target_ms, seed=task.seed, **options)


def bayesian(task: Task, **options: Any) -> Bayesian:
    """Bayesian optimisation: ours, where no paper's own strategy is wanted."""
    return Bayesian(task.space, task.cost, task.target_ms, seed=task.seed, **options)


def coarse_to_fine(task: Task, **options: Any) -> CoarseToFine:
    """A coarse grid, then what single choices change, as in BigNAS (Yu et al. 2020)."""
    return CoarseToFine(task.space, task.cost, task.target_ms, **options)
