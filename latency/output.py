"""What the verbs of this folder print: tables for people, plain JSON values for programs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from rich.table import Table
from rich.text import Text

from ..devices.console import stdout
from ..devices.device import ModelKey, Setup
from ..devices.measurement import Measurement
from ..devices.per_op import OperationTimes
from .calibration import Calibration, PredictionError
from .counts import Kernel
from .models.kernel_profile import KernelProfile
from .models.prediction import ModelPrediction
from .profile import Profile
from .space_profile import SpaceProfile
from .subject import Subject, subject_label, subject_to_json
from .table import Estimate

FAILURES_SHOWN = 10


def milliseconds(value: float) -> str:
    """A latency with no more digits than are significant."""
    return f"{value:.4g}"


def interval(low_ms: float, high_ms: float) -> str:
    """An interval of a latency."""
    return f"{milliseconds(low_ms)} to {milliseconds(high_ms)}"


def measurement_json(item: Measurement, subject: Subject) -> dict[str, Any]:
    """A measurement as plain JSON values."""
    return {
        "model": subject_to_json(subject),
        "id": item.model_id,
        "eviction_bytes": item.eviction_bytes,
        "median_ms": item.median_ms,
        "low_ms": item.low_ms,
        "high_ms": item.high_ms,
        "spread": item.spread,
        "samples": item.sample_count,
        "rounds": len(item.rounds),
        "verdict": item.verdict.kind,
        "reasons": list(item.verdict.reasons),
    }


def failures_json(failures: Mapping[ModelKey, str]) -> list[dict[str, Any]]:
    """The models that failed, and why, as plain JSON values."""
    return [
        {"id": key[0], "eviction_bytes": key[1], "cause": cause} for key, cause in failures.items()
    ]


def profile_json(
    setup: Setup, result: Profile, subjects: Mapping[ModelKey, Subject]
) -> dict[str, Any]:
    """What a profile gave as plain JSON values."""
    return {
        "setup": asdict(setup),
        "measurements": [
            measurement_json(item, subjects[key]) for key, item in result.measurements.items()
        ],
        "failures": failures_json(result.failures),
    }


def print_profile(setup: Setup, result: Profile, subjects: Mapping[ModelKey, Subject]) -> None:
    """Print median, interval, verdict and reasons of each model, and what failed."""
    table = Table("model", "median, ms", "95 % interval", "verdict", "why", title=Text(setup.key))
    for key, item in result.measurements.items():
        table.add_row(
            Text(subject_label(subjects[key])),
            milliseconds(item.median_ms),
            interval(item.low_ms, item.high_ms),
            item.verdict.kind,
            Text("; ".join(item.verdict.reasons)),
        )
    if result.measurements:
        stdout.print(table)
    print_failures(result.failures)


def print_failures(failures: Mapping[ModelKey, str]) -> None:
    """Print the first models that failed, with their causes."""
    for (model, size), cause in list(failures.items())[:FAILURES_SHOWN]:
        stdout.print(Text(f"failed: {model} (eviction {size} bytes): {cause}"))
    if len(failures) > FAILURES_SHOWN:
        stdout.print(f"... and {len(failures) - FAILURES_SHOWN} more failed; --json lists them all")


def space_json(result: SpaceProfile) -> dict[str, Any]:
    """What profiling a space gave as plain JSON values."""
    return {
        **table_json(result),
        "unstable": result.unstable,
        "canary_shift": result.canary_shift,
        "networks": [
            {
                "id": check.network.key,
                "role": check.role,
                "measured_ms": check.measured_ms,
                "verdict": check.verdict,
                **asdict(check.estimate),
            }
            for check in result.checks
        ],
        "failures": failures_json(result.failures),
    }


def table_json(result: SpaceProfile) -> dict[str, Any]:
    """The table that a space's profile gave, in short, as plain JSON values."""
    table = result.table
    return {
        "setup": asdict(table.setup),
        "eviction_bytes": table.eviction_bytes,
        "channel_grid": table.channel_grid,
        "blocks": len(table.entries),
        "calibration": asdict(table.calibration),
        "trials": [asdict(trial) for trial in table.trials],
    }


def print_space(result: SpaceProfile) -> None:
    """Print the calibration with its errors, what is unstable, and what failed."""
    table = result.table
    stdout.print(
        Text(
            f"{table.setup.key}\n{len(table.entries)} blocks, timed with {table.eviction_bytes} "
            f"bytes evicted; channel grid {table.channel_grid}"
        )
    )
    print_calibration(table.calibration)
    if result.unstable:
        stdout.print(f"{result.unstable} blocks and networks are not stable")
    if result.canary_shift is not None:
        stdout.print(f"the canary shifted by {result.canary_shift:+.1%} between the phases")
    print_failures(result.failures)


