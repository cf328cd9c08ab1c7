"""What `latkit search` prints: a table for people, plain JSON values for programs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.table import Table
from rich.text import Text

from ..devices.console import stdout
from ..devices.errors import UnreachableTargetError
from .result import Finalist, SearchResult


def result_json(result: SearchResult) -> dict[str, Any]:
    """A search's result as plain JSON values."""
    values: dict[str, Any] = json.loads(json.dumps(asdict(result)))
    for row, finalist in zip(values["finalists"], result.finalists, strict=True):
        row["inside"] = finalist.inside
        row["miss"] = finalist.miss
        row["meets_target"] = finalist.meets_target
    return values


def print_result(result: SearchResult) -> None:
    """Print target, predicted and measured latency, and accuracy, of each finalist."""
    for target in result.targets:
        found = result.of(target)
        title = f"{target.kind} {target.target_ms:g} ms on {result.setup.key}"
        table = Table(title=Text(title))
        table.add_column("")
        for finalist in found:
            table.add_column(finalist.strategy, justify="right")
        for label, values in _lines(found):
            table.add_row(label, *values)
        stdout.print(table)
    if len(result.targets) > 1:
        stdout.print(_budgets(result))
    for name, seconds in result.seconds.items():
        stdout.print(f"{name}: {seconds:.0f} s", highlight=False)


def require_met(result: SearchResult) -> None:
    """Raise `UnreachableTargetError` where a winner was measured to be above what was allowed.

    What misses a target that it was to land on is no error: the result says by how much.
    """
    missed = [item for item in result.winners if item.kind == "at most" and not item.meets_target]
    if missed:
        listed = "; ".join(
            f"within {item.target_ms:g} ms the closest took {item.measured_ms:.4g} ms"
            for item in missed
        )
        raise UnreachableTargetError(
            f"what the table promised did not hold on the device: {listed}. Everything was kept. "
            "Choose a larger target, or profile the device again."
        )


def _budgets(result: SearchResult) -> Table:
    """The winners side by side: what more latency buys."""
    table = Table("at most, ms" if result.targets[0].kind == "at most" else "target, ms")
    for name in ("measured, ms", "95 % interval", "accuracy, validation", "accuracy, test"):
        table.add_column(name, justify="right")
    for item in result.winners:
        table.add_row(
            f"{item.target_ms:g}",
            f"{item.measured_ms:.4g}",
            _interval(item.measured_low_ms, item.measured_high_ms),
            f"{item.validation_accuracy:.1%}",
            f"{item.test_accuracy:.1%}",
        )
    return table


def _lines(found: Sequence[Finalist]) -> list[tuple[str, list[str]]]:
    def line(label: str, *values: str) -> tuple[str, list[str]]:
        return label, list(values)

    return [
        line("predicted, ms", *(f"{item.predicted_ms:.4g}" for item in found)),
        line("90 % interval", *(_interval(item.low_ms, item.high_ms) for item in found)),
        line("measured, at the table's speed, ms", *(f"{item.measured_ms:.4g}" for item in found)),
        line(
            "95 % interval",
            *(_interval(item.measured_low_ms, item.measured_high_ms) for item in found),
        ),
        line("as the clock stood, ms", *(_raw(item) for item in found)),
        line("inside the prediction", *("yes" if item.inside else "no" for item in found)),
        line(
            "measured against target",
            *(f"{item.miss:+.1%}" for item in found),
        ),
        line("meets the target", *("yes" if item.meets_target else "no" for item in found)),
        line("model corrected", *(f"{item.corrections} times" for item in found)),
        line("verdict", *(_verdict(item) for item in found)),
        line("evaluations", *(str(item.evaluations) for item in found)),
        line("accuracy, searching", *(f"{item.supernet_accuracy:.1%}" for item in found)),
        line("accuracy, validation", *(f"{item.validation_accuracy:.1%}" for item in found)),
        line("accuracy, test", *(f"{item.test_accuracy:.1%}" for item in found)),
        line("MFLOPs", *(f"{item.flops / 1e6:.3g}" for item in found)),
        line("parameters", *(f"{item.parameters:,}" for item in found)),
    ]


def _raw(item: Finalist) -> str:
    return "" if item.raw_ms is None else f"{item.raw_ms:.4g}"


def _interval(low_ms: float, high_ms: float) -> str:
    return f"{low_ms:.4g} to {high_ms:.4g}"


def _verdict(item: Finalist) -> str:
    reasons = f" ({'; '.join(item.verdict_reasons)})" if item.verdict_reasons else ""
    return item.verdict + reasons
