"""Is a search worth more than drawing at random? SPOS's evolution, and TuNAS, each in pairs.

`spos`: each seed trains a supernet; evolution and random search then make as many evaluations with
its weights, none above the median cost of the space. Compared are the winners' scores by the
supernet, and their accuracy when each is trained on its own.

`tunas`: each seed searches weights and policy in one run, towards the median cost. Random search
gets architectures within 2 % of the cost that this ends with, trains each for some epochs, and
keeps the best by validation images. Both winners are then trained anew, alike.

Test images are scored by what was trained last, and choose nothing. Differences are paired by seed;
intervals are Student's over seeds, 95 %.

    python benchmarks/against_random.py --data cifar10.npz --cache runs/against --json against.json

`--setting smoke` takes a quarter of an hour on a processor, and claims nothing. `--setting full` is
for a GPU. Costs are multiply-adds, or latencies by `--table` (of the space `operations` for SPOS,
`widths` for TuNAS: `latkit profile --space benchmarks/sharing/spaces.py:large_widths`, ...).
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from against import spos, tunas
from against.pairs import paired
from against.settings import SETTINGS, Setting
from against.terms import Terms
from cifar10_jpeg import load
from latkit.devices.console import exit_with_code
from latkit.devices.errors import UsageError
from latkit.search.data import Dataset
from latkit.search.training import set_threads
from results import print_table, report
from sharing.costs import MULTIPLY_ADDS, BlockCosts
from sharing.spaces import SPACES

SPACE_OF = {"spos": "operations", "tunas": "widths"}
"""Paths, as SPOS chooses them; widths too, as TuNAS does."""

MEASURES = {"spos": spos.MEASURES, "tunas": tunas.MEASURES}

Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=_Formatter)
    parser.add_argument("--data", type=Path, required=True, help="CIFAR-10, .npz of JPEG files")
    parser.add_argument("--comparison", choices=(*SPACE_OF, "both"), default="both")
    parser.add_argument("--setting", choices=tuple(SETTINGS), default="smoke")
    parser.add_argument("--seeds", type=int, help="default: the setting's")
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
    if arguments.seeds is not None and arguments.seeds < 1:
        raise UsageError(f"--seeds {arguments.seeds}: at least one is needed")
    setting = SETTINGS[arguments.setting]
    costs = _costs(arguments.table)
    data = load(arguments.data, setting.images)
    chosen = tuple(SPACE_OF) if arguments.comparison == "both" else (arguments.comparison,)
    by_seed: dict[str, list[Row]] = {}
    for comparison in chosen:
        terms = _terms(comparison, arguments, setting, data, costs)
        by_seed[comparison] = compare(comparison, terms, setting, arguments.seeds)
    context = {
        **vars(arguments),
        **asdict(setting),
        "data_key": data.key,
        "training_images": len(data.train),
        "validation_images": len(data.validation),
        "test_images": len(data.test),
        "threads": torch.get_num_threads(),
        "processors": os.cpu_count(),
        "versions": {name: version(name) for name in ("latkit", "numpy", "torch")},
        "by_seed": by_seed,
    }
    rows = summary(by_seed)
    report(_figures(rows), rows, context, arguments.json)


def compare(comparison: str, terms: Terms, setting: Setting, seeds: int | None) -> list[Row]:
    """A row for each seed, printed as a table."""
    rows = []
    wanted = getattr(setting, comparison).seeds if seeds is None else seeds
    for seed in range(wanted):
        if comparison == "spos":
            rows.append(spos.compare(terms, setting.spos, setting.epochs, seed))
        else:
            rows.append(tunas.compare(terms, setting.tunas, setting.epochs, seed))
        print(f"{comparison}: seed {seed + 1} of {wanted}", flush=True)
    print_table(rows)
    return rows


def summary(by_seed: Mapping[str, Sequence[Row]]) -> list[Row]:
    """What each comparison says over its seeds, by each measure."""
    return [
        {
            "comparison": comparison,
            "measure": measure,
            **paired([row[own] for row in rows], [row[other] for row in rows]),
        }
        for comparison, rows in by_seed.items()
        for measure, (own, other) in MEASURES[comparison].items()
    ]


def _terms(
    comparison: str,
    arguments: argparse.Namespace,
    setting: Setting,
    data: Dataset,
    costs: Mapping[str, BlockCosts],
) -> Terms:
    name = SPACE_OF[comparison]
    return Terms(
        f"{arguments.setting}-{comparison}",
        SPACES[setting.size][name](),
        data,
        costs.get(name, MULTIPLY_ADDS),
        setting.batch_size,
        setting.learning_rate,
        arguments.cache,
        arguments.device,
    )


def _costs(tables: Sequence[str]) -> dict[str, BlockCosts]:
    """The costs of each space that `--table` names."""
    found = {}
    for item in tables:
        name, _, file = item.partition("=")
        if name not in SPACE_OF.values() or not file:
            raise UsageError(
                f"--table {item}: give one of {', '.join(SPACE_OF.values())}, = and its file"
            )
        found[name] = BlockCosts.by_table(Path(file))
    return found


def _figures(rows: Sequence[Row]) -> dict[str, float]:
    """The mean difference of each comparison, by each measure."""
    names = {"supernet's score": "score", "alone, test images": "alone"}
    return {
        f"{row['comparison']}_{names[row['measure']]}_difference": row["difference"] for row in rows
    }


if __name__ == "__main__":
    main()
