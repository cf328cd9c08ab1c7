"""The store of all measurements: rounds as they came, and measurements as queries over them."""

from __future__ import annotations

import hashlib
import json
import statistics
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import ValidationError
from sqlalchemy import ColumnElement, Connection, Row, Select, Table, and_, func, insert, select

from ..devices.convert import default_cache
from ..devices.device import ModelKey, Round, Setup, TimingProtocol, Visit
from ..devices.errors import UsageError
from ..devices.measurement import Measurement, is_timed, measurement
from . import database, rows
from .database import Database
from .kernel_run import KernelRun
from .subject import Subject, subject_from_json, subject_id, subject_to_json

DEFAULT_STORE = "latkit.sqlite"

FRAME_COLUMNS = [
    *("model", "eviction_bytes", "median_ms", "low_ms", "high_ms", "spread", "p5_ms", "p95_ms"),
    "statistic",
    *("samples", "rounds", "verdict", "reasons"),
    *(item.name for item in fields(Setup)),
]

RoundKey = tuple[str, int, int, int]
"""Identity of a round: run id, process, index, attempt."""


def round_key(item: Round) -> RoundKey:
    """Identity of a round, equal exactly for the same round."""
    return (item.run_id, item.process, item.index, item.attempt)


class Store:
    """Append-only store of rounds, in an SQLite file or in another database by its URL.

    What was stored is never changed: `discard` adds a row that makes queries skip a round. Each
    round is one transaction, so a kill costs at most the round that was under way. Several
    processes may use one store at a time.

    Raises `UsageError` where the file can't be opened or is no store, `DamagedFileError` where it
    is damaged or newer, `LatkitError` where it can't be written (a full disk).
    """

    def __init__(self, address: str | Path, *, create: bool = True) -> None:
        self._database = Database(address, create=create)
        self._ids: dict[str, int] = {}

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __str__(self) -> str:
        return self._database.name

    def close(self) -> None:
        """Let go of the database. All that was added is stored already."""
        self._database.close()

    @property
    def database(self) -> Database:
        """The database under it, for tables that others keep in the same store."""
        return self._database

    @property
    def model_folder(self) -> Path:
        """Where the subjects' .onnx files lie: beside the file, else in the user's cache."""
        path = self._database.path
        if path is None:
            return default_cache() / "models"
        return path.with_name(f"{path.name}.models")

    def add_subject(self, subject: Subject) -> str:
        """Make a subject known, so that rounds can name it; return its id."""
        return self.add_subjects([subject])[0]

    def add_subjects(self, subjects: Sequence[Subject]) -> list[str]:
        """Make subjects known, in one transaction; return their ids."""
        keys = [subject_id(subject) for subject in subjects]
        new = {
            key: subject
            for key, subject in zip(keys, subjects, strict=True)
            if key not in self._ids
        }
        if new:
            with self._database.writing() as connection:
                added = {
                    key: _id_of(connection, database.subjects, key, subject_to_json(subject))
                    for key, subject in new.items()
                }
            self._ids.update(added)
        return keys

    def add_round(
        self, setup: Setup, protocol: TimingProtocol, info: Mapping[str, Any], item: Round
    ) -> None:
        """Add one round, in one transaction.

        `info` is what the device said about itself, stored once however many rounds share it.
        Raises `UsageError` for a model whose subject was not added.
        """
        with self._database.writing() as connection:
            setup_id = _id_of(connection, database.setups, setup.key, asdict(setup))
            values = rows.round_values(setup_id, _info(connection, info), protocol, item)
            round_id = _insert(connection, database.rounds, values)
            visits = [
                rows.visit_values(round_id, self._known(connection, model), size, visit)
                for (model, size), visit in item.visits.items()
            ]
            failures = [
                rows.failure_values(round_id, self._known(connection, model), size, cause)
                for (model, size), cause in item.failures.items()
            ]
            notes = [
                rows.note_values(round_id, self._known(connection, model), size, visit)
                for (model, size), visit in item.visits.items()
                if visit.placement is not None or visit.summary is not None
            ]
            for table, added in (
                (database.visits, visits),
                (database.notes, notes),
                (database.failures, failures),
            ):
                if added:
                    connection.execute(insert(table), added)

    def add_kernel_run(self, setup: Setup, info: Mapping[str, Any], run: KernelRun) -> None:
        """Add one timing of a probe network, in one transaction; `info` as in `add_round`."""
        with self._database.writing() as connection:
            setup_id = _id_of(connection, database.setups, setup.key, asdict(setup))
            values = rows.kernel_run_values(setup_id, _info(connection, info), run)
            connection.execute(insert(database.splits).values(values))

    def kernel_runs(self, setup: Setup) -> list[KernelRun]:
        """All timings of probe networks on a setup, in the order stored."""
        query = (
            select(database.splits)
            .join(database.setups)
            .where(database.setups.c.key == setup.key)
            .order_by(database.splits.c.id)
        )
        with self._database.reading() as connection:
            found = connection.execute(query).all()
        for row in found:
            self._check(row[1:])
        try:
            return [rows.read_kernel_run(row) for row in found]
        except ValueError as error:
            raise self._database.damaged(f"it holds a kernel run that is none: {error}") from error

    def add_picks(self, setup: Setup, models: Sequence[ModelKey], *, at_random: bool) -> None:
        """Note why these models are timed: drawn at random, or because a model was unsure of them.

        Raises `UsageError` for a model whose subject was not added.
        """
        with self._database.writing() as connection:
            setup_id = _id_of(connection, database.setups, setup.key, asdict(setup))
            added = [
                {
                    "setup_id": setup_id,
                    "subject_id": self._known(connection, model),
                    "eviction_bytes": size,
                    "at_random": int(at_random),
                }
                for model, size in models
            ]
            if added:
                connection.execute(insert(database.picks), added)

    def picks(self, setup: Setup) -> dict[ModelKey, bool]:
        """The models that `add_picks` noted, the first first, and whether any note says at random.

        What is not among them was timed for its own sake.
        """
        query = (
            select(
                database.subjects.c.key, database.picks.c.eviction_bytes, database.picks.c.at_random
            )
            .select_from(database.picks)
            .join(database.setups)
            .join(database.subjects)
            .where(database.setups.c.key == setup.key)
            .order_by(database.picks.c.id)
        )
        found: dict[ModelKey, bool] = {}
        with self._database.reading() as connection:
            for row in connection.execute(query):
                key = (row.key, row.eviction_bytes)
                found[key] = found.get(key, False) or bool(row.at_random)
        return found

    def discard(self, rounds: Iterable[Round], reason: str) -> None:
        """Make queries skip these rounds from now on. The rounds themselves stay stored."""
        with self._database.writing() as connection:
            for item in rounds:
                found = connection.execute(
                    select(database.rounds.c.id, database.discards.c.reason)
                    .outerjoin(database.discards)
                    .where(_is_round(item))
                ).first()
                if found is None:
                    raise UsageError(f"the store {self} holds no round {round_key(item)}")
                if found.reason is None:
                    values = {"round_id": found.id, "reason": reason, "discarded_at": time.time()}
                    connection.execute(insert(database.discards).values(values))

    def setups(self) -> list[Setup]:
        """Every setup that has rounds, the first stored first."""
        with self._database.reading() as connection:
            found = connection.execute(select(database.setups).order_by(database.setups.c.id)).all()
        return [self._setup(row) for row in found]

    def subjects(self) -> dict[str, Subject]:
        """Every subject by its id."""
        with self._database.reading() as connection:
            found = connection.execute(select(database.subjects)).all()
        return {row.key: self._subject(row) for row in found}

    def subject(self, key: str) -> Subject:
        """The subject of this id; `UsageError` where the store knows none."""
        with self._database.reading() as connection:
            found = connection.execute(
                select(database.subjects).where(database.subjects.c.key == key)
            ).first()
        if found is None:
            raise UsageError(f"the store {self} knows no subject {key}")
        return self._subject(found)

    def rounds(self, setup: Setup, model: ModelKey | None = None) -> list[Round]:
        """The rounds of a setup in the order stored; of one model, with its visits alone.

        Rounds that were not accepted are among them; discarded ones are not.
        """
        return self._load(setup) if model is None else self._load(setup, *model)

    def finished_rounds(self, setup: Setup) -> dict[ModelKey, int]:
        """How many accepted rounds each model has."""
        query = (
            select(
                database.subjects.c.key,
                database.visits.c.eviction_bytes,
                func.count().label("finished"),
            )
            .select_from(database.visits)
            .join(database.rounds)
            .join(database.setups)
            .join(database.subjects)
            .where(database.setups.c.key == setup.key, database.rounds.c.accepted == 1, _kept())
            .group_by(database.subjects.c.key, database.visits.c.eviction_bytes)
        )
        with self._database.reading() as connection:
            found = connection.execute(query).all()
        return {(row.key, row.eviction_bytes): row.finished for row in found}

    def canary_medians_ns(self, setup: Setup) -> list[float]:
        """The canary's median in every round of a setup, accepted or not."""
        query = (
            select(database.rounds.c.canary_ns)
            .join(database.setups)
            .where(database.setups.c.key == setup.key, _kept())
        )
        with self._database.reading() as connection:
            found = connection.execute(query).all()
        canaries = [json.loads(row.canary_ns) for row in found]
        return [statistics.median(samples) for samples in canaries if samples]

    def failures(self, setup: Setup) -> dict[ModelKey, str]:
        """The models that failed when they were last tried, and why."""
        last: dict[ModelKey, str] = {}
        for item in self._load(setup):
            for key in item.visits:
                last.pop(key, None)
            last.update(item.failures)
        return last

    def measurement(self, setup: Setup, model: ModelKey) -> Measurement | None:
        """A model's measurement; `None` where it was never tried.

        Raises `DeviceError`, with the cause, where it was tried and has no accepted round.
        """
        found = self.rounds(setup, model)
        return measurement(model, setup, found) if found else None

    def measurements(
        self, setup: Setup, eviction_bytes: int | None = None
    ) -> dict[str, Measurement]:
        """The measurements of all models at one eviction size, by model id.

        Without `eviction_bytes` the setup must hold a single size; `UsageError` names them
        otherwise. Models without an accepted round are left out; see `failures`.
        """
        if eviction_bytes is None:
            sizes = self.eviction_sizes(setup)
            if len(sizes) > 1:
                listed = ", ".join(map(str, sizes))
                raise UsageError(f"{setup.key} was measured at eviction sizes {listed}; choose one")
            eviction_bytes = sizes[0] if sizes else 0
        found = self.all_measurements(setup, eviction_bytes)
        return {key[0]: item for key, item in found.items()}

    def all_measurements(
        self, setup: Setup, eviction_bytes: int | None = None
    ) -> dict[ModelKey, Measurement]:
        """The measurements of all models at one or at all eviction sizes, in one pass."""
        by_model: dict[ModelKey, list[Round]] = {}
        timed: set[ModelKey] = set()
        for item in self._load(setup, None, eviction_bytes):
            if item.accepted:
                timed.update(key for key, visit in item.visits.items() if is_timed(visit))
                for key in item.visits.keys() | item.failures.keys():
                    by_model.setdefault(key, []).append(item)
        return {key: measurement(key, setup, by_model[key]) for key in sorted(timed)}

    def eviction_sizes(self, setup: Setup) -> list[int]:
        """The eviction sizes that a setup's models were measured at, ascending."""
        return sorted({size for _, size in self.finished_rounds(setup)})

    def device_info(self, setup: Setup) -> dict[str, Any]:
        """What the device said about itself when this setup's last round was measured.

        Where there are only timings of probe networks, when the last of those was.
        """
        found = None
        with self._database.reading() as connection:
            for table in (database.rounds, database.splits):
                query = (
                    select(database.contexts)
                    .select_from(table)
                    .join(database.contexts)
                    .join(database.setups)
                    .where(database.setups.c.key == setup.key)
                    .order_by(table.c.id.desc())
                    .limit(1)
                )
                found = found or connection.execute(query).first()
        if found is None:
            raise UsageError(f"the store {self} holds nothing of {setup.key}")
        if hashlib.sha256(found.json.encode()).hexdigest() != found.sha256:
            raise self._database.damaged(f"the context {found.sha256} has another checksum")
        info: dict[str, Any] = json.loads(found.json)
        return info

    def frame(self) -> pd.DataFrame:
        """All measurements as a table, a row for each; `to_csv` writes it to a file."""
        measured = [
            {
                "model": key[0],
                "eviction_bytes": key[1],
                "median_ms": item.median_ms,
                "low_ms": item.low_ms,
                "high_ms": item.high_ms,
                "spread": item.spread,
                "p5_ms": None if item.p5_ns is None else item.p5_ns / 1e6,
                "p95_ms": None if item.p95_ns is None else item.p95_ns / 1e6,
                "statistic": item.statistic,
                "samples": item.sample_count,
                "rounds": len(item.rounds),
                "verdict": item.verdict.kind,
                "reasons": "; ".join(item.verdict.reasons),
                **asdict(setup),
                "cores": "" if setup.cores is None else " ".join(map(str, setup.cores)),
            }
            for setup in self.setups()
            for key, item in self.all_measurements(setup).items()
        ]
        return pd.DataFrame(measured, columns=FRAME_COLUMNS)

    def _load(
        self, setup: Setup, model_id: str | None = None, eviction_bytes: int | None = None
    ) -> list[Round]:
        """Rounds of a setup that were not discarded, with the visits and failures asked for."""

        def narrowed(table: Table) -> Select[Any]:
            query = (
                select(database.subjects.c.key, table)
                .join(database.rounds, table.c.round_id == database.rounds.c.id)
                .join(database.setups)
                .join(database.subjects)
                .where(database.setups.c.key == setup.key, _kept())
            )
            if model_id is not None:
                query = query.where(database.subjects.c.key == model_id)
            if eviction_bytes is not None:
                query = query.where(table.c.eviction_bytes == eviction_bytes)
            return query

        notes: dict[tuple[int, ModelKey], str] = {}
        visits: dict[int, dict[ModelKey, Visit]] = {}
        failures: dict[int, dict[ModelKey, str]] = {}
        with self._database.reading() as connection:
            for row in connection.execute(narrowed(database.notes)):
                self._check(row[1:])
                notes[row.round_id, (row.key, row.eviction_bytes)] = row.json
            for row in connection.execute(narrowed(database.visits)):
                self._check(row[1:])
                key = (row.key, row.eviction_bytes)
                visit = rows.read_visit(row, notes.get((row.round_id, key)))
                visits.setdefault(row.round_id, {})[key] = visit
            for row in connection.execute(narrowed(database.failures)):
                self._check(row[1:])
                failures.setdefault(row.round_id, {})[row.key, row.eviction_bytes] = row.cause
            found = connection.execute(
                select(database.rounds)
                .join(database.setups)
                .where(database.setups.c.key == setup.key, _kept())
                .order_by(database.rounds.c.id)
            ).all()
        for row in found:
            self._check(row[1:])
        whole = model_id is None and eviction_bytes is None
        return [
            rows.read_round(row, visits.get(row.id, {}), failures.get(row.id, {}))
            for row in found
            if whole or row.id in visits or row.id in failures
        ]

    def _check(self, row: Sequence[Any]) -> None:
        if not rows.is_intact(row):
            raise self._database.damaged(f"the checksum of a row is wrong: {str(row)[:200]}")

    def _known(self, connection: Connection, model_id: str) -> int:
        """Id of a subject's row."""
        if model_id not in self._ids:
            subjects = database.subjects.c
            query = select(subjects.id).where(subjects.key == model_id)
            found = connection.execute(query).scalar_one_or_none()
            if found is None:
                raise UsageError(f"the store {self} knows no subject {model_id}; add it first")
            self._ids[model_id] = found
        return self._ids[model_id]

    def _setup(self, row: Row[Any]) -> Setup:
        self._check(row[1:])
        try:
            return rows.read_setup(row.json)
        except ValidationError as error:
            raise self._database.damaged(f"it holds the setup {row.json}") from error

    def _subject(self, row: Row[Any]) -> Subject:
        self._check(row[1:])
        return subject_from_json(json.loads(row.json), f"subject {row.key} of the store {self}")


