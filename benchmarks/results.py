"""What every benchmark prints and writes: a table, its figures, and both as JSON."""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

FILE_WIDTH = 200
"""Columns of a table that is printed to a file or a pipe."""


def report(
    figures: Mapping[str, float],
    rows: Sequence[Mapping[str, Any]],
    context: Mapping[str, Any],
    json_path: Path | None = None,
) -> None:
    """Print `rows` as a table and `figures` below it; write all three to `json_path`."""
    console = _console()
    print_table(rows, console)
    for name, value in figures.items():
        console.print(f"{name} = {value:.6g}", highlight=False)
    if json_path is not None:
        result = {
            "figures": dict(figures),
            "rows": [dict(row) for row in rows],
            "context": {"host": platform.platform(), **context},
        }
        json_path.parent.mkdir(parents=True, exist_ok=True)
        json_path.write_text(json.dumps(result, indent=2, default=str) + "\n")
        console.print(f"written to {json_path}", highlight=False)


def print_table(rows: Sequence[Mapping[str, Any]], console: Console | None = None) -> None:
    """Print rows of equal keys as a table."""
    if not rows:
        return
    table = Table()
    for name in rows[0]:
        table.add_column(name, justify="left" if isinstance(rows[0][name], str) else "right")
    for row in rows:
        table.add_row(*(_text(value) for value in row.values()))
    (console or _console()).print(table)


def _console() -> Console:
    return Console() if sys.stdout.isatty() else Console(width=FILE_WIDTH)


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
