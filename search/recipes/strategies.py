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
from ..strategies.recurrent import LstmPpo, LstmReinforce
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


def lstm_reinforce(task: Task, **options: Any) -> LstmReinforce:
    """An LSTM taught by REINFORCE, as in NAS-RL and ENAS; the most rewarded architecture."""
    task.cost.require_reachable(task.target_ms)
    return LstmReinforce(task.space, task.target_ms, seed=task.seed, **options)


def lstm_ppo(task: Task, **options: Any) -> LstmPpo:
    """An LSTM taught by PPO, as in NASNet (Zoph et al. 2018); the most rewarded architecture."""
    task.cost.require_reachable(task.target_ms)
    return LstmPpo(task.space, task.target_ms, seed=task.seed, **options)
