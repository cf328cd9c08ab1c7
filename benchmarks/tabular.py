"""What is each strategy worth on a table of all of NAS-Bench-201, beside random search and others?

Accuracies are TEST accuracies: this compares optimisers, not how their finds generalise.

Within a target: the 25, 50 and 75 % quantiles of the device's true latencies. `regret` is the
accuracy of the best architecture that is truly within the target, less that of the best one found
(in points of a per cent); `above` the share of evaluations that were seen to be within the target
and are not, `winner_above` the share of searches whose winner is such.

The front: `hypervolume_ratio` by true latencies, with accuracy .5 and the largest latency as the
reference: what was evaluated, over the whole table. Strategies that can do without a target are
given none; the others' three searches within the targets are put together, a third of the budget
each.

Evaluations count distinct architectures; what is seen to be above the target may be rejected for
nothing, and repeats are free, up to 4 times the budget in all. Strategies that don't depend on the
budget run once and are read at every budget; the others run for each.

Settings of the default were chosen on 1080ti_256, silver_4114 and pixel3 alone: report others. The
accuracies are the same on all devices, so this is no protection against settings that suit them.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Before numpy starts its threads: processes share the cores.
os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"

import numpy as np
from numpy.typing import NDArray
from results import print_table, report
from rich.console import Console
from rich.progress import track
from tabular_search.judging import (
    Difference,
    difference,
    difference_rows,
    passes,
    regret,
    regret_curve,
    violations,
)
from tabular_search.others import OTHERS
from tabular_search.ours import BASELINE, DEFAULT, LEARNED, OURS, Contender
from tabular_search.run import Found, run
from tabular_search.table import Table, read_tables

CONTENDERS: dict[str, Contender] = {**OURS, **OTHERS}
QUANTILES = (0.25, 0.5, 0.75)
TUNED_ON = ("1080ti_256", "silver_4114", "pixel3")

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Job:
    """One search: a device by its index, and a target by its index, or `None`."""

    strategy: str
    device: int
    target: int | None
    budget: int
    seed: int


def main() -> None:
    arguments = parse()
    devices: list[str] = arguments.device
    budgets = sorted(map(int, arguments.budgets.split(",")))
    names = list(CONTENDERS) if arguments.strategies is None else arguments.strategies.split(",")
    if unknown := set(names) - set(CONTENDERS):
        raise SystemExit(f"no strategy {', '.join(unknown)}; there are {', '.join(CONTENDERS)}")
    print("accuracy is test accuracy: this compares optimisers, not generalisation")
    for device in set(devices) & set(TUNED_ON):
        print(f"{device} is one of those that the default's settings were chosen on")
    start = time.perf_counter()
    tables = read_tables(
        arguments.accuracy,
        arguments.latency,
        devices,
        arguments.latency_model,
        arguments.sources and arguments.sources.split(","),
    )
    if arguments.latency_model is not None:
        for table in tables:
            error = np.abs(table.seen_ms / table.true_ms - 1)
            print(
                f"{table.device}: the latency model is within 10 % for {np.mean(error < 0.1):.0%}"
            )
    found = search_all(tables, names, budgets, arguments.seeds, arguments.jobs)
    judged = Judged(tables, found, names, budgets, arguments.seeds)
    rows = [judged.row(name, budget) for name in names for budget in budgets]
    differences = difference_rows(judged.differences())
    learned = judged.passing()
    for table_rows in (differences, learned):
        print_table(table_rows)
    figures = {"seconds": time.perf_counter() - start}
    if DEFAULT in names:
        at_last = judged.row(DEFAULT, budgets[-1])
        figures |= {"regret": at_last["regret"], "hypervolume_ratio": at_last["hypervolume_ratio"]}
    report(
        figures,
        rows,
        {
            "accuracy": f"{arguments.accuracy.name}, test accuracy: optimisers are compared",
            "devices": devices,
            "default_tuned_on": TUNED_ON,
            "latency_model": arguments.latency_model,
            "sources": arguments.sources,
            "seeds": arguments.seeds,
            "differences": differences,
            "passing_random": learned,
        },
        arguments.json,
    )


def search_all(
    tables: list[Table], names: Sequence[str], budgets: Sequence[int], seeds: int, jobs: int
) -> dict[Job, Found]:
    """All searches, side by side in `jobs` processes, the slow ones first."""
    wanted: dict[Job, None] = {}
    for name in names:
        for device in range(len(tables)):
            for seed in range(seeds):
                for job in jobs_of(name, device, budgets, seed):
                    wanted[job] = None
    order = sorted(wanted, key=lambda job: ("optuna" not in job.strategy, -job.budget))
    with multiprocessing.Pool(jobs, initializer=take_over, initargs=(tables,)) as pool:
        finished = pool.imap(search, order, chunksize=1)
        shown = track(finished, "searches", len(order), console=Console(stderr=True))
        return dict(zip(order, shown, strict=True))


def jobs_of(name: str, device: int, budgets: Sequence[int], seed: int) -> list[Job]:
    """Every search that one strategy needs."""
    contender = CONTENDERS[name]
    lengths = {budgets[-1]} if contender.anytime else set(budgets)
    found = [
        Job(name, device, target, length, seed)
        for length in lengths
        for target in range(len(QUANTILES))
    ]
    if contender.has_front:
        return found + [Job(name, device, None, length, seed) for length in lengths]
    if contender.anytime:
        return found
    thirds = {budget // len(QUANTILES) for budget in budgets}
    return found + [
        Job(name, device, target, length, seed)
        for length in thirds
        for target in range(len(QUANTILES))
    ]


_tables: list[Table] = []


def take_over(tables: list[Table]) -> None:
    """Give a process the tables."""
    _tables[:] = tables


def search(job: Job) -> Found:
    """Run one search."""
    table = _tables[job.device]
    target_ms = None if job.target is None else targets_ms(table)[job.target]
    return run(CONTENDERS[job.strategy].search, table, target_ms, job.budget, job.seed)


def targets_ms(table: Table) -> list[float]:
    """The targets of a device."""
    return [float(value) for value in np.quantile(table.true_ms, QUANTILES)]


class Judged:
    """All searches, and what they are worth."""

    def __init__(
        self,
        tables: list[Table],
        found: dict[Job, Found],
        names: Sequence[str],
        budgets: Sequence[int],
        seeds: int,
    ) -> None:
        self.tables, self.found, self.names = tables, found, names
        self.budgets, self.seeds = budgets, seeds

    def rows_of(
        self, name: str, device: int, target: int | None, budget: int, seed: int
    ) -> NDArray[np.intp]:
        """What a strategy evaluates within a budget."""
        length = self.budgets[-1] if CONTENDERS[name].anytime else budget
        return self.found[Job(name, device, target, length, seed)].rows[:budget]

    def regrets(self, name: str, budget: int) -> Values:
        """(seeds, devices, targets), shares of 1."""
        return np.array(
            [
                [
                    [
                        regret(table, self.rows_of(name, device, target, budget, seed), target_ms)
                        for target, target_ms in enumerate(targets_ms(table))
                    ]
                    for device, table in enumerate(self.tables)
                ]
                for seed in range(self.seeds)
            ]
        )

    def ratios(self, name: str, budget: int) -> Values:
        """Hypervolume ratios: (seeds, devices)."""
        return np.array(
            [
                [
                    table.hypervolume_ratio(self.front_rows(name, device, budget, seed))
                    for device, table in enumerate(self.tables)
                ]
                for seed in range(self.seeds)
            ]
        )

    def front_rows(self, name: str, device: int, budget: int, seed: int) -> NDArray[np.intp]:
        """What a strategy evaluates where the front is asked for."""
        if CONTENDERS[name].has_front:
            return self.rows_of(name, device, None, budget, seed)
        third = budget // len(QUANTILES)
        return np.concatenate(
            [self.rows_of(name, device, target, third, seed) for target in range(len(QUANTILES))]
        )

    def above(self, name: str, budget: int) -> Values:
        """Shares of evaluations and of winners that are above the target: (2,)."""
        return np.mean(
            [
                violations(table, self.rows_of(name, device, target, budget, seed), target_ms)
                for seed in range(self.seeds)
                for device, table in enumerate(self.tables)
                for target, target_ms in enumerate(targets_ms(table))
            ],
            axis=0,
        )

    def row(self, name: str, budget: int) -> dict[str, Any]:
        """A strategy at a budget: means over seeds and devices."""
        regrets = 100 * self.regrets(name, budget)
        above, winner_above = self.above(name, budget)
        length = self.budgets[-1] if CONTENDERS[name].anytime else budget
        of_length = [
            (job, item)
            for job, item in self.found.items()
            if (job.strategy, job.budget) == (name, length)
        ]
        ratios = self.ratios(name, budget)
        return {
            "strategy": name,
            "budget": budget,
            **{
                f"regret_{quantile:.0%}": float(regrets[:, :, target].mean())
                for target, quantile in enumerate(QUANTILES)
            },
            "regret": float(regrets.mean()),
            "regret_median": float(np.median(regrets)),
            "hypervolume_ratio": float(ratios.mean()),
            "hypervolume_least": float(ratios.min()),
            "above": float(above),
            "winner_above": float(winner_above),
            "evaluated": float(np.mean([len(item.rows[:budget]) for _, item in of_length])),
            "search_s": float(np.mean([item.seconds for _, item in of_length])),
        }

    def differences(self) -> list[Difference]:
        """The default beside random search and what others made, seed by seed."""
        if DEFAULT not in self.names:
            return []
        found = []
        for budget in self.budgets:
            for than in (name for name in self.names if name == BASELINE or name in OTHERS):
                own, theirs = (
                    100 * self.regrets(name, budget).mean(axis=(1, 2)) for name in (DEFAULT, than)
                )
                found.append(difference("regret", budget, than, own, theirs, -1.0))
                own, theirs = (self.ratios(name, budget).mean(axis=1) for name in (DEFAULT, than))
                found.append(difference("hypervolume_ratio", budget, than, own, theirs, 1.0))
        return found

    def passing(self) -> list[dict[str, Any]]:
        """After how many evaluations a learned policy's median regret stays below random's."""
        length = self.budgets[-1]
        rows = []
        for name in (name for name in LEARNED if {name, BASELINE} <= {*self.names}):
            for device, table in enumerate(self.tables):
                for target, target_ms in enumerate(targets_ms(table)):
                    own, theirs = (
                        np.median(
                            [
                                regret_curve(
                                    table,
                                    self.rows_of(each, device, target, length, seed),
                                    target_ms,
                                    length,
                                )
                                for seed in range(self.seeds)
                            ],
                            axis=0,
                        )
                        for each in (name, BASELINE)
                    )
                    after = passes(own, theirs)
                    rows.append(
                        {
                            "strategy": name,
                            "device": table.device,
                            "target": f"{QUANTILES[target]:.0%}",
                            "passes random after": "never" if after is None else str(after),
                            "regret at the end": float(100 * own[-1]),
                            "random's": float(100 * theirs[-1]),
                        }
                    )
        return rows


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--accuracy", type=Path, required=True, help=".npz of ops and *_acc")
    parser.add_argument(
        "--latency", type=Path, required=True, help=".npz of ops, devices and latency_ms"
    )
    parser.add_argument("--device", nargs="+", required=True, help="names in the latency file")
    parser.add_argument("--budgets", default="100,300,1000", help="evaluations")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument(
        "--latency-model",
        type=int,
        metavar="N",
        help="strategies see a model made from N measurements, not the true latency",
    )
    parser.add_argument(
        "--sources", help="devices that the model knows: A,B,... Default: all others"
    )
    parser.add_argument("--strategies", help="A,B,...; default: all of them")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()
