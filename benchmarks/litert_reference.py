"""The same .tflite files timed by latkit and by `litert-benchmark`, LiteRT's own program.

Both run one thread on one pinned processor with the same numbers of warm-ups and runs, in turns,
every turn in a fresh process; which one goes first alternates.

What differs: latkit uses LiteRT's Interpreter, drops samples during which the process was
preempted, and has each sample; litert-benchmark uses the CompiledModel interface, keeps preempted
runs, and gives only aggregates (with --verbose every tenth run), rounded to 0.01 ms.
So each turn's median, p5 and p95 are compared, latkit's rounded alike for the spread.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
from latkit.devices import Model, TimingProtocol
from latkit.devices.cpu import CpuDevice
from latkit.devices.host import allowed_cores, can_pin
from latkit.devices.measurement import CLEAN_SHARE
from latkit.devices.tflite import convert
from latkit.latency.blocks import Block, ConvBlock, Head, MBConv
from latkit.latency.network import Network
from latkit.latency.onnx_model import build_onnx
from results import report

WARMUPS = 5
TURN_TIMEOUT_S = 600
MODULE = "ai_edge_litert.tools.benchmark_litert_model"


def mobile_network(size: int, width: int, depth: int, kernel: int, excite: bool) -> Network:
    """A stem, three stages of `depth` MBConv blocks, and a head."""
    blocks: list[Block] = [
        ConvBlock(in_channels=3, height=size, width=size, out_channels=width, stride=2)
    ]
    channels, size = width, size // 2
    for stage in range(3):
        for index in range(depth):
            stride = 2 if index == 0 else 1
            written = width * 2**stage
            blocks.append(
                MBConv(
                    in_channels=channels,
                    height=size,
                    width=size,
                    out_channels=written,
                    expanded_channels=channels * 4,
                    kernel=kernel,
                    stride=stride,
                    squeeze_excite=excite,
                )
            )
            channels, size = written, -(-size // stride)
    head = Head(in_channels=channels, height=size, width=size, hidden_channels=256, classes=100)
    return Network.chain([*blocks, head])


def plain_network(size: int, width: int, depth: int) -> Network:
    """Dense 3x3 convolutions in three stages, and a head."""
    blocks: list[Block] = []
    channels = 3
    for stage in range(3):
        for index in range(depth):
            written, stride = width * 2**stage, 2 if index == 0 else 1
            blocks.append(
                ConvBlock(
                    in_channels=channels,
                    height=size,
                    width=size,
                    out_channels=written,
                    stride=stride,
                    activation="relu",
                )
            )
            channels, size = written, -(-size // stride)
    head = Head(in_channels=channels, height=size, width=size, hidden_channels=256, classes=100)
    return Network.chain([*blocks, head])


NETWORKS = {
    "mobile-160-48": mobile_network(160, 48, 2, 3, False),
    "mobile-160-48-k5": mobile_network(160, 48, 2, 5, False),
    "mobile-192-48-se": mobile_network(192, 48, 2, 3, True),
    "mobile-192-56": mobile_network(192, 56, 2, 3, False),
    "mobile-224-32-k5": mobile_network(224, 32, 2, 5, False),
    "mobile-160-48-deep": mobile_network(160, 48, 4, 3, False),
    "plain-128-48": plain_network(128, 48, 2),
    "plain-160-32": plain_network(160, 32, 3),
    "plain-192-32": plain_network(192, 32, 2),
    "plain-192-24": plain_network(192, 24, 3),
}


def time_ours(device: CpuDevice, path: Path, runs: int) -> dict[str, float]:
    """One turn of latkit: a fresh worker, one round."""
    protocol = TimingProtocol(rounds=1, processes=1, runs=runs, warmups=WARMUPS, max_repeats=0)
    (item,) = device.measure([Model("net", path)], protocol)
    if item.failures:
        raise SystemExit(f"{path.name}: {item.failures}")
    visit = item.visits["net", 0]
    samples = np.array(visit.samples_ns) / 1e6
    preempted = np.array(visit.preempted or [False] * runs)
    # The rule of devices/measurement.py: where most samples were hit, all are used.
    used = samples[~preempted] if (~preempted).mean() >= CLEAN_SHARE else samples
    return {
        "median": float(np.median(used)),
        "p5": float(np.percentile(used, 5)),
        "p95": float(np.percentile(used, 95)),
        "median_all": float(np.median(samples)),
        "p5_all": float(np.percentile(samples, 5)),
        "p95_all": float(np.percentile(samples, 95)),
        "preempted": float(preempted.mean()),
    }


def time_theirs(path: Path, runs: int, core: int | None) -> dict[str, float]:
    """One turn of litert-benchmark: a fresh process that inherits its pinning."""
    result = path.with_suffix(".json")
    command = [
        *(sys.executable, "-m", MODULE, f"--model={path}", f"--num_runs={runs}"),
        *(f"--warmup_runs={WARMUPS}", "--num_threads=1", f"--result_json={result}"),
    ]
    before = os.sched_getaffinity(0) if can_pin() else set()
    try:
        if core is not None:
            os.sched_setaffinity(0, {core})
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
    finally:
        if before:
            os.sched_setaffinity(0, before)
    try:
        output, _ = process.communicate(timeout=TURN_TIMEOUT_S)
    finally:
        process.kill()
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}:\n{output}")
    latency = json.loads(result.read_text())["latency"]
    assert latency["num_runs"] == runs
    return {name: latency[f"{name}_ms"] for name in ("median", "p5", "p95")}


def spread(turn: dict[str, float], samples: str = "") -> float:
    """p95 - p5 of a turn, each rounded to 0.01 ms as litert-benchmark does."""
    return round(turn[f"p95{samples}"], 2) - round(turn[f"p5{samples}"], 2)


def compare(
    name: str, path: Path, device: CpuDevice, runs: int, turns: int
) -> dict[str, str | float]:
    """Time one model by both in turns."""
    core = None if device.setup.cores is None else device.setup.cores[0]
    ours: list[dict[str, float]] = []
    theirs: list[dict[str, float]] = []
    for turn in range(turns):
        for side in ("ours", "theirs") if turn % 2 == 0 else ("theirs", "ours"):
            if side == "ours":
                ours.append(time_ours(device, path, runs))
            else:
                theirs.append(time_theirs(path, runs, core))
    median_ours = statistics.median(turn["median"] for turn in ours)
    median_theirs = statistics.median(turn["median"] for turn in theirs)
    return {
        "model": name,
        "ours ms": median_ours,
        "theirs ms": median_theirs,
        "ratio": median_ours / median_theirs,
        "ratio, all": statistics.median(turn["median_all"] for turn in ours) / median_theirs,
        "p95-p5 ours": statistics.median(spread(turn) for turn in ours),
        "p95-p5 theirs": statistics.median(spread(turn) for turn in theirs),
        "p95-p5 ours, all": statistics.median(spread(turn, "_all") for turn in ours),
        "preempted": statistics.mean(turn["preempted"] for turn in ours),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results here")
    parser.add_argument("--runs", type=int, default=50, help="timed runs a turn (default 50)")
    parser.add_argument("--turns", type=int, default=5, help="turns of each side (default 5)")
    parser.add_argument("--models", type=int, default=len(NETWORKS), help="only the first so many")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory(prefix="latkit-reference-") as name:
        folder = Path(name)
        core = allowed_cores()[-1]
        device = CpuDevice(
            runtime="litert", cores=(core,) if can_pin() else None, cache=folder / "cache"
        )
        for index, (label, network) in enumerate(list(NETWORKS.items())[: options.models]):
            model: onnx.ModelProto = build_onnx(network)
            path = folder / f"{label}.tflite"
            path.write_bytes(convert(model))
            print(f"{index + 1}/{options.models} {label}", file=sys.stderr)
            rows.append(compare(label, path, device, options.runs, options.turns))
        ratios = [float(row["ratio"]) for row in rows]
        no_larger, no_larger_all = (
            statistics.mean(
                float(row[column]) <= float(row["p95-p5 theirs"]) + 1e-9 for row in rows
            )
            for column in ("p95-p5 ours", "p95-p5 ours, all")
        )
        figures = {
            "median_ratio_min": min(ratios),
            "median_ratio_max": max(ratios),
            "medians_within_5": statistics.mean(abs(ratio - 1) <= 0.05 for ratio in ratios),
            "spread_no_larger": no_larger,
            "spread_no_larger_all_samples": no_larger_all,
        }
        context = {
            "setup": device.setup.key,
            "info": device.info(),
            "runs": options.runs,
            "warmups": WARMUPS,
            "turns": options.turns,
            "notes": [
                "litert-benchmark uses the CompiledModel interface, latkit the Interpreter",
                "litert-benchmark rounds to 0.01 ms and gives aggregates only, no single runs",
                "latkit drops preempted samples; the columns 'all' keep them",
                "median, p5 and p95 are taken of each turn; the table shows medians over turns",
            ],
        }
        report(figures, rows, context, options.json)
        for note in context["notes"]:
            print(f"- {note}")


if __name__ == "__main__":
    main()
