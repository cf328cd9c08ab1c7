"""Do scores with shared weights rank architectures as training each on its own does?

For each way of sharing weights: train a supernet, score some architectures on validation images
with its weights, and correlate the scores with the test accuracy of the same architectures trained
alone (mean over seeds). Beside it: how multiply-adds rank them, and how one seed of training alone
ranks them for another, which no score can be expected to exceed by much. Then what BigNAS's
children are worth as they come out of the supernet, beside training them alone; and what the
architectures are worth that TuNAS, with and without each warm-up, DARTS and TF-NAS end with.

    python benchmarks/weight_sharing.py --data cifar10.npz --cache runs/alone --json sharing.json

`--setting smoke` takes minutes on a processor, and claims nothing. `--setting full` is for a GPU;
its architectures lie in one band of latency, by a table of each space, as `latkit table` writes it
(`--space benchmarks/sharing/spaces.py:large_widths`, ...).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cifar10_jpeg import load
from latkit.devices.console import exit_with_code
from latkit.devices.errors import UsageError
from latkit.latency.cost import CostModel
from latkit.search.data import Dataset
from latkit.search.recalibration import SupernetEvaluator, accuracy
from latkit.search.recipes.task import Shared, Task
from latkit.search.settings import TrainingSettings
from latkit.search.space import Architecture
from latkit.search.trainers.sandwich import extremes
from latkit.search.training import set_threads
from results import print_table, report
from sharing.alone import Alone
from sharing.correlation import between_seeds, correlations
from sharing.costs import MULTIPLY_ADDS, BlockCosts
from sharing.spaces import SPACES
from sharing.ways import WAYS

CHILDREN_OF = "widths"
"""The space, with elastic widths, whose children are compared with the same trained alone."""

TRIES = 100_000
"""Random architectures after which a band counts as one that too few are in."""

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Setting:
    """How much is trained. `band` is a share of the median cost to each side of it, 0: no band."""

    size: str
    images: int
    architectures: int
    seeds: int
    supernet_seeds: int
    epochs: int
    supernet_epochs: int
    batch_size: int
    learning_rate: float
    most_multiply_adds: float
    band: float


SETTINGS = {
    "smoke": Setting("small", 10_000, 8, 2, 1, 2, 3, 128, 0.1, 3e6, 0.0),
    "full": Setting("large", 50_000, 50, 3, 3, 60, 120, 128, 0.1, float("inf"), 0.05),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=_Formatter)
    parser.add_argument("--data", type=Path, required=True, help="CIFAR-10, .npz of JPEG files")
    parser.add_argument("--setting", choices=tuple(SETTINGS), default="smoke")
    parser.add_argument("--spaces", nargs="+", choices=tuple(WAYS), default=list(WAYS))
    parser.add_argument("--ways", nargs="+", help="some of the ways only")
    parser.add_argument("--table", action="append", default=[], help="SPACE=FILE: latencies")
    parser.add_argument("--cache", type=Path, required=True, help="folder of what was trained")
    parser.add_argument("--device", default="cpu", help="cpu or cuda:N")
    parser.add_argument("--threads", type=int, help="torch's; default: one for each processor")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    exit_with_code(lambda: run(arguments))


class _Formatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Keeps the line breaks of the description, and shows defaults."""


def run(arguments: argparse.Namespace) -> None:
    set_threads(arguments.threads)
    setting = SETTINGS[arguments.setting]
    data = load(arguments.data, setting.images)
    tables = dict(item.split("=", 1) for item in arguments.table)
    ranks: list[Row] = []
    chosen: list[Row] = []
    children: list[Row] = []
    started = time.monotonic()
    for name in arguments.spaces:
        if setting.band and name not in tables:
            raise UsageError(
                f"the {arguments.setting} setting compares architectures of one latency: give "
                f"--table {name}=FILE"
            )
        comparison = Comparison(arguments, setting, data, name, tables.get(name))
        ranks += comparison.references()
        for way in WAYS[name]:
            if arguments.ways and way not in arguments.ways:
                continue
            for seed in range(setting.supernet_seeds):
                began = time.monotonic()
                shared = comparison.trained(way, seed)
                row = comparison.ranked(shared, way, seed)
                ranks.append({**row, "minutes": (time.monotonic() - began) / 60})
                chosen += comparison.chosen(shared, way, seed)
                if name == CHILDREN_OF and "sandwich" in way:
                    children += comparison.children(shared, way, seed)
    for rows in (chosen, children):
        print_table(rows)
    context = {
        **vars(arguments),
        **asdict(setting),
        "torch": torch.__version__,
        "minutes": (time.monotonic() - started) / 60,
        "chosen": chosen,
        "children": children,
    }
    report(_figures(ranks), ranks, context, arguments.json)


