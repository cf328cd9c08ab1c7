"""What every verb of the command does alike: data on stdout, progress on stderr, exit codes."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from .errors import LatkitError

stdout = Console()
stderr = Console(stderr=True)


def print_json(data: Any) -> None:
    """Write `data` to stdout as JSON and nothing else: what `--json` asks for."""
    sys.stdout.write(json.dumps(data, indent=2, sort_keys=True, allow_nan=False) + "\n")


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """A progress display with the time left, on stderr; silent where stderr is no terminal."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=stderr, disable=not stderr.is_terminal) as progress:
        yield progress


def exit_with_code(run: Callable[[], None]) -> None:
    """Call `run`; turn a `LatkitError` into one clear message on stderr and its exit code."""
    try:
        run()
    except LatkitError as error:
        told = "\n".join([f"error: {error}", *getattr(error, "__notes__", ())])
        stderr.print(told, style="red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(error.exit_code)
