"""Does a search with a reward end at its target, and where the reward is largest?

REINFORCE searches all of NAS-Bench-201, accuracy and latency of every cell being known, so that
the mode of its final policy stands beside the architecture whose reward is the largest of all
15,625. Rewards: absolute (TuNAS) and soft (MnasNet), each with four strengths, and the absolute
one that adapts its strength. Targets are quantiles of the device's latencies.

    python benchmarks/rewards.py --accuracy ACC.npz --latency LAT.npz --device D --device E

A `best_share` of 1 is TuNAS's policy gradient, below that the policy learns from the best share of
each step. The same steps and rates for all; they, the share and how strengths adapt were chosen on
1080ti_32, silver_4114, titan_rtx_1, pixel3, titanxp_256, samsung_a50 and gold_6240. A run samples
more often than there are architectures: this asks where a reward leads, not how soon, and the
accuracies are test accuracies.
"""

from __future__ import annotations

import argparse
import itertools
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from latkit.devices.errors import UsageError
from latkit.latency.transfer.data import read_latency_data
from latkit.search.spaces.nasbench201 import NasBench201Space
from latkit.search.strategies.reinforce import Reinforce
from latkit.search.strategies.reward import RewardKind, reward_of
from numpy.typing import NDArray
from results import print_table, report

STRENGTHS = (-0.03, -0.05, -0.07, -0.09)
QUANTILES = (0.25, 0.5, 0.75)
STEPS = 2000
PER_STEP = 32
LEARNING_RATE = 0.02
BEST_SHARE = 0.1
HOLD_WITHIN = 0.005
FIRST_STRENGTH = -0.07
"""Where an adapted strength begins."""

RESAMPLED = 10_000
"""Bootstrap samples of an interval."""

Floats = NDArray[np.float64]
Row = dict[str, Any]


@dataclass(frozen=True)
class Benchmark:
    """Accuracy and latency of every cell, (N,) each, in the order of their edges' operations."""

    accuracy: Floats
    latency_ms: Floats
    option_counts: tuple[int, ...]

    def of(self, rows: Sequence[Sequence[int]]) -> NDArray[np.intp]:
        """The numbers of these cells."""
        return np.ravel_multi_index(np.transpose(rows), self.option_counts)


@dataclass(frozen=True)
class Task:
    """One search."""

    benchmark: Benchmark
    device: str
    quantile: float
    reward: RewardKind
    strength: float | None
    best_share: float
    steps: int
    seed: int

    @cached_property
    def target_ms(self) -> float:
        """The quantile of all latencies."""
        return float(np.quantile(self.benchmark.latency_ms, self.quantile))

    def run(self) -> Row:
        """Search to the end, and look where the policy's mode is beside the best reward."""
        known = self.benchmark
        search = Reinforce(
            NasBench201Space(),
            self.target_ms,
            steps=self.steps,
            per_step=PER_STEP,
            reward=self.reward,
            strength=FIRST_STRENGTH if self.strength is None else self.strength,
            learning_rate=LEARNING_RATE,
            best_share=self.best_share,
            hold_within=HOLD_WITHIN if self.strength is None else None,
            seed=self.seed,
        )
        while not search.done:
            asked = search.ask(PER_STEP)
            cells = known.of([item.choices for item in asked])
            search.tell(asked, known.accuracy[cells].tolist(), known.latency_ms[cells].tolist())
        rewards = reward_of(
            self.reward, known.accuracy, known.latency_ms, self.target_ms, search.strength
        )
        mode, best = int(known.of([search.best().choices])[0]), int(rewards.argmax())
        ratio = known.latency_ms / self.target_ms
        return {
            "best_share": self.best_share,
            "reward": self.reward,
            "strength": "adapted" if self.strength is None else f"{self.strength:g}",
            "device": self.device,
            "quantile": self.quantile,
            "seed": self.seed,
            "final_strength": search.strength,
            "gap": float(1 - rewards[mode] / rewards[best]),
            "ratio": float(ratio[mode]),
            "miss": float(abs(ratio[mode] - 1)),
            "maximiser_miss": float(abs(ratio[best] - 1)),
            "accuracy": float(known.accuracy[mode]),
            "maximiser_accuracy": float(known.accuracy[best]),
            "distinct": len({item.architecture.key for item in search.evaluations}),
            "warned": search.warning() is not None,
        }