class Comparison:
    """One space: its architectures, what they are worth alone, and how supernets score them."""

    def __init__(
        self,
        arguments: argparse.Namespace,
        setting: Setting,
        data: Dataset,
        name: str,
        table: str | None,
    ) -> None:
        self.setting = setting
        self.data = data
        self.name = name
        self.device = arguments.device
        self.folder = arguments.cache
        self.space = SPACES[setting.size][name]()
        self.multiply_adds = MULTIPLY_ADDS.of(self.space)
        self.block_costs = MULTIPLY_ADDS if table is None else BlockCosts.by_table(Path(table))
        self.cost = self.block_costs.of(self.space)
        self.target = float(np.median(self._costs(self.cost, self._random(4096))))
        self.architectures = self._drawn()
        self.alone = Alone(
            self.space, data, self._settings(setting.epochs), self.folder, self.device
        )
        self.truth = self.alone.accuracies(self.architectures, range(setting.seeds))

    def references(self) -> list[Row]:
        """How multiply-adds and another seed rank the architectures."""
        counts = self._costs(self.multiply_adds, self.architectures)
        found = {
            "multiply-adds": correlations(counts, self.truth.mean(0)),
            "another seed alone": between_seeds(self.truth),
        }
        return [self._row(way, 0, values) | {"minutes": 0.0} for way, values in found.items()]

    def trained(self, way: str, seed: int) -> Shared:
        """The shared weights of a way."""
        setting = self.setting
        task = Task(
            space=self.space,
            data=self.data,
            settings=self._settings(setting.supernet_epochs, seed),
            block_cost_ms=self.block_costs.block_cost,
            target_ms=self.target,
            constant_ms=self.block_costs.constant,
            seed=seed,
            checkpoint=self.folder / f"{setting.size}-{self.name}-{way}-{seed}.checkpoint",
            device=self.device,
        )
        return WAYS[self.name][way](task)

    def ranked(self, shared: Shared, way: str, seed: int) -> Row:
        """How the way's scores rank the architectures."""
        evaluator = SupernetEvaluator(shared.weights, self.data, seed=seed)
        scores = np.array([evaluator.accuracy(item) for item in self.architectures])
        row = self._row(way, seed, correlations(scores, self.truth.mean(0)))
        return row | {"mean_score": float(scores.mean())}

    def chosen(self, shared: Shared, way: str, seed: int) -> list[Row]:
        """What the architecture is worth alone that the way ended with, beside random ones."""
        if shared.architecture is None:
            return []
        alone = self.alone.accuracies([shared.architecture], range(self.setting.seeds))
        (cost,) = self._costs(self.cost, [shared.architecture])
        random = self.truth.mean(0)
        return [
            {
                "space": self.name,
                "way": way,
                "seed": seed,
                "cost_of_target": float(cost / self.target),
                "alone": float(alone.mean()),
                "alone_spread": float(np.ptp(alone)),
                "random_mean": float(random.mean()),
                "random_best": float(random.max()),
            }
        ]

    def children(self, shared: Shared, way: str, seed: int) -> list[Row]:
        """The smallest and the middle child as they come out of the supernet, and alone."""
        smallest, _ = extremes(self.space)
        middle = self.space.architecture([count // 2 for count in self.space.option_counts])
        evaluator = SupernetEvaluator(shared.weights, self.data, seed=seed)
        rows = []
        for child, architecture in (("smallest", smallest), ("middle", middle)):
            alone = self.alone.accuracies([architecture], range(self.setting.seeds))
            model = evaluator.calibrated(architecture)
            rows.append(
                {
                    "way": way,
                    "seed": seed,
                    "child": child,
                    "multiply_adds": float(self._costs(self.multiply_adds, [architecture])[0]),
                    "shared": accuracy(model, self.data, self.data.test),
                    "alone": float(alone.mean()),
                    "alone_spread": float(np.ptp(alone)),
                }
            )
        return rows

    def _row(self, way: str, seed: int, values: Mapping[str, float]) -> Row:
        return {
            "space": self.name,
            "way": way,
            "seed": seed,
            "architectures": len(self.architectures),
            **values,
            "mean_score": float(self.truth.mean()),
        }

    def _settings(self, epochs: int, seed: int = 0) -> TrainingSettings:
        setting = self.setting
        return TrainingSettings(
            epochs, setting.batch_size, setting.learning_rate, flip=True, seed=seed
        )

    def _drawn(self) -> list[Architecture]:
        """Random architectures in the band, and not too large."""
        found: dict[str, Architecture] = {}
        for start in range(0, TRIES, 1000):
            drawn = self._random(1000, seed=start + 1)
            far = np.abs(self._costs(self.cost, drawn) / self.target - 1)
            small = self._costs(self.multiply_adds, drawn) <= self.setting.most_multiply_adds
            fits = small & ((far <= self.setting.band) | (not self.setting.band))
            for architecture, fit in zip(drawn, fits, strict=True):
                if fit:
                    found.setdefault(architecture.key, architecture)
            if len(found) >= self.setting.architectures:
                return list(found.values())[: self.setting.architectures]
        raise UsageError(f"of {self.name}, only {len(found)} architectures are in the band")

    def _random(self, count: int, seed: int = 0) -> list[Architecture]:
        return self.space.decode(self.space.sample_choices(count, np.random.default_rng(seed)))

    def _costs(self, cost: CostModel, architectures: Sequence[Architecture]) -> Any:
        return cost.latency_ms(self.space.encode(architectures))


def _figures(ranks: Sequence[Row]) -> dict[str, float]:
    """Kendall's correlation of each way, a mean over its seeds."""
    names = dict.fromkeys((row["space"], row["way"]) for row in ranks)
    return {
        f"kendall_{space}_{way.replace(' ', '_')}": float(
            np.mean([row["kendall"] for row in ranks if (row["space"], row["way"]) == (space, way)])
        )
        for space, way in names
    }


if __name__ == "__main__":
    main()
