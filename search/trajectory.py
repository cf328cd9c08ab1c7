"""Trajectories: every evaluation of a search as a row in the store, with what it took.

The search log (`log`) holds what a search is resumed from, and no times. A trajectory holds them,
and what strategies told of themselves, for plots and budgets of time.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from sqlalchemy import Connection, Row, Table, insert, select

from ..latency import database, rows
from ..latency.database import Database
from ..latency.store import Store
from .log import LogEntry, SearchLog
from .space import Architecture

COLUMNS = [
    *("search", "strategy", "index", "architecture", "seed"),
    *("predicted_ms", "measured_ms", "accuracy", "seconds"),
]
"""Of a frame, before the figures of the strategies."""

SAVED_EVERY_SECONDS = 1.0
"""A kill costs the times of evaluations that took no longer together, and of the one under way."""


class Trajectory:
    """Rows of one search, in a store. They are only ever added.

    A search is known by its `name`, the folder of its log where not given, and by the settings of
    the log. Where the log is new, or does not agree with the rows, they are another search's, and
    this one's begin anew.
    """

    def __init__(self, store: Store, log: SearchLog, name: str | None = None) -> None:
        self._database = store.database
        name = _name(log.path) if name is None else name
        settings, sha256 = _settings(log.settings)
        with self._database.writing() as connection:
            found = _last(connection, name, sha256)
            self._rows = {} if found is None else self._read(connection, found.id)
            if found is not None and not log.is_new and _agree(self._rows, log.recorded):
                self.search, self._id = _label(found), int(found.id)
            else:
                begun = 1 if found is None else found.begun + 1
                values = {"name": name, "settings_sha256": sha256, "settings": settings}
                added = rows.with_crc({**values, "begun": begun})
                result = connection.execute(insert(database.searches).values(added))
                assert result.inserted_primary_key is not None
                self._id, self._rows = int(result.inserted_primary_key[0]), {}
                self.search = _labelled(name, sha256, begun)
        self._waiting: list[rows.Values] = []
        self._seconds = defaultdict[str, float](float)
        for (strategy, _), row in self._rows.items():
            self._seconds[strategy] += row["seconds"] or 0.0

    def add(
        self,
        strategy: str,
        index: int,
        architecture: Architecture,
        *,
        seed: int,
        predicted_ms: float,
        accuracy: float,
        seconds: float = math.nan,
        figures: Mapping[str, float] | None = None,
    ) -> None:
        """Add an evaluation that is in the log, unless it has a row.

        `seconds` are NaN where they are not known. Written by `save`, or here once evaluations of
        more than `SAVED_EVERY_SECONDS` wait.
        """
        if (strategy, index) in self._rows:
            return
        values: dict[str, Any] = {
            "search_id": self._id,
            "strategy": strategy,
            "number": index,
            "architecture": architecture.key,
            "seed": seed,
            "predicted_ms": predicted_ms,
            "accuracy": accuracy,
            "seconds": _known(seconds),
            "figures": rows.to_text(dict(figures or {})),
        }
        self._rows[strategy, index] = values
        self._seconds[strategy] += values["seconds"] or 0.0
        self._waiting.append(rows.with_crc(values))
        if math.fsum(row["seconds"] or 0.0 for row in self._waiting) > SAVED_EVERY_SECONDS:
            self.save()

    def save(self) -> None:
        """Write the rows that wait, in one transaction."""
        if self._waiting:
            with self._database.writing() as connection:
                connection.execute(insert(database.evaluations), self._waiting)
            self._waiting = []

    def add_finalist(
        self,
        strategy: str,
        architecture: Architecture,
        *,
        predicted_ms: float,
        measured_ms: float,
        accuracy: float = math.nan,
    ) -> None:
        """Add what an architecture measured that `strategy` led to; `accuracy` where it is known.

        Of several measurements of one architecture, a frame has the last.
        """
        values = {
            "search_id": self._id,
            "strategy": strategy,
            "architecture": architecture.key,
            "predicted_ms": predicted_ms,
            "measured_ms": measured_ms,
            "accuracy": _known(accuracy),
        }
        with self._database.writing() as connection:
            connection.execute(insert(database.finalists).values(rows.with_crc(values)))

    def seconds(self, strategy: str) -> float:
        """What the strategy's evaluations took, as far as it is known."""
        return self._seconds[strategy]

    def frame(self) -> pd.DataFrame:
        """The rows of this search; see `trajectories`."""
        self.save()
        return _frame(self._database, self._id)

    def _read(self, connection: Connection, search: int) -> dict[tuple[str, int], dict[str, Any]]:
        found = _intact(self._database, connection, database.evaluations, search)
        return {(row.strategy, row.number): row._asdict() for row in found}