def _id_of(connection: Connection, table: Table, key: str, values: Mapping[str, Any]) -> int:
    """Id of the subject or setup with this key; it is added where it isn't there."""
    found = connection.execute(select(table.c.id).where(table.c.key == key)).scalar_one_or_none()
    if found is None:
        return _insert(connection, table, rows.keyed_values(key, values))
    return int(found)


def _insert(connection: Connection, table: Table, values: Mapping[str, Any]) -> int:
    """Insert one row and return its id."""
    inserted = connection.execute(insert(table).values(values)).inserted_primary_key
    assert inserted is not None
    return int(inserted[0])


def _info(connection: Connection, info: Mapping[str, Any]) -> str:
    """Checksum of the device's information; it is added where it isn't there."""
    text = rows.to_text(info)
    sha256 = hashlib.sha256(text.encode()).hexdigest()
    known = select(database.contexts.c.sha256).where(database.contexts.c.sha256 == sha256)
    if connection.execute(known).first() is None:
        connection.execute(insert(database.contexts).values(sha256=sha256, json=text))
    return sha256


def _kept() -> ColumnElement[bool]:
    """Condition that a round was not discarded."""
    return database.rounds.c.id.not_in(select(database.discards.c.round_id))


def _is_round(item: Round) -> ColumnElement[bool]:
    columns = database.rounds.c
    return and_(
        columns.run_id == item.run_id,
        columns.process == item.process,
        columns.round_index == item.index,
        columns.attempt == item.attempt,
    )
