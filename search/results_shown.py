"""What `latkit search` prints: a table for people, plain JSON values for programs."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from rich.table import Table
from rich.text import Text

from ..devices.console import stdout
from .result import Finalist, SearchResult


def result_json(result: SearchResult) -> dict[str, Any]:
    """A search's result as plain JSON values."""
    values: dict[str, Any] = json.loads(json.dumps(asdict(result)))
    for row, finalist in zip(values["finalists"], result.finalists, strict=True):
        row["inside"] = finalist.inside
        row["miss"] = finalist.measured_ms / result.target_ms - 1
    return values


def print_result(result: SearchResult) -> None:
    """Print target, predicted and measured latency, and accuracy, of each finalist."""
    table = Table(title=Text(f"target {result.target_ms:g} ms on {result.setup.key}"))
    table.add_column("")
    for finalist in result.finalists:
        table.add_column(finalist.strategy, justify="right")
    for label, values in _lines(result):
        table.add_row(label, *values)
    stdout.print(table)
    for name, seconds in result.seconds.items():
        stdout.print(f"{name}: {seconds:.0f} s", highlight=False)


def _lines(result: SearchResult) -> list[tuple[str, list[str]]]:
    def line(label: str, *values: str) -> tuple[str, list[str]]:
        return label, list(values)

    found = result.finalists
    return [
        line("predicted, ms", *(f"{item.predicted_ms:.4g}" for item in found)),
        line("90 % interval", *(_interval(item.low_ms, item.high_ms) for item in found)),
        line("measured, ms", *(f"{item.measured_ms:.4g}" for item in found)),
        line(
            "95 % interval",
            *(_interval(item.measured_low_ms, item.measured_high_ms) for item in found),
        ),
        line("inside the prediction", *("yes" if item.inside else "no" for item in found)),
        line(
            "measured against target",
            *(f"{item.measured_ms / result.target_ms - 1:+.1%}" for item in found),
        ),
        line("verdict", *(_verdict(item) for item in found)),
        line("supernet evaluations", *(str(item.evaluations) for item in found)),
        line("accuracy, supernet", *(f"{item.supernet_accuracy:.1%}" for item in found)),
        line("accuracy, validation", *(f"{item.validation_accuracy:.1%}" for item in found)),
        line("accuracy, test", *(f"{item.test_accuracy:.1%}" for item in found)),
        line("MFLOPs", *(f"{item.flops / 1e6:.3g}" for item in found)),
        line("parameters", *(f"{item.parameters:,}" for item in found)),
    ]


def _interval(low_ms: float, high_ms: float) -> str:
    return f"{low_ms:.4g} to {high_ms:.4g}"


def _verdict(item: Finalist) -> str:
    reasons = f" ({'; '.join(item.verdict_reasons)})" if item.verdict_reasons else ""
    return item.verdict + reasons
