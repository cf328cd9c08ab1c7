"""How well do blocks timed alone, calibrated, predict whole networks that were never measured?

Profiles a space (resuming from `--store`), builds its latency table, and compares held-out
networks with it. Beside it: FLOPs, fitted to the same calibration networks by the same weights.

    python benchmarks/additivity.py --runtime onnxruntime --cores 1 --json additivity.json
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from latkit.devices.console import exit_with_code, progress_bar
from latkit.devices.device import TimingProtocol
from latkit.devices.options import DeviceOptions
from latkit.devices.registry import open_device
from latkit.latency.calibration import PredictionError, fit_relative, prediction_error
from latkit.latency.counts import network_counts
from latkit.latency.network import Network
from latkit.latency.space_profile import NetworkCheck, SpaceProfile, profile_space
from latkit.latency.spaces import load_space
from latkit.latency.store import Store
from results import report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=_Formatter)
    parser.add_argument("--runtime", default="onnxruntime", choices=("onnxruntime", "litert"))
    parser.add_argument("--space", default="mobile")
    parser.add_argument("--store", type=Path, help="default: a temporary one")
    parser.add_argument("--networks", type=int, default=24, help="held-out networks")
    parser.add_argument("--calibration-networks", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=TimingProtocol().rounds)
    parser.add_argument("--cores", type=int, nargs="*", help="default: the runtime's own choice")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    exit_with_code(lambda: run(arguments))


class _Formatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Keeps the line breaks of the description, and shows defaults."""


def run(arguments: argparse.Namespace) -> None:
    space = load_space(arguments.space)
    cores = tuple(arguments.cores) if arguments.cores else None
    device = open_device("cpu", DeviceOptions(runtime=arguments.runtime, cores=cores))
    started = time.perf_counter()
    with (
        tempfile.TemporaryDirectory() as folder,
        Store(arguments.store or Path(folder) / "store.db") as store,
        progress_bar() as progress,
    ):
        profile = profile_space(
            space,
            device,
            store,
            TimingProtocol(rounds=arguments.rounds),
            progress,
            calibration_networks=arguments.calibration_networks,
            held_out_networks=arguments.networks,
            seed=arguments.seed,
        )
    seconds = time.perf_counter() - started
    flops_ms = affine_flops(profile)
    held_out = [check for check in profile.checks if check.held_out]
    predicted_by_flops = [flops_ms(check.network) for check in held_out]
    calibration = profile.table.calibration
    assert calibration.held_out is not None
    by_flops = prediction_error(predicted_by_flops, [check.measured_ms for check in held_out])
    report(
        {
            **figures("", calibration.held_out),
            **figures("flops_", by_flops),
            "profiling_s": seconds,
        },
        [row(check, flops_ms(check.network)) for check in held_out],
        {
            "setup": asdict(profile.table.setup),
            "space": space.name,
            "seed": arguments.seed,
            "blocks": len(profile.table.entries),
            "eviction_bytes": profile.table.eviction_bytes,
            "channel_grid": profile.table.channel_grid,
            "calibration": asdict(calibration),
            "trials": [asdict(trial) for trial in profile.table.trials],
            "canary_shift": profile.canary_shift,
            "unstable": profile.unstable,
            "failures": {f"{key[0]} {key[1]}": text for key, text in profile.failures.items()},
        },
        arguments.json,
    )


def affine_flops(profile: SpaceProfile) -> Any:
    """Network -> ms, affine in FLOPs, by the calibration networks' relative errors."""
    fitted = [check for check in profile.checks if check.role == "calibration"]
    columns = np.array([[network_counts(check.network).flops, 1.0] for check in fitted])
    measured = np.array([check.measured_ms for check in fitted])
    slope, constant = fit_relative(columns, measured)

    def latency_ms(network: Network) -> float:
        return float(slope * network_counts(network).flops + constant)

    return latency_ms


def figures(prefix: str, error: PredictionError) -> dict[str, float]:
    values = {name: value for name, value in asdict(error).items() if value is not None}
    return {prefix + name: float(value) for name, value in values.items()}


def row(check: NetworkCheck, flops_ms: float) -> dict[str, Any]:
    return {
        "network": check.network.key.removeprefix("network:")[:12],
        "blocks": len(check.network.blocks),
        "measured_ms": check.measured_ms,
        "predicted_ms": check.estimate.latency_ms,
        "low_ms": check.estimate.low_ms,
        "high_ms": check.estimate.high_ms,
        "inside": check.inside,
        "error": check.estimate.latency_ms / check.measured_ms - 1,
        "flops_ms": flops_ms,
        "verdict": check.verdict,
    }


if __name__ == "__main__":
    main()
