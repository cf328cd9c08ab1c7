"""The search log: every evaluation as a line of JSON, in the order the strategies asked.

The log holds nothing but what follows from the table, the seed and the settings, so equal searches
write equal bytes. It is also how a killed search resumes: strategies are deterministic, so they
are run again from the start and answered from the log until it ends.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..devices.errors import DamagedFileError, LatkitError, UsageError
from .space import Architecture

FORMAT = "latkit.search_log"
VERSION = 1


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One architecture scored for one strategy. `index` counts the strategy's evaluations."""

    strategy: str
    index: int
    architecture: tuple[int, ...]
    predicted_ms: float
    accuracy: float


class SearchLog:
    """Reads what an earlier run of the same search left, and appends to it.

    `settings` are all that the search depends on, its evaluator included: an architecture is
    evaluated once for the whole log. A log of other settings, or one that can't be written, is
    refused with `UsageError`, a damaged one with `DamagedFileError`. A last line cut off by a kill
    is dropped. `is_new` says that there was no earlier run.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        self.path = path
        header = {"format": FORMAT, "version": VERSION, "settings": dict(settings)}
        self.settings: dict[str, Any] = json.loads(_line(header))["settings"]
        self._recorded: list[LogEntry] = []
        self._replayed = 0
        self._accuracies: dict[tuple[int, ...], float] = {}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self.is_new = not (path.exists() and path.stat().st_size)
            if not self.is_new:
                self._recorded = _recover(path, header)
        except OSError as error:
            raise UsageError(f"can't write the search log {path}: {error.strerror}") from error
        if self.is_new:
            self._append(header)

    def replay(self, strategy: str, index: int, architecture: Architecture) -> float | None:
        """Accuracy of this evaluation from an earlier run; None once its record has ended."""
        if self._replayed == len(self._recorded):
            return None
        row = self._recorded[self._replayed]
        if (row.strategy, row.index, row.architecture) != (strategy, index, architecture.choices):
            raise DamagedFileError(
                f"{self.path}: line {self._replayed + 2} is not what this search asks for at that "
                "place. Another version wrote it, or it was edited; delete the folder and search "
                "again."
            )
        self._replayed += 1
        self._accuracies[row.architecture] = row.accuracy
        return row.accuracy

    def append(self, entry: LogEntry) -> None:
        """Add an evaluation and flush it to disk."""
        self._append(_row(entry))
        self._recorded.append(entry)
        self._replayed += 1
        self._accuracies[entry.architecture] = entry.accuracy

    def accuracy(self, architecture: Architecture) -> float | None:
        """What the architecture was found to be worth so far, by whichever strategy."""
        return self._accuracies.get(architecture.choices)

    def goes_on_without(self, strategy: str) -> bool:
        """Whether an earlier run had ended this strategy here, and begun another."""
        rest = self._recorded[self._replayed : self._replayed + 1]
        return any(entry.strategy != strategy for entry in rest)

    @property
    def recorded(self) -> tuple[LogEntry, ...]:
        """All that is in the file, what was not replayed yet among it."""
        return tuple(self._recorded)

    def entries(self) -> list[LogEntry]:
        """Everything evaluated so far, in order."""
        return self._recorded[: self._replayed]

    def _append(self, row: Mapping[str, Any]) -> None:
        try:
            with self.path.open("ab") as file:
                file.write(_line(row))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise LatkitError(
                f"can't write {self.path}: {error.strerror}. What was evaluated is kept; free some "
                "space and run the same command again."
            ) from error


def read_log(path: Path) -> tuple[dict[str, Any], list[LogEntry]]:
    """Settings and evaluations of a log; a last line that is not whole yet is left out."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UsageError(f"can't read {path}: {error.strerror}") from error
    lines = content[: content.rfind(b"\n") + 1].splitlines()
    try:
        header = json.loads(lines[0])
        rows = [_entry(json.loads(line)) for line in lines[1:]]
        known = header["format"] == FORMAT and header["version"] <= VERSION
        settings = header["settings"]
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise DamagedFileError(f"{path} is damaged; delete its folder and search again") from error
    if not known:
        raise DamagedFileError(f"{path} is no search log that this version of latkit reads")
    return settings, rows


def _recover(path: Path, header: Mapping[str, Any]) -> list[LogEntry]:
    """Evaluations of an earlier run; a last line that a kill cut off is taken off the file."""
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if not whole:
        path.write_bytes(_line(header))
        return []
    if whole != content:
        with path.open("r+b") as file:
            file.truncate(len(whole))
    settings, rows = read_log(path)
    if settings != json.loads(_line(header))["settings"]:
        wanted = json.loads(_line(header))["settings"]
        differing = sorted(
            name for name in {*settings, *wanted} if settings.get(name) != wanted.get(name)
        )
        raise UsageError(
            f"{path} holds a search with other settings ({', '.join(differing)}). "
            "Choose another --output, or delete that folder."
        )
    return rows


def _row(entry: LogEntry) -> dict[str, Any]:
    return {
        "strategy": entry.strategy,
        "index": entry.index,
        "architecture": list(entry.architecture),
        "predicted_ms": entry.predicted_ms,
        "accuracy": entry.accuracy,
    }


def _entry(row: Mapping[str, Any]) -> LogEntry:
    return LogEntry(
        str(row["strategy"]),
        int(row["index"]),
        tuple(int(choice) for choice in row["architecture"]),
        float(row["predicted_ms"]),
        float(row["accuracy"]),
    )


def _line(row: Mapping[str, Any]) -> bytes:
    return json.dumps(row, sort_keys=True).encode() + b"\n"
