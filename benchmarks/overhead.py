"""What does a search engine itself cost? Microseconds an evaluation for asking and telling.

Strategies of ours beside Optuna's and pymoo's, on the same spaces with the same free objective: a
sum of a random number for each option as accuracy, a cost model of operation counts as latency.
Only the calls that ask and tell are timed, one architecture at a time (pymoo: a generation), by
the processor's time of this process, which neighbours on the machine change little, in one thread.
Ours draw within the median latency, each architecture once (REINFORCE and the LSTMs: from all,
again and again; NSGA-II: from all); the others know no limit: Optuna's TPE and random sampler see
accuracy alone, both NSGA-II both objectives.

All take turns in each repeat, in another order each time. A row has the mean over the first 100,
1000, ... evaluations of a run: the median, least and most of the repeats.
"""

from __future__ import annotations

import argparse
import gc
import importlib.metadata
import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Before numpy starts its threads: waiting ones would count as work.
os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"

import numpy as np
import optuna
from latkit.latency.counts import block_counts
from latkit.latency.pricing import cost_model
from latkit.latency.spaces import load_space
from latkit.search.space import SearchSpace
from latkit.search.strategies.bayesian import Bayesian
from latkit.search.strategies.coarse_to_fine import CoarseToFine
from latkit.search.strategies.evolution import Evolution
from latkit.search.strategies.nsga2 import Nsga2
from latkit.search.strategies.random_search import RandomSearch
from latkit.search.strategies.recurrent import LstmPpo, LstmReinforce
from latkit.search.strategies.regularised_evolution import RegularisedEvolution
from latkit.search.strategies.reinforce import Reinforce
from latkit.search.strategies.strategy import Strategy
from numpy.typing import NDArray
from pymoo.algorithms.moo.nsga2 import NSGA2
from pymoo.core.evaluator import Evaluator
from pymoo.core.problem import Problem
from pymoo.operators.crossover.sbx import SBX
from pymoo.operators.mutation.pm import PM
from pymoo.operators.repair.rounding import RoundingRepair
from pymoo.operators.sampling.rnd import IntegerRandomSampling
from pymoo.problems.static import StaticProblem
from results import report

POPULATION = 50
"""Of every evolution: SPOS's, and Optuna's default."""

PPO_BATCH = 20
"""NASNet's."""

Seconds = NDArray[np.float64]
"""(N,) of each evaluation in turn, those of a generation shared among it; fewer where it ended."""


class Objective:
    """A space with a cost model, a target that half of it meets, and a made-up accuracy."""

    def __init__(self, name: str) -> None:
        space = load_space(name)
        assert isinstance(space, SearchSpace)
        self.space = space
        self.cost = cost_model(space, lambda block: block_counts(block).flops / 1e8)
        random = np.random.default_rng(0)
        drawn = space.sample_choices(1024, random)
        self.target_ms = float(np.median(self.cost.latency_ms(drawn)))
        self._worth = [random.random(count) for count in space.option_counts]

    def accuracy(self, choices: Sequence[int]) -> float:
        worth = sum(values[option] for values, option in zip(self._worth, choices, strict=True))
        return float(worth) / len(self._worth)

    def latency_ms(self, choices: Sequence[Sequence[int]]) -> list[float]:
        found = self.cost.latency_ms(np.array(choices, dtype=np.int64))
        return [float(value) for value in found]


