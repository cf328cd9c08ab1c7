"""Does the winner of a search land on its target? Several targets and runtimes, measured afresh.

Judged are the exported files, timed when the search is over, in at least nine processes: landed is
what has a 95 % interval that overlaps the target within 1 %, at the speed that the processor had
while the table was made, as the canary tells: its clock moves by more than that from minute to
minute (`raw_ms` is as it stood). Supernet and retraining are cut short
by default: this is about latency, not accuracy.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from latkit.devices import DeviceOptions, TimingProtocol, open_device
from latkit.devices.console import progress_bar
from latkit.latency.pricing import cost_model
from latkit.latency.store import Store
from latkit.latency.table import LatencyTable
from latkit.search.aim import Aim
from latkit.search.data import load_data
from latkit.search.measuring import PROCESSES
from latkit.search.pipeline import Search, SearchSettings
from latkit.search.profiling import table_of
from latkit.search.recipes import RECIPES, override
from latkit.search.recipes.strategies import with_strategy
from latkit.search.settings import RETRAINING_SETTINGS
from latkit.search.space import SearchSpace
from latkit.search.spaces.mobile import mobile_space
from results import report

QUANTILES = (0.25, 0.5, 0.75)
"""Of the latencies of random architectures: the targets, where none are given."""

DRAWN = 4096


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runtimes", default="onnxruntime,litert")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--target-latency-ms", help="such as 0.2,0.3; default: quartiles")
    parser.add_argument("--strategy", help="default: that of the recipe `quick`")
    parser.add_argument("--supernet-epochs", type=int, default=5)
    parser.add_argument("--retraining-epochs", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="keeps stores and searches, and resumes")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if arguments.folder is not None:
        run(arguments, arguments.folder)
        return
    with TemporaryDirectory() as folder:
        run(arguments, Path(folder))


def run(arguments: argparse.Namespace, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    setups = {}
    chosen = override(
        with_strategy(RECIPES["quick"], arguments.strategy),
        RETRAINING_SETTINGS,
        [
            f"settings.epochs={arguments.supernet_epochs}",
            f"retraining.epochs={arguments.retraining_epochs}",
        ],
    )
    for runtime in arguments.runtimes.split(","):
        device = open_device("cpu", DeviceOptions(runtime=runtime))
        setups[runtime] = device.setup.key
        protocol = TimingProtocol()
        table_file = folder / f"{runtime}.json"
        space = mobile_space()
        with Store(folder / f"{runtime}.sqlite") as store, progress_bar() as progress:
            table = table_of(space, device, store, protocol, (), table_file, progress)
            for seed in (int(text) for text in arguments.seeds.split(",")):
                result = Search(
                    recipe=chosen.recipe,
                    space=space,
                    space_address="mobile",
                    scale=chosen.scale,
                    table=table,
                    table_file=table_file,
                    device=device,
                    store=store,
                    protocol=protocol,
                    data=load_data(None, seed=seed),
                    settings=SearchSettings(
                        targets(arguments.target_latency_ms, space, table),
                        random_search=False,
                        seed=seed,
                        retraining=chosen.retraining,
                    ),
                    folder=folder / f"{runtime}-{seed}",
                    progress=progress,
                ).run()
                rows += [
                    {
                        "runtime": runtime,
                        "seed": seed,
                        "target_ms": winner.target_ms,
                        "predicted_ms": winner.predicted_ms,
                        "measured_ms": winner.measured_ms,
                        "low_ms": winner.measured_low_ms,
                        "high_ms": winner.measured_high_ms,
                        "raw_ms": winner.raw_ms,
                        "miss": winner.miss,
                        "landed": winner.meets_target,
                        "inside": winner.inside,
                        "corrections": winner.corrections,
                        "verdict": winner.verdict,
                    }
                    for winner in result.winners
                ]
    misses = [abs(row["miss"]) for row in rows]
    figures = {
        "landed": sum(row["landed"] for row in rows) / len(rows),
        "raw_within_1": sum(abs(row["raw_ms"] / row["target_ms"] - 1) <= 0.01 for row in rows)
        / len(rows),
        "within_1": sum(miss <= 0.01 for miss in misses) / len(misses),
        "largest_miss": max(misses),
        "interval_held": sum(row["inside"] for row in rows) / len(rows),
    }
    context = {
        "setups": setups,
        "strategy": arguments.strategy,
        "processes": max(PROCESSES, protocol.processes),
    }
    report(figures, rows, context, arguments.json)


def targets(given: str | None, space: SearchSpace, table: LatencyTable) -> tuple[Aim, ...]:
    """The targets that were given, or quantiles of the latencies of random architectures."""
    if given is not None:
        return tuple(Aim(float(text), "exactly") for text in given.split(","))
    cost = cost_model(space, table.block_cost_ms, table.calibration.constant_ms)
    drawn = space.sample_choices(DRAWN, np.random.default_rng(0))
    quantiles = np.quantile(cost.latency_ms(drawn), QUANTILES)
    return tuple(Aim(float(f"{value:.3g}"), "exactly") for value in quantiles)


if __name__ == "__main__":
    main()
