"""Does the winner of a search land on its target? Searches over seeds and runtimes, measured.

Supernet and retraining are cut short by default: this is about latency, not accuracy.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

from latkit.devices import DeviceOptions, TimingProtocol, open_device
from latkit.devices.console import progress_bar
from latkit.latency.space_profile import profile_space
from latkit.latency.store import Store
from latkit.search.data import load_data
from latkit.search.pipeline import Search, SearchSettings, default_target_ms
from latkit.search.settings import TrainingSettings
from latkit.search.spaces.mobile import mobile_space
from results import report

SPACE = "mobile"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runtimes", default="onnxruntime,litert")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--target-latency-ms", type=float, help="default: the space's middle")
    parser.add_argument("--strategy", default="evolution", choices=("evolution", "reinforce"))
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
    for runtime in arguments.runtimes.split(","):
        device = open_device("cpu", DeviceOptions(runtime=runtime))
        setups[runtime] = device.setup.key
        protocol = TimingProtocol()
        with Store(folder / f"{runtime}.sqlite") as store, progress_bar() as progress:
            table = profile_space(mobile_space(), device, store, protocol, progress).table
            table_file = folder / f"{runtime}.json"
            table.save(table_file)
            for seed in (int(text) for text in arguments.seeds.split(",")):
                data = load_data(None, seed=seed)
                space = mobile_space(len(data.classes))
                settings = SearchSettings(
                    target_ms=arguments.target_latency_ms or default_target_ms(space, table),
                    strategy=arguments.strategy,
                    rounds=3,
                    seed=seed,
                    supernet=TrainingSettings(epochs=arguments.supernet_epochs, seed=seed),
                    retraining=TrainingSettings(epochs=arguments.retraining_epochs, seed=seed),
                )
                result = Search(
                    space=space,
                    space_address=SPACE,
                    table=table,
                    table_file=table_file,
                    device=device,
                    store=store,
                    protocol=protocol,
                    data=data,
                    settings=settings,
                    folder=folder / f"{runtime}-{seed}",
                    progress=progress,
                ).run()
                winner = result.finalists[0]
                rows.append(
                    {
                        "runtime": runtime,
                        "seed": seed,
                        "target_ms": result.target_ms,
                        "predicted_ms": winner.predicted_ms,
                        "low_ms": winner.low_ms,
                        "high_ms": winner.high_ms,
                        "measured_ms": winner.measured_ms,
                        "miss": winner.measured_ms / result.target_ms - 1,
                        "inside": winner.inside,
                        "corrections": winner.corrections,
                        "verdict": winner.verdict,
                    }
                )
    misses = [abs(row["miss"]) for row in rows]
    figures = {
        "within_5": sum(miss <= 0.05 for miss in misses) / len(misses),
        "largest_miss": max(misses),
        "interval_held": sum(row["inside"] for row in rows) / len(rows),
    }
    report(figures, rows, {"setups": setups, "strategy": arguments.strategy}, arguments.json)


if __name__ == "__main__":
    main()
