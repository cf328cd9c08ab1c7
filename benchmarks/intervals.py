"""How often do intervals hold what they promise?

Blocks: draws random ones, measures them all (resuming from `--store`), and splits them many times
into some that a predictor is fitted to and others that it has not seen. A split's held-out blocks
are different draws, but splits share blocks, so that their mean says more than one split and less
than as many independent ones. Networks (`--networks 100`): profiles a space, and compares networks
that took no part in its table's calibration with their intervals; each counts once.

    python benchmarks/intervals.py --runtime onnxruntime --cores 1 --networks 100 --store FILE
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from blocks import draw, measure
from latkit.devices.console import exit_with_code, progress_bar
from latkit.devices.device import Device, TimingProtocol
from latkit.devices.options import DeviceOptions
from latkit.devices.registry import open_device
from latkit.latency.blocks import Block
from latkit.latency.predictor import COVERAGE, LatencyPredictor
from latkit.latency.space_profile import profile_space
from latkit.latency.spaces import load_space
from latkit.latency.store import Store
from results import report
from scipy.stats import binomtest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=_Formatter)
    parser.add_argument("--runtime", default="onnxruntime", choices=("onnxruntime", "litert"))
    parser.add_argument("--splits", type=int, default=20)
    parser.add_argument("--train", type=int, default=300, help="blocks that are fitted to")
    parser.add_argument("--held-out", type=int, default=400, help="blocks that are only predicted")
    parser.add_argument("--pool", type=int, default=1000, help="blocks that splits are made of")
    parser.add_argument("--networks", type=int, default=0, help="held-out networks; 0 for none")
    parser.add_argument("--calibration-networks", type=int, default=16)
    parser.add_argument("--space", default="mobile")
    parser.add_argument("--block-seed", type=int, default=0, help="draws the blocks")
    parser.add_argument("--store", type=Path, help="default: a temporary one")
    parser.add_argument("--eviction-bytes", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=TimingProtocol().rounds)
    parser.add_argument("--cores", type=int, nargs="*", help="default: the runtime's own choice")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    exit_with_code(lambda: run(arguments))


class _Formatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Keeps the line breaks of the description, and shows defaults."""


def run(arguments: argparse.Namespace) -> None:
    cores = tuple(arguments.cores) if arguments.cores else None
    device = open_device("cpu", DeviceOptions(runtime=arguments.runtime, cores=cores))
    blocks = draw(arguments.pool, arguments.block_seed)
    latency_ms = np.array([item.median_ms for item in measure(device, blocks, arguments)])
    rows = [split(blocks, latency_ms, seed, arguments) for seed in range(arguments.splits)]
    shares = [row["coverage"] for row in rows]
    figures = {
        "asked": COVERAGE,
        "block_coverage": float(np.mean(shares)),
        "block_coverage_lowest": min(shares),
        "block_coverage_highest": max(shares),
        "block_width": float(np.mean([row["width"] for row in rows])),
    }
    if arguments.networks:
        row, width = networks(device, arguments)
        rows.append(row)
        figures |= {
            "network_coverage": row["coverage"],
            "network_coverage_low": row["low"],
            "network_coverage_high": row["high"],
            "network_width": width,
        }
    context = {"setup": asdict(device.setup), "info": device.info(), **vars(arguments)}
    report(figures, rows, context, arguments.json)


def split(
    blocks: Sequence[Block], latency_ms: Any, seed: int, arguments: argparse.Namespace
) -> dict[str, Any]:
    """Coverage of blocks held out of one random split."""
    order = np.random.default_rng(seed).permutation(len(blocks))
    train = order[: arguments.train]
    held_out = order[arguments.train : arguments.train + arguments.held_out]
    predictor = LatencyPredictor().fit([blocks[i] for i in train], latency_ms[train], seed)
    others = [blocks[index] for index in held_out]
    low, high = predictor.predict_interval(others)
    inside = (low <= latency_ms[held_out]) & (latency_ms[held_out] <= high)
    width = float(np.median((high - low) / predictor.predict(others)))
    return _row(f"blocks, split {seed}", int(inside.sum()), len(held_out), width)


def networks(device: Device, arguments: argparse.Namespace) -> tuple[dict[str, Any], float]:
    """Coverage of networks by a calibrated table, and the width of its intervals."""
    with (
        tempfile.TemporaryDirectory() as folder,
        Store(arguments.store or Path(folder) / "store.db") as store,
        progress_bar() as progress,
    ):
        profile = profile_space(
            load_space(arguments.space),
            device,
            store,
            TimingProtocol(rounds=arguments.rounds),
            progress,
            calibration_networks=arguments.calibration_networks,
            held_out_networks=arguments.networks,
        )
    checks = [check for check in profile.checks if check.held_out]
    estimates = [check.estimate for check in checks]
    width = float(np.median([(item.high_ms - item.low_ms) / item.latency_ms for item in estimates]))
    inside = sum(check.inside for check in checks)
    return _row(f"networks of {arguments.space}", inside, len(checks), width), width


def _row(name: str, inside: int, of: int, width: float) -> dict[str, Any]:
    """A coverage with its 95 % binomial interval (Clopper & Pearson 1934)."""
    ends = binomtest(inside, of).proportion_ci()
    return {
        "what": name,
        "inside": inside,
        "of": of,
        "coverage": inside / of,
        "low": float(ends.low),
        "high": float(ends.high),
        "width": width,
    }


if __name__ == "__main__":
    main()