def trajectories(store: Store) -> pd.DataFrame:
    """The rows of all searches in a store, in the order added, and a column for each figure.

    `index` counts a strategy's evaluations, repeated ones among them, which took 0 seconds.
    `architecture` is what `Architecture.from_key` reads. `measured_ms` is NaN until an architecture
    is measured; what was measured without having been evaluated, as it is with widths that were
    scaled afterwards, has a row of its own, without index and seed. Figures are the strategy's
    when it asked.
    """
    return _frame(store.database)


def trajectory_of(store: Store, log: Path, settings: Mapping[str, Any]) -> pd.DataFrame:
    """The rows of the search that left `log`, as `trajectories` has them; `settings` are the log's.

    None where the store has no such search, or it was given a name of its own.
    """
    with store.database.reading() as connection:
        found = _last(connection, _name(log), _settings(settings)[1])
    return _frame(store.database, 0 if found is None else int(found.id))


def _frame(opened: Database, search: int | None = None) -> pd.DataFrame:
    with opened.reading() as connection:
        searches = _intact(opened, connection, database.searches)
        evaluations = _intact(opened, connection, database.evaluations, search)
        finalists = _intact(opened, connection, database.finalists, search)
    names = {row.id: _label(row) for row in searches}
    measured = {(row.search_id, row.architecture): row.measured_ms for row in finalists}
    listed = [
        {
            "search": names[row.search_id],
            "index": row.number,
            "measured_ms": measured.get((row.search_id, row.architecture), math.nan),
            **{name: getattr(row, name) for name in ("strategy", "architecture", "seed")},
            **{name: getattr(row, name) for name in ("predicted_ms", "accuracy", "seconds")},
            **json.loads(row.figures),
        }
        for row in evaluations
    ]
    evaluated = {(row.search_id, row.architecture) for row in evaluations}
    others = {(row.search_id, row.strategy, row.architecture): row for row in finalists}
    listed += [
        {
            "search": names[row.search_id],
            **{name: getattr(row, name) for name in ("strategy", "architecture")},
            **{name: getattr(row, name) for name in ("predicted_ms", "measured_ms", "accuracy")},
        }
        for row in others.values()
        if (row.search_id, row.architecture) not in evaluated
    ]
    figures = dict.fromkeys(name for row in listed for name in row if name not in COLUMNS)
    frame = pd.DataFrame(listed, columns=[*COLUMNS, *figures])
    whole = dict.fromkeys(("index", "seed"), "Int64")
    return frame.astype(whole | dict.fromkeys([*COLUMNS[5:], *figures], "float64"))


def _intact(
    opened: Database, connection: Connection, table: Table, search: int | None = None
) -> Sequence[Row[Any]]:
    """A table's rows, of one search or all, in the order added; damaged ones are refused."""
    query = select(table).order_by(table.c.id)
    if search is not None:
        query = query.where(table.c.search_id == search)
    found = connection.execute(query).all()
    for row in found:
        if not rows.is_intact(row[1:]):
            raise opened.damaged(f"the checksum of a row is wrong: {str(row)[:200]}")
    return found


def _agree(
    found: Mapping[tuple[str, int], Mapping[str, Any]], recorded: Sequence[LogEntry]
) -> bool:
    """Whether rows and a log may be of one search.

    A log's line is written before its row, so a kill may leave rows to add, and no row too many.
    """
    entries = {(entry.strategy, entry.index): entry for entry in recorded}
    return found.keys() <= entries.keys() and all(
        row["architecture"] == Architecture(entries[key].architecture).key
        and row["accuracy"] == entries[key].accuracy
        for key, row in found.items()
    )


def _name(log: Path) -> str:
    return str(log.parent.resolve())


def _settings(settings: Mapping[str, Any]) -> tuple[str, str]:
    """Settings as text, and its sha256."""
    text = json.dumps(settings, sort_keys=True)
    return text, hashlib.sha256(text.encode()).hexdigest()


def _last(connection: Connection, name: str, sha256: str) -> Row[Any] | None:
    """The last search begun of this name and these settings."""
    return connection.execute(
        select(database.searches)
        .where(database.searches.c.name == name)
        .where(database.searches.c.settings_sha256 == sha256)
        .order_by(database.searches.c.begun.desc())
    ).first()


def _label(row: Row[Any]) -> str:
    return _labelled(row.name, row.settings_sha256, row.begun)


def _labelled(name: str, sha256: str, begun: int) -> str:
    """What a search is called in frames: of one name and settings, the later ones are numbered."""
    return f"{name}@{sha256[:8]}" + (f"#{begun}" if begun > 1 else "")


def _known(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