STRATEGIES: dict[str, Callable[[Objective, int, int], Strategy]] = {
    "random": lambda given, count, seed: RandomSearch(
        given.space, given.cost, given.target_ms, budget=count, seed=seed
    ),
    "evolution": lambda given, count, seed: Evolution(
        given.space,
        given.cost,
        given.target_ms,
        population=POPULATION,
        rounds=-(-count // POPULATION),
        seed=seed,
    ),
    "coarse_to_fine": lambda given, count, seed: CoarseToFine(
        given.space, given.cost, given.target_ms, budget=count
    ),
    "reinforce": lambda given, count, seed: Reinforce(
        given.space, given.target_ms, steps=count, seed=seed
    ),
    "regularised_evolution": lambda given, count, seed: RegularisedEvolution(
        given.space, given.cost, given.target_ms, budget=count, seed=seed
    ),
    "nsga2": lambda given, count, seed: Nsga2(given.space, given.cost, budget=count, seed=seed),
    "bayesian": lambda given, count, seed: Bayesian(
        given.space, given.cost, given.target_ms, budget=count, seed=seed
    ),
    "lstm_reinforce": lambda given, count, seed: LstmReinforce(
        given.space, given.target_ms, steps=count, seed=seed
    ),
    "lstm_ppo": lambda given, count, seed: LstmPpo(
        given.space,
        given.target_ms,
        steps=max(1, count // PPO_BATCH),
        per_step=PPO_BATCH,
        seed=seed,
    ),
}
"""By name, a strategy of ours for an objective, a number of evaluations and a seed."""

SAMPLERS: dict[str, Callable[[int], optuna.samplers.BaseSampler]] = {
    "optuna random": lambda seed: optuna.samplers.RandomSampler(seed=seed),
    "optuna TPE": lambda seed: optuna.samplers.TPESampler(seed=seed),
    "optuna NSGA-II": lambda seed: optuna.samplers.NSGAIISampler(
        population_size=POPULATION, seed=seed
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--spaces", default="nasbench201,mobile,proxylessnas")
    parser.add_argument("--evaluations", default="100,1000")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", help="names of those that take part; default: all")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    checkpoints = sorted(int(text) for text in arguments.evaluations.split(","))
    rows = []
    for name in arguments.spaces.split(","):
        rows += compare(Objective(name), checkpoints, arguments)
    versions = {name: importlib.metadata.version(name) for name in ("optuna", "pymoo", "numpy")}
    figures = {f"{row['space']}, {row['who']}": row[f"us_{checkpoints[-1]}"] for row in rows}
    report(figures, rows, {**versions, **vars(arguments)}, arguments.json)


def compare(
    objective: Objective, checkpoints: Sequence[int], arguments: argparse.Namespace
) -> list[dict[str, Any]]:
    """Run all in turn, and tell what an evaluation took up to each number of them."""
    count = checkpoints[-1]
    runs: dict[str, Callable[[int], Seconds]] = {
        **{name: _ours(make, objective, count) for name, make in STRATEGIES.items()},
        **{name: _optuna(make, objective, count) for name, make in SAMPLERS.items()},
        "pymoo NSGA-II": lambda seed: run_pymoo(objective, count, seed),
    }
    if arguments.only:
        runs = {name: runs[name] for name in arguments.only.split(",")}
    found: dict[str, list[Seconds]] = {name: [] for name in runs}
    for repeat in range(arguments.repeats):
        order = np.random.default_rng(repeat).permutation([*runs])
        for name in order.tolist():
            gc.collect()
            found[name].append(runs[name](repeat))
    rows = []
    for name, repeats in found.items():
        row: dict[str, Any] = {"space": objective.space.name, "who": name}
        for checkpoint in checkpoints:
            means = [
                1e6 * float(seconds[:checkpoint].mean())
                for seconds in repeats
                if len(seconds) >= checkpoint
            ]
            row[f"us_{checkpoint}"] = statistics.median(means) if means else float("nan")
            row[f"least_{checkpoint}"] = min(means, default=float("nan"))
            row[f"most_{checkpoint}"] = max(means, default=float("nan"))
        rows.append(row)
    return rows


@dataclass
class Stopwatch:
    """Adds up what runs inside of `with`."""

    seconds: float = 0.0
    _begun: float = 0.0

    def __enter__(self) -> None:
        self._begun = time.process_time()

    def __exit__(self, *_: object) -> None:
        self.seconds += time.process_time() - self._begun

    def taken(self) -> float:
        """What it holds, which it forgets."""
        seconds, self.seconds = self.seconds, 0.0
        return seconds


def _ours(
    make: Callable[[Objective, int, int], Strategy], objective: Objective, count: int
) -> Callable[[int], Seconds]:
    return lambda seed: run_strategy(make(objective, count, seed), objective, count)


def _optuna(
    make: Callable[[int], optuna.samplers.BaseSampler], objective: Objective, count: int
) -> Callable[[int], Seconds]:
    return lambda seed: run_optuna(make(seed), objective, count)


def run_strategy(strategy: Strategy, objective: Objective, count: int) -> Seconds:
    """One of ours."""
    watch, seconds = Stopwatch(), []
    while len(seconds) < count:
        with watch:
            asked = [] if strategy.done else strategy.ask(1)
        if not asked:
            break
        choices = asked[0].choices
        accuracy, latency_ms = objective.accuracy(choices), objective.latency_ms([choices])
        with watch:
            strategy.tell(asked, [accuracy], latency_ms)
        seconds.append(watch.taken())
    return np.array(seconds)


def run_optuna(sampler: optuna.samplers.BaseSampler, objective: Objective, count: int) -> Seconds:
    """A sampler of Optuna's, with its storage in memory, all parameters categorical."""
    both = isinstance(sampler, optuna.samplers.NSGAIISampler)
    study = optuna.create_study(
        sampler=sampler, directions=["maximize", "minimize"] if both else ["maximize"]
    )
    space: dict[str, optuna.distributions.BaseDistribution] = {
        choice.name: optuna.distributions.CategoricalDistribution(range(len(choice.options)))
        for choice in objective.space.choices
    }
    watch, seconds = Stopwatch(), []
    for _ in range(count):
        with watch:
            trial = study.ask(space)
            choices = [trial.params[choice.name] for choice in objective.space.choices]
        accuracy, (latency_ms,) = objective.accuracy(choices), objective.latency_ms([choices])
        with watch:
            study.tell(trial, [accuracy, latency_ms] if both else accuracy)
        seconds.append(watch.taken())
    return np.array(seconds)


def run_pymoo(objective: Objective, count: int, seed: int) -> Seconds:
    """pymoo's NSGA-II on integers, with the operators that its manual gives for them."""
    counts = objective.space.option_counts
    problem = Problem(
        n_var=len(counts), n_obj=2, xl=np.zeros(len(counts)), xu=np.array(counts) - 1, vtype=int
    )
    repair = RoundingRepair()
    algorithm = NSGA2(
        pop_size=POPULATION,
        sampling=IntegerRandomSampling(),
        crossover=SBX(prob=1.0, eta=3.0, vtype=float, repair=repair),
        mutation=PM(prob=1.0, eta=3.0, vtype=float, repair=repair),
    )
    algorithm.setup(problem, termination=("n_eval", count), seed=seed, verbose=False)
    watch = Stopwatch()
    seconds: list[float] = []
    while len(seconds) < count:
        with watch:
            asked = algorithm.ask()
        if asked is None or not len(asked):
            break
        choices = asked.get("X").astype(int).tolist()
        accuracy = [objective.accuracy(row) for row in choices]
        values = np.column_stack([np.negative(accuracy), objective.latency_ms(choices)])
        Evaluator().eval(StaticProblem(problem, F=values), asked)
        with watch:
            algorithm.tell(infills=asked)
        seconds += [watch.taken() / len(choices)] * len(choices)
    return np.array(seconds)


if __name__ == "__main__":
    main()