def main() -> None:
    arguments = parse()
    tasks = [
        Task(known, device, quantile, reward, strength, share, arguments.steps, seed)
        for device, known in read(arguments.accuracy, arguments.latency, arguments.device).items()
        for quantile, share, seed in itertools.product(
            QUANTILES, dict.fromkeys((1.0, BEST_SHARE)), range(arguments.seeds)
        )
        for reward, strength in [
            *itertools.product(("absolute", "soft"), STRENGTHS),
            ("absolute", None),
        ]
    ]
    with ProcessPoolExecutor(arguments.workers) as pool:
        rows = list(pool.map(Task.run, tasks, chunksize=4))
    print_table(by_target([row for row in rows if row["strength"] == "adapted"]))
    report(
        figures(rows),
        summaries(rows),
        {
            "accuracy": arguments.accuracy.name,
            "latency": arguments.latency.name,
            "devices": arguments.device,
            "seeds": arguments.seeds,
            "steps": arguments.steps,
            "per_step": PER_STEP,
            "learning_rate": LEARNING_RATE,
            "hold_within": HOLD_WITHIN,
            "runs": rows,
        },
        arguments.json,
    )


def read(accuracy: Path, latency: Path, devices: Sequence[str]) -> dict[str, Benchmark]:
    """What is known on each device."""
    data = read_latency_data(latency)
    with np.load(accuracy, allow_pickle=False) as file:
        names = [name for name in file.files if name.endswith("_acc")]
        if len(names) != 1 or not np.array_equal(file["ops"], data.choices):
            raise UsageError(f"{accuracy} needs one array ..._acc, of the cells of {latency}")
        quality = file[names[0]].astype(np.float64) / 100
    space = NasBench201Space()
    numbers = np.ravel_multi_index(np.transpose(data.choices), space.option_counts)
    order = np.argsort(numbers)
    if not np.array_equal(numbers[order], np.arange(space.size())):
        raise UsageError(f"{latency} does not hold every cell of NAS-Bench-201 once")
    return {
        device: Benchmark(
            quality[order],
            data.columns([device])[order, 0].astype(np.float64),
            space.option_counts,
        )
        for device in devices
    }


def summaries(rows: Sequence[Row]) -> list[Row]:
    """Means of each reward and strength over devices, targets and seeds."""
    keys = dict.fromkeys((row["best_share"], row["reward"], row["strength"]) for row in rows)
    return [
        {
            "best_share": share,
            "reward": reward,
            "strength": strength,
            **means(
                [
                    row
                    for row in rows
                    if (row["best_share"], row["reward"], row["strength"])
                    == (share, reward, strength)
                ]
            ),
        }
        for share, reward, strength in keys
    ]


def by_target(rows: Sequence[Row]) -> list[Row]:
    """The same of each device and target."""
    keys = dict.fromkeys((row["best_share"], row["device"], row["quantile"]) for row in rows)
    return [
        {
            "best_share": share,
            "device": device,
            "quantile": quantile,
            **means(
                [
                    row
                    for row in rows
                    if (row["best_share"], row["device"], row["quantile"])
                    == (share, device, quantile)
                ]
            ),
        }
        for share, device, quantile in keys
    ]