def print_calibration(calibration: Calibration) -> None:
    """Print the terms kept, and the errors on networks."""
    stdout.print(
        f"calibration on {calibration.networks} networks; terms: {', '.join(calibration.terms)}; "
        f"intervals: +-{calibration.interval_share:.1%}, "
        + (
            f"by {calibration.interval_networks} other networks"
            if calibration.interval_networks
            else "by the same networks"
        )
    )
    errors = {
        "plain sums of blocks": calibration.plain,
        "calibrated, left out": calibration.leave_one_out,
        "calibrated, held-out networks": calibration.held_out,
    }
    print_errors({name: error for name, error in errors.items() if error is not None})


def print_errors(errors: Mapping[str, PredictionError]) -> None:
    """Print relative errors, a row each."""
    table = Table("predicted by", "of", "bias", "RMSPE", "within 5 %", "within 10 %", "Spearman")
    for name, error in errors.items():
        table.add_row(
            name,
            str(error.networks),
            f"{error.bias:+.1%}",
            f"{error.rmspe:.1%}",
            f"{error.within_5:.0%}",
            f"{error.within_10:.0%}",
            "" if error.spearman is None else f"{error.spearman:.3f}",
        )
    stdout.print(table)


def print_estimates(setup_key: str, estimates: Iterable[tuple[str, Estimate]]) -> None:
    """Print estimated latencies with their intervals and where they are from."""
    table = Table("model", "latency, ms", "interval", "source", "why", title=Text(setup_key))
    for label, item in estimates:
        table.add_row(
            Text(label),
            milliseconds(item.latency_ms),
            interval(item.low_ms, item.high_ms),
            item.source,
            Text(item.reason),
        )
    stdout.print(table)


def print_operations(label: str, times: OperationTimes) -> None:
    """Print the time of each operation, their sum, and what of the whole it leaves."""
    table = Table("operation", "kind", "median, ms", "share", title=Text(label))
    for item in times.operations:
        share = item.median_ms / times.whole_ms
        table.add_row(Text(item.name), item.kind, milliseconds(item.median_ms), f"{share:.1%}")
    table.add_section()
    for name, value in (
        ("sum of operations", times.sum_ms),
        ("remainder", times.remainder_ms),
        ("whole model, not profiled", times.whole_ms),
    ):
        table.add_row(name, "", milliseconds(value), f"{value / times.whole_ms:.1%}")
    stdout.print(table)


def print_kernel_profile(result: KernelProfile) -> None:
    """Print what kernel profiling came to, and which networks could not be timed."""
    stdout.print(
        Text(
            f"{result.setup.key}\n{result.networks} probe networks of {result.kernels} kernels, "
            f"timed in {result.seconds / 60:.1f} minutes"
        )
    )
    print_failures({(name, 0): cause for name, cause in result.failures.items()})


def print_model_prediction(label: str, prediction: ModelPrediction) -> None:
    """Print what each kernel of a model adds, what that leaves, and the whole with its interval."""
    table = Table("kernel", "operation", "shape", "latency, ms", "share", "why", title=Text(label))
    for item in prediction.kernels:
        table.add_row(
            Text(item.name),
            Text(item.kernel.operation),
            kernel_shape(item.kernel),
            milliseconds(item.latency_ms),
            f"{item.share:.1%}",
            Text(item.reason),
        )
    table.add_section()
    for name, value in (
        ("remainder", prediction.remainder_ms),
        ("whole model", prediction.latency_ms),
    ):
        share = value / prediction.latency_ms
        table.add_row(name, "", "", milliseconds(value), f"{share:.1%}", "")
    stdout.print(table)
    stdout.print(
        Text(
            f"{prediction.setup.key}\n{milliseconds(prediction.latency_ms)} ms, "
            f"{interval(prediction.low_ms, prediction.high_ms)} ms"
            + (f"; {prediction.reason}" if prediction.reason else "")
        )
    )


def kernel_shape(kernel: Kernel) -> str:
    """A kernel's input, output and window, as `32x56x56 to 64x28x28, 3x3/2`."""
    read = f"{kernel.in_channels}x{kernel.height}x{kernel.width}"
    written = f"{kernel.out_channels}x{kernel.out_height}x{kernel.out_width}"
    shape = read if read == written else f"{read} to {written}"
    if max(kernel.kernel, default=1) > 1:
        shape += f", {'x'.join(map(str, kernel.kernel))}"
        if max(kernel.stride, default=1) > 1:
            shape += f"/{max(kernel.stride)}"
    return shape
