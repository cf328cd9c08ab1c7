"""How recipes choose, once weights are trained: strategies under the task's target.

Options are those of the strategy's class.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from ...devices.errors import UsageError
from ..strategies.bayesian import Bayesian
from ..strategies.coarse_to_fine import CoarseToFine
from ..strategies.evolution import Evolution
from ..strategies.nsga2 import Nsga2
from ..strategies.random_search import RandomSearch
from ..strategies.recurrent import LstmPpo, LstmReinforce
from ..strategies.regularised_evolution import RegularisedEvolution
from ..strategies.reinforce import Reinforce
from ..strategies.strategy import Strategy
from .recipe import Recipe
from .task import Task


def evolution(task: Task, **options: Any) -> Evolution:
    """Evolution as in SPOS (Guo et al. 2019)."""
    return Evolution(
        task.space, task.cost, task.target_ms, seed=task.seed, also=task.also, **options
    )


def random_search(task: Task, **options: Any) -> RandomSearch:
    """Random architectures, the best one kept."""
    return RandomSearch(
        task.space, task.cost, task.target_ms, seed=task.seed, also=task.also, **options
    )


def regularised_evolution(task: Task, **options: Any) -> RegularisedEvolution:
    """Regularised evolution (Real et al. 2019)."""
    return RegularisedEvolution(
        task.space, task.cost, task.target_ms, seed=task.seed, also=task.also, **options
    )


def nsga2(task: Task, **options: Any) -> Nsga2:
    """NSGA-II (Deb et al. 2002), within the target."""
    return Nsga2(task.space, task.cost, task.target_ms, seed=task.seed, also=task.also, **options)


def bayesian(task: Task, **options: Any) -> Bayesian:
    """Bayesian optimisation: ours, where no paper's own strategy is wanted."""
    return Bayesian(
        task.space, task.cost, task.target_ms, seed=task.seed, also=task.also, **options
    )


def coarse_to_fine(task: Task, **options: Any) -> CoarseToFine:
    """A coarse grid, then what single choices change, as in BigNAS (Yu et al. 2020)."""
    return CoarseToFine(task.space, task.cost, task.target_ms, also=task.also, **options)


def lstm_reinforce(task: Task, *, steps: int = 120, **options: Any) -> LstmReinforce:
    """An LSTM taught by REINFORCE, as in NAS-RL and ENAS; the most rewarded architecture.

    How many steps is ours.
    """
    _keeps_latency_alone(task)
    return LstmReinforce(task.space, task.target_ms, steps=steps, seed=task.seed, **options)


def lstm_ppo(task: Task, *, steps: int = 120, **options: Any) -> LstmPpo:
    """An LSTM taught by PPO, as in NASNet (Zoph et al. 2018); the most rewarded architecture.

    How many steps is ours.
    """
    _keeps_latency_alone(task)
    return LstmPpo(task.space, task.target_ms, steps=steps, seed=task.seed, **options)


def reinforce(
    task: Task, *, steps: int = 120, learning_rate: float = 0.1, **options: Any
) -> Reinforce:
    """A policy trained by its rewards, as in TuNAS (Bender et al. 2020), on trained weights.

    Steps and rate are ours: one step moves a logit by about the rate, which is 3e-4 for the
    paper's hundred thousand steps.
    """
    _keeps_latency_alone(task)
    options = {"steps": steps, "learning_rate": learning_rate, "seed": task.seed, **options}
    return Reinforce(task.space, task.target_ms, **options)


def _keeps_latency_alone(task: Task) -> None:
    """Refuse what a strategy that is led by a reward can't reach, or can't keep."""
    task.cost.require_reachable(task.target_ms)
    if task.also:
        raise UsageError(
            "a strategy that is led by a reward knows latency alone and keeps no other limit: "
            "choose another one, as bayesian or evolution"
        )


STRATEGIES: dict[str, Callable[..., Strategy]] = {
    "bayesian": bayesian,
    "evolution": evolution,
    "regularised_evolution": regularised_evolution,
    "nsga2": nsga2,
    "random": random_search,
    "coarse_to_fine": coarse_to_fine,
    "reinforce": reinforce,
    "lstm_reinforce": lstm_reinforce,
    "lstm_ppo": lstm_ppo,
}
"""What `--strategy` takes in place of a recipe's own."""


def with_strategy(recipe: Recipe, name: str | None) -> Recipe:
    """The recipe, choosing by the strategy of this name; as it is for `None`.

    Raises `UsageError`, listing the known, where there is none.
    """
    if name is None:
        return recipe
    if name not in STRATEGIES:
        raise UsageError(f"--strategy {name}: it is one of {', '.join(STRATEGIES)}")
    return replace(recipe, strategy=STRATEGIES[name])