def means(rows: Sequence[Row]) -> Row:
    """What is told of a set of runs."""
    gaps = column(rows, "gap")
    return {
        "runs": len(rows),
        "gap": float(gaps.mean()),
        "gap_within_1%": float((gaps <= 0.01).mean()),
        "ratio": float(column(rows, "ratio").mean()),
        "miss": float(column(rows, "miss").mean()),
        "miss_within_1%": float((column(rows, "miss") <= 0.01).mean()),
        "maximiser_miss": float(column(rows, "maximiser_miss").mean()),
        "accuracy": float(column(rows, "accuracy").mean()),
        "maximiser_accuracy": float(column(rows, "maximiser_accuracy").mean()),
        "final_strength": float(np.median(column(rows, "final_strength"))),
        "distinct": float(column(rows, "distinct").mean()),
        "warned": float(column(rows, "warned").mean()),
    }


def figures(rows: Sequence[Row]) -> dict[str, float]:
    """The aims, and TuNAS's claim: absolute against soft, over the strengths."""
    found: dict[str, float] = {}
    for share in dict.fromkeys(row["best_share"] for row in rows):
        own = [row for row in rows if row["best_share"] == share]
        fixed = [row for row in own if row["strength"] != "adapted"]
        absolute = [row for row in fixed if row["reward"] == "absolute"]
        soft = [row for row in fixed if row["reward"] == "soft"]
        adapted = [row for row in own if row["strength"] == "adapted"]
        name = f"share_{share:g}"
        for kind, chosen in (("absolute", absolute), ("soft", soft), ("adapted", adapted)):
            for figure in ("gap", "miss", "maximiser_miss"):
                found[f"{name}_{kind}_{figure}"] = float(column(chosen, figure).mean())
        # By device and target, so that seeds and strengths of one are not taken for independent.
        for figure, of in (("miss", mean_miss), ("spread", spread_over_strengths)):
            cells = np.array([of(absolute, cell) - of(soft, cell) for cell in cells_of(absolute)])
            low, high = interval(cells)
            found[f"{name}_absolute_minus_soft_{figure}"] = float(cells.mean())
            found[f"{name}_absolute_minus_soft_{figure}_low"] = low
            found[f"{name}_absolute_minus_soft_{figure}_high"] = high
        for kind, chosen in (("absolute", absolute), ("soft", soft)):
            spreads = [spread_over_strengths(chosen, cell) for cell in cells_of(chosen)]
            found[f"{name}_{kind}_spread"] = float(np.mean(spreads))
    return found


Cell = tuple[str, float]


def cells_of(rows: Sequence[Row]) -> list[Cell]:
    """The devices and targets."""
    return list(dict.fromkeys((row["device"], row["quantile"]) for row in rows))


def mean_miss(rows: Sequence[Row], cell: Cell) -> float:
    """Mean miss of a device and target."""
    return float(np.mean([row["miss"] for row in rows if (row["device"], row["quantile"]) == cell]))


def spread_over_strengths(rows: Sequence[Row], cell: Cell) -> float:
    """By how much T / T0 differs between strengths: standard deviation, a mean over seeds."""
    ratios: dict[int, list[float]] = {}
    for row in rows:
        if (row["device"], row["quantile"]) == cell:
            ratios.setdefault(row["seed"], []).append(row["ratio"])
    return float(np.mean([np.std(values) for values in ratios.values()]))


def interval(values: Floats) -> tuple[float, float]:
    """95 % bootstrap interval of the mean."""
    random = np.random.default_rng(0)
    drawn = values[random.integers(len(values), size=(RESAMPLED, len(values)))].mean(axis=1)
    low, high = np.quantile(drawn, [0.025, 0.975]).tolist()
    return low, high


def column(rows: Sequence[Mapping[str, Any]], name: str) -> Floats:
    """One figure of all rows."""
    return np.array([row[name] for row in rows], dtype=np.float64)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--accuracy", type=Path, required=True, help=".npz of ops and ..._acc")
    parser.add_argument("--latency", type=Path, required=True, help=".npz of ops, latency_ms")
    parser.add_argument("--device", action="append", required=True, help="may be given again")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()
