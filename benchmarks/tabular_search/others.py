"""pymoo's NSGA-II and Optuna's samplers on a table, with what their documentation recommends.

What is above the target is known for nothing: it is told as infeasible, and not charged. Within a
target the objective is accuracy alone, else accuracy and latency.

pymoo: `Choice` variables with the operators of its guide to mixed variables, duplicates eliminated,
its tournament of feasibility, fronts and crowding. As these operators see one variable at a time,
they redraw each in half of the children; so a second one redraws one choice a child, with 20
members. Optuna: categorical parameters; TPE is
multivariate with one objective, as it chooses itself; constraints are set on trials.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import optuna
from pymoo.algorithms.moo.nsga2 import NSGA2, binary_tournament
from pymoo.core.evaluator import Evaluator
from pymoo.core.mixed import (
    MixedVariableDuplicateElimination,
    MixedVariableMating,
    MixedVariableSampling,
)
from pymoo.core.problem import Problem
from pymoo.core.variable import Choice
from pymoo.operators.mutation.rm import ChoiceRandomMutation
from pymoo.operators.selection.tournament import TournamentSelection
from pymoo.problems.static import StaticProblem

from .ours import Contender
from .run import Evaluations
from .table import SPACE

NAMES = [choice.name for choice in SPACE.choices]
OPTIONS = {name: list(range(count)) for name, count in zip(NAMES, SPACE.option_counts, strict=True)}

optuna.logging.set_verbosity(optuna.logging.ERROR)
warnings.filterwarnings("ignore", module="optuna")


def pymoo_nsga2(population: int, mutation: float | None = None) -> Contender:
    """pymoo's NSGA-II; `mutation` is a choice's probability, where it is not left to pymoo."""
    operator = ChoiceRandomMutation(prob_var=mutation)

    def search(evaluations: Evaluations, seed: int) -> None:
        bounded = evaluations.target_ms is not None
        problem = Problem(
            vars={name: Choice(options=options) for name, options in OPTIONS.items()},
            n_obj=1 if bounded else 2,
            n_ieq_constr=1 if bounded else 0,
        )
        apart = MixedVariableDuplicateElimination()
        mating = MixedVariableMating(
            selection=TournamentSelection(func_comp=binary_tournament),
            mutation={Choice: operator},
            eliminate_duplicates=apart,
        )
        algorithm = NSGA2(
            pop_size=population,
            sampling=MixedVariableSampling(),
            mating=mating,
            eliminate_duplicates=apart,
        )
        algorithm.setup(problem, seed=seed, termination=("n_gen", 10**9))
        while True:
            asked = algorithm.ask()
            if asked is None or not len(asked):
                return
            told = [judged(evaluations, [each.X[name] for name in NAMES]) for each in asked]
            values: dict[str, Any] = {
                "F": np.array([objectives[: problem.n_obj] for objectives, _ in told])
            }
            if bounded:
                values["G"] = np.array([[excess] for _, excess in told])
            Evaluator().eval(StaticProblem(problem, **values), asked)
            algorithm.tell(infills=asked)

    return Contender(search, anytime=True, has_front=True)


def optuna_sampler(make: Callable[[int], optuna.samplers.BaseSampler]) -> Contender:
    """A sampler of Optuna's."""

    def search(evaluations: Evaluations, seed: int) -> None:
        bounded = evaluations.target_ms is not None
        study = optuna.create_study(
            directions=["minimize"] if bounded else ["minimize", "minimize"], sampler=make(seed)
        )
        while True:
            trial = study.ask()
            choices = [trial.suggest_categorical(name, OPTIONS[name]) for name in NAMES]
            objectives, excess = judged(evaluations, choices)
            if bounded:
                trial.set_constraint("latency", excess)
            study.tell(trial, objectives[: len(study.directions)])

    return Contender(search, anytime=True, has_front=True)


def judged(evaluations: Evaluations, choices: list[int]) -> tuple[list[float], float]:
    """Objectives, smaller is better, and by how much the target is exceeded."""
    latency_ms = evaluations.latency_ms(choices)
    excess = latency_ms - (evaluations.target_ms or latency_ms)
    if evaluations.rejected(choices):
        return [0.0, latency_ms], excess
    return [-evaluations.accuracy(choices), latency_ms], excess


OTHERS: Mapping[str, Contender] = {
    "pymoo NSGA-II": pymoo_nsga2(100),
    "pymoo NSGA-II (20)": pymoo_nsga2(20, 1 / len(NAMES)),
    "optuna TPE": optuna_sampler(lambda seed: optuna.samplers.TPESampler(seed=seed)),
    "optuna NSGA-II": optuna_sampler(lambda seed: optuna.samplers.NSGAIISampler(seed=seed)),
}
