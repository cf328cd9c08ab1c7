"""How well are model files predicted, kernel by kernel, that took no part in profiling?

Profiles probe networks (resuming from `--store`), fits a model predictor to them, predicts each
.onnx file in a folder, and only then times the files. Beside it: FLOPs, scaled on the same probe
networks.

    python -m networks --output models          # in benchmarks/: 19 networks of the literature
    python benchmarks/whole_model.py --models models --runtime onnxruntime --json whole_model.json
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from latkit.devices.console import exit_with_code, progress_bar
from latkit.devices.device import Device, TimingProtocol
from latkit.devices.errors import LatkitError, UsageError
from latkit.devices.options import DeviceOptions
from latkit.devices.registry import open_device
from latkit.latency.calibration import fit_relative, prediction_error
from latkit.latency.kernel_cli import fit_model_predictor
from latkit.latency.models.kernel_profile import KernelProfile, profile_kernels, splits_at_one_speed
from latkit.latency.models.prediction import ModelPrediction
from latkit.latency.models.predictor import predict_model
from latkit.latency.profile import profile
from latkit.latency.store import Store
from latkit.latency.subject import ModelFile
from results import report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=_Formatter)
    parser.add_argument("--models", type=Path, required=True, help="folder of .onnx files")
    parser.add_argument("--runtime", default="onnxruntime", choices=("onnxruntime", "litert"))
    parser.add_argument("--store", type=Path, help="default: a temporary one")
    parser.add_argument("--minutes", type=float, default=15.0, help="of profiling, at most")
    parser.add_argument("--networks", type=int, help="probe networks, at most")
    parser.add_argument("--rounds", type=int, default=TimingProtocol().rounds)
    parser.add_argument("--cores", type=int, nargs="*", help="default: the runtime's own choice")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    exit_with_code(lambda: run(arguments))


class _Formatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Keeps the line breaks of the description, and shows defaults."""


def run(arguments: argparse.Namespace) -> None:
    paths = sorted(arguments.models.glob("*.onnx"))
    if not paths:
        raise UsageError(f"there is no .onnx file in {arguments.models}")
    cores = tuple(arguments.cores) if arguments.cores else None
    device = open_device("cpu", DeviceOptions(runtime=arguments.runtime, cores=cores))
    with (
        tempfile.TemporaryDirectory() as folder,
        Store(arguments.store or Path(folder) / "store.db") as store,
    ):
        with progress_bar() as progress:
            profiled = profile_kernels(
                device,
                store,
                networks=arguments.networks,
                minutes=arguments.minutes,
                progress=progress,
            )
        started = time.perf_counter()
        predictor = fit_model_predictor(store, device.setup, arguments.seed)
        fit_s = time.perf_counter() - started
        flops_ms = flops_per_ms(store, device)
        predictions: dict[Path, ModelPrediction] = {}
        failures: dict[str, str] = {}
        for path in paths:
            try:
                predictions[path] = predict_model(path, predictor)
            except LatkitError as error:
                failures[path.name] = str(error)
        measured, more = measure(device, store, list(predictions), arguments.rounds)
        failures |= more
    found = [(path, predictions[path]) for path in predictions if path in measured]
    rows = [row(path, item, *measured[path], item.flops * flops_ms) for path, item in found]
    report(
        figures(rows, profiled, fit_s, len(paths)),
        rows,
        {
            "setup": asdict(device.setup),
            "seed": arguments.seed,
            "probe_networks": profiled.networks,
            "kernels": profiled.kernels,
            "calibration": asdict(predictor.calibration_),
            "cross_validated": asdict(predictor.error_),
            "reasons": {path.name: item.reason for path, item in found},
            "failures": failures,
            "probe_failures": profiled.failures,
        },
        arguments.json,
    )


def flops_per_ms(store: Store, device: Device) -> float:
    """Milliseconds a FLOP, by the relative errors of the probe networks as wholes."""
    splits = splits_at_one_speed(store.kernel_runs(device.setup))
    flops = [[float(sum(k.kernel.flops for k in item.kernels))] for item in splits]
    wholes = np.array([item.whole_ms for item in splits], dtype=float)
    (scale,) = fit_relative(np.array(flops), wholes)
    return float(scale)


def measure(
    device: Device, store: Store, paths: Sequence[Path], rounds: int
) -> tuple[dict[Path, tuple[float, str]], dict[str, str]]:
    """Median in ms and verdict of each file, by rounds as any model; causes of failures."""
    files = {path: ModelFile.read(path) for path in paths}
    with progress_bar() as progress:
        result = profile(
            device,
            [(item, 0) for item in files.values()],
            store,
            TimingProtocol(rounds=rounds),
            progress=progress,
            description="measure",
        )
    measured, failures = {}, {}
    for path, item in files.items():
        key = (item.key, 0)
        if key in result.failures:
            failures[path.name] = result.failures[key]
        else:
            found = result.measurements[key]
            measured[path] = (found.median_ms, found.verdict.kind)
    return measured, failures


def row(
    path: Path, prediction: ModelPrediction, measured_ms: float, verdict: str, flops_ms: float
) -> dict[str, Any]:
    return {
        "model": path.stem,
        "kernels": len(prediction.kernels),
        "measured_ms": measured_ms,
        "predicted_ms": prediction.latency_ms,
        "error": prediction.latency_ms / measured_ms - 1,
        "low_ms": prediction.low_ms,
        "high_ms": prediction.high_ms,
        "inside": prediction.low_ms <= measured_ms <= prediction.high_ms,
        "remainder_ms": prediction.remainder_ms,
        "unknown_share": prediction.unknown_share,
        "flops_ms": flops_ms,
        "verdict": verdict,
    }


def figures(
    rows: Sequence[dict[str, Any]], profiled: KernelProfile, fit_s: float, files: int
) -> dict[str, float]:
    """`within_20` counts files that failed as missed, as do the other shares."""
    values = {"files": float(files), "profiling_s": profiled.seconds, "fit_s": fit_s}
    if not rows:
        return values
    measured = [item["measured_ms"] for item in rows]
    for prefix, name in (("", "predicted_ms"), ("flops_", "flops_ms")):
        predicted = [item[name] for item in rows]
        error = prediction_error(predicted, measured)
        off = np.abs(np.array(predicted) / np.array(measured) - 1)
        values |= {
            f"{prefix}within_10": float(np.sum(off <= 0.1)) / files,
            f"{prefix}within_20": float(np.sum(off <= 0.2)) / files,
            f"{prefix}rmspe": error.rmspe,
            f"{prefix}bias": error.bias,
            f"{prefix}spearman": float("nan") if error.spearman is None else error.spearman,
        }
    values["inside"] = sum(item["inside"] for item in rows) / files
    values["greatest_unknown_share"] = max(item["unknown_share"] for item in rows)
    return values


if __name__ == "__main__":
    main()
