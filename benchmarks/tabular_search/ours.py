"""The kit's strategies on a table. One more is one more entry of `OURS`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from latkit.search.strategies.bayesian import Bayesian
from latkit.search.strategies.evolution import Evolution
from latkit.search.strategies.nsga2 import Nsga2
from latkit.search.strategies.random_search import RandomSearch
from latkit.search.strategies.recurrent import LstmPpo, LstmReinforce
from latkit.search.strategies.regularised_evolution import RegularisedEvolution
from latkit.search.strategies.reinforce import Reinforce
from latkit.search.strategies.strategy import Strategy

from .run import Evaluations, Search, follow
from .table import SPACE

DEFAULT = "bayesian (default)"
BASELINE = "random"


@dataclass(frozen=True)
class Contender:
    """A strategy in the comparison.

    `anytime`: it does not depend on its budget, so that one long search is read at every budget.
    `has_front`: it searches for the front where it is given no target.
    """

    search: Search
    anytime: bool = False
    has_front: bool = False


def ours(make: Callable[[Evaluations, int], Strategy], **properties: bool) -> Contender:
    """One of the kit's strategies."""
    return Contender(
        lambda evaluations, seed: follow(make(evaluations, seed), evaluations), **properties
    )


def target_of(evaluations: Evaluations) -> float:
    """The target, for strategies that can't do without."""
    if evaluations.target_ms is None:
        raise ValueError("this strategy needs a target")
    return evaluations.target_ms


def constrained(strategy: Any, **options: Any) -> Callable[[Evaluations, int], Strategy]:
    """A strategy within a limit, with the budget as its own."""

    def make(evaluations: Evaluations, seed: int) -> Strategy:
        made: Strategy = strategy(
            SPACE,
            evaluations.table.cost,
            evaluations.target_ms,
            budget=evaluations.budget,
            seed=seed,
            **options,
        )
        return made

    return make


def spos(evaluations: Evaluations, seed: int) -> Strategy:
    """The paper's 20 rounds of 50 where there are 1,000 evaluations; with fewer, smaller rounds."""
    population = max(10, min(50, evaluations.budget // 10))
    return Evolution(
        SPACE,
        evaluations.table.cost,
        target_of(evaluations),
        population=population,
        rounds=-(-evaluations.budget // population),
        seed=seed,
    )


def reinforce(evaluations: Evaluations, seed: int) -> Strategy:
    """TuNAS's policy, its rate raised for few steps."""
    return Reinforce(
        SPACE,
        target_of(evaluations),
        steps=evaluations.budget,
        learning_rate=0.05,
        delay=0.0,
        seed=seed,
    )


def lstm_reinforce(evaluations: Evaluations, seed: int) -> Strategy:
    """ENAS's controller, an architecture a step."""
    target_ms = target_of(evaluations)
    return LstmReinforce(SPACE, target_ms, steps=evaluations.budget, seed=seed)


def lstm_ppo(evaluations: Evaluations, seed: int) -> Strategy:
    """NASNet's controller; steps of fewer architectures where there are few evaluations."""
    per_step = min(20, max(5, evaluations.budget // 20))
    return LstmPpo(
        SPACE,
        target_of(evaluations),
        steps=evaluations.budget // per_step,
        per_step=per_step,
        seed=seed,
    )


OURS: Mapping[str, Contender] = {
    BASELINE: ours(constrained(RandomSearch), anytime=True, has_front=True),
    "spos evolution": ours(spos),
    "regularised evolution": ours(constrained(RegularisedEvolution)),
    "nsga2": ours(constrained(Nsga2), has_front=True),
    "reinforce": ours(reinforce),
    "lstm reinforce": ours(lstm_reinforce),
    "lstm ppo": ours(lstm_ppo),
    DEFAULT: ours(constrained(Bayesian), anytime=True, has_front=True),
}
LEARNED = ("reinforce", "lstm reinforce", "lstm ppo")
"""Of which it is told when they pass random."""
