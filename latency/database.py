"""The database under the store: its tables, how it is opened, and what its errors mean.

History of the format:
  1  meta, subjects, setups, contexts, rounds, visits, failures, discards
  2  notes: where a visit's model ran, and summaries; setups have batch_size and emulated
  3  splits: the kernels of probe networks, timed inside them; picks: why a block was timed
  4  searches, evaluations, finalists: what searches asked for, and what came out of them

Rows are only ever added. Rows that hold a measurement carry a CRC-32 of their content, since
SQLite notices a damaged page only where its structure broke.
"""

from __future__ import annotations

import shutil
import sqlite3
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import (
    URL,
    BigInteger,
    Column,
    Connection,
    Double,
    ForeignKey,
    Integer,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    create_engine,
    event,
    insert,
    inspect,
    make_url,
    select,
    update,
)
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError

from ..devices.errors import DamagedFileError, LatkitError, UsageError

FORMAT = "latkit.store"
VERSION = 4
FULL_BELOW_BYTES = 2**16
"""A disk with less free space is full: SQLite could not even grow its shared memory on it."""

BUSY_TIMEOUT_S = 60.0

_HEADER = struct.Struct(">16sH10xI")
"""Of an SQLite file: magic, page size, page count."""

_tables = MetaData()

meta = Table("meta", _tables, Column("format", Text), Column("version", Integer))
subjects = Table(
    "subjects",
    _tables,
    Column("id", Integer, primary_key=True),
    Column("key", Text, nullable=False, unique=True),
    Column("json", Text, nullable=False),
    Column("crc", BigInteger, nullable=False),
)
setups = Table(
    "setups",
    _tables,
    Column("id", Integer, primary_key=True),
    Column("key", Text, nullable=False, unique=True),
    Column("json", Text, nullable=False),
    Column("crc", BigInteger, nullable=False),
)
contexts = Table(
    "contexts",
    _tables,
    Column("sha256", Text, primary_key=True),
    Column("json", Text, nullable=False),
)
rounds = Table(
    "rounds",
    _tables,
    Column("id", Integer, primary_key=True),
    Column("setup_id", ForeignKey("setups.id"), nullable=False, index=True),
    Column("run_id", Text, nullable=False),
    Column("process", Integer, nullable=False),
    Column("round_index", Integer, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("accepted", Integer, nullable=False, index=True),
    Column("started_at", Double, nullable=False),
    Column("duration_s", Double, nullable=False),
    Column("canary_ns", Text, nullable=False),
    Column("canary_drift", Double, nullable=False),
    Column("context", Text, nullable=False),
    Column("info_sha256", ForeignKey("contexts.sha256"), nullable=False),
    Column("protocol", Text, nullable=False),
    Column("crc", BigInteger, nullable=False),
    UniqueConstraint("run_id", "process", "round_index", "attempt"),
)
visits = Table(
    "visits",
    _tables,
    Column("round_id", ForeignKey("rounds.id"), primary_key=True),
    Column("subject_id", ForeignKey("subjects.id"), primary_key=True, index=True),
    Column("eviction_bytes", BigInteger, primary_key=True),
    Column("samples_ns", Text, nullable=False),
    Column("preempted", Text),
    Column("crc", BigInteger, nullable=False),
)
notes = Table(
    "notes",
    _tables,
    Column("round_id", ForeignKey("rounds.id"), primary_key=True),
    Column("subject_id", ForeignKey("subjects.id"), primary_key=True, index=True),
    Column("eviction_bytes", BigInteger, primary_key=True),
    Column("json", Text, nullable=False),
    Column("crc", BigInteger, nullable=False),
)
failures = Table(
    "failures",
    _tables,
    Column("round_id", ForeignKey("rounds.id"), primary_key=True),
    Column("subject_id", ForeignKey("subjects.id"), primary_key=True, index=True),
    Column("eviction_bytes", BigInteger, primary_key=True),
    Column("cause", Text, nullable=False),
    Column("crc", BigInteger, nullable=False),
)
discards = Table(
    "discards",
    _tables,
    Column("round_id", ForeignKey("rounds.id"), primary_key=True),
    Column("reason", Text, nullable=False),
    Column("discarded_at", Double, nullable=False),
)
picks = Table(
    "picks",
    _tables,
    Column("id", Integer, primary_key=True),
    Column("setup_id", ForeignKey("setups.id"), nullable=False, index=True),
    Column("subject_id", ForeignKey("subjects.id"), nullable=False),
    Column("eviction_bytes", BigInteger, nullable=False),
    Column("at_random", Integer, nullable=False),
)
splits = Table(
    "splits",
    _tables,
    Column("id", Integer, primary_key=True),
    Column("setup_id", ForeignKey("setups.id"), nullable=False, index=True),
    Column("network", Text, nullable=False, index=True),
    Column("accepted", Integer, nullable=False),
    Column("started_at", Double, nullable=False),
    Column("duration_s", Double, nullable=False),
    Column("canary_ns", Text, nullable=False),
    Column("canary_drift", Double, nullable=False),
    Column("info_sha256", ForeignKey("contexts.sha256"), nullable=False),
    Column("json", Text, nullable=False),
    Column("crc", BigInteger, nullable=False),
)
searches = Table(
    "searches",
    _tables,
    Column("id", Integer, primary_key=True),
    Column("name", Text, nullable=False, index=True),
    Column("settings_sha256", Text, nullable=False),
    Column("settings", Text, nullable=False),
    Column("begun", Integer, nullable=False),
    Column("crc", BigInteger, nullable=False),
    UniqueConstraint("name", "settings_sha256", "begun"),
)
evaluations = Table(
    "evaluations",
    _tables,
    Column("id", Integer, primary_key=True),
    Column("search_id", ForeignKey("searches.id"), nullable=False),
    Column("strategy", Text, nullable=False),
    Column("number", Integer, nullable=False),
    Column("architecture", Text, nullable=False),
    Column("seed", BigInteger, nullable=False),
    Column("predicted_ms", Double, nullable=False),
    Column("accuracy", Double, nullable=False),
    Column("seconds", Double),
    Column("figures", Text, nullable=False),
    Column("crc", BigInteger, nullable=False),
    UniqueConstraint("search_id", "strategy", "number"),
)
finalists = Table(
    "finalists",
    _tables,
    Column("id", Integer, primary_key=True),
    Column("search_id", ForeignKey("searches.id"), nullable=False, index=True),
    Column("strategy", Text, nullable=False),
    Column("architecture", Text, nullable=False),
    Column("predicted_ms", Double, nullable=False),
    Column("measured_ms", Double, nullable=False),
    Column("accuracy", Double),
    Column("crc", BigInteger, nullable=False),
)


class Database:
    """An opened database of the store's tables.

    `address` is a path, which is an SQLite file, or an SQLAlchemy URL. `create` makes it where it
    isn't there. Raises `DamagedFileError` for a file that is damaged or newer, `UsageError` for one
    that can't be opened or is no store.
    """

    def __init__(self, address: str | Path, *, create: bool = True) -> None:
        self.url = _url(address)
        self.path = _sqlite_path(self.url)
        self.name = str(self.path or self.url.render_as_string(hide_password=True))
        if self.path is not None:
            _check_path(self.path, create)
            if _is_cut(self.path):
                raise self.damaged("its end is missing")
        try:
            self._engine = create_engine(self.url)
        except (ImportError, ArgumentError, NoSuchModuleError) as error:
            raise UsageError(f"can't open the store {self.name}: {error}") from error
        if self.path is not None:
            event.listen(self._engine, "connect", _set_up_sqlite)
            event.listen(self._engine, "begin", _begin_sqlite)
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let go of all connections."""
        self._engine.dispose()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection to read by; database errors become ours."""
        with self._errors(), self._engine.connect() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """One transaction: committed whole at the end of the block, or not at all."""
        with self._errors(), self._engine.connect() as connection:
            connection = connection.execution_options(latkit_writes=True)
            with connection.begin():
                yield connection

    def damaged(self, what: str) -> DamagedFileError:
        """The error for content that contradicts itself."""
        return DamagedFileError(
            f"the store {self.name} is damaged: {what}. Copy what `sqlite3 FILE .recover` gives, "
            "restore a backup, or begin a new store."
        )

    def _open(self) -> None:
        if self.path is not None:
            with self.reading() as connection:
                _set_write_ahead_log(connection)
                self._check_structure(connection)
        with self.reading() as connection:
            present = set(inspect(connection).get_table_names())
        if not present:
            with self.writing() as connection:
                self._create(connection)
        elif meta.name not in present:
            raise UsageError(f"{self.name} is a database, but no latkit store. Name another file.")
        with self.reading() as connection:
            found = connection.execute(select(meta.c.format, meta.c.version)).all()
        if self._checked_version([tuple(row) for row in found]) < VERSION:
            with self.writing() as connection:
                _tables.create_all(connection)
                connection.execute(update(meta).values(version=VERSION))

    def _create(self, connection: Connection) -> None:
        # Another process may have made it since we looked; writers wait for one another.
        if not inspect(connection).has_table(meta.name):
            _tables.create_all(connection)
            connection.execute(insert(meta).values(format=FORMAT, version=VERSION))

    def _check_structure(self, connection: Connection) -> None:
        for pragma in ("integrity_check(1)", "foreign_key_check"):
            problems = connection.exec_driver_sql(f"PRAGMA {pragma}").all()
            if problems and problems[0][0] != "ok":
                raise self.damaged(f"{pragma.partition('(')[0]} says {tuple(problems[0])}")

    def _checked_version(self, found: list[tuple[Any, ...]]) -> int:
        match found:
            case [(str() as name, int() as version)] if name == FORMAT and version >= 1:
                if version > VERSION:
                    raise DamagedFileError(
                        f"the store {self.name} has version {version}; this latkit reads up to "
                        f"{VERSION}. Install a newer latkit."
                    )
                return version
            case _:
                raise self.damaged(f"its format reads {found}")

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except DBAPIError as error:
            raise self._translated(error.orig) from error
        except sqlite3.Error as error:
            raise self._translated(error) from error
        except UnicodeDecodeError as error:
            # SQLite's message quotes the file, where it is no text.
            raise self.damaged("it holds text that is no UTF-8") from error

    def _disk_is_full(self) -> bool:
        """Whether the store's disk is: its shared memory then fails with no better error."""
        folder = Path(self.name).parent
        return folder.is_dir() and shutil.disk_usage(folder).free < FULL_BELOW_BYTES

    def _translated(self, error: BaseException | None) -> LatkitError:
        text = str(error)
        code = getattr(error, "sqlite_errorname", "")
        if isinstance(error, sqlite3.OperationalError) and not code:
            code = "SQLITE_CORRUPT"  # Python's own: text that is no UTF-8.
        if code == "SQLITE_FULL" or (code.startswith("SQLITE_IOERR") and self._disk_is_full()):
            return LatkitError(
                f"can't write to the store {self.name}: the database or disk is full. Nothing is "
                "lost: all rounds before this one are stored. Free some space and run the command "
                "again; it goes on from there."
            )
        if code.startswith("SQLITE_READONLY"):
            return UsageError(f"can't write to the store {self.name}: {text}")
        if code.startswith(("SQLITE_CANTOPEN", "SQLITE_PERM", "SQLITE_AUTH")):
            return UsageError(f"can't open the store {self.name}: {text}")
        if code.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
            return LatkitError(
                f"the store {self.name} has been locked by another process for "
                f"{BUSY_TIMEOUT_S:.0f} s. Run the command again when that one is done."
            )
        if code.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_ERROR", "SQLITE_MISMATCH")):
            return self.damaged(text)
        return LatkitError(f"the store {self.name} failed: {text}")


def _url(address: str | Path) -> URL:
    text = str(address)
    if isinstance(address, str) and "://" in text:
        try:
            return make_url(text)
        except ArgumentError as error:
            raise UsageError(f"can't read the store's address {text!r}: {error}") from error
    return URL.create("sqlite", database=text)


def _sqlite_path(url: URL) -> Path | None:
    if url.get_backend_name() != "sqlite":
        return None
    if not url.database or url.database == ":memory:":
        raise UsageError("a store in memory would not outlive this process; name a file")
    return Path(url.database)


def _check_path(path: Path, create: bool) -> None:
    if not path.parent.is_dir():
        raise UsageError(f"can't open the store {path}: there is no folder {path.parent}")
    if path.is_dir():
        raise UsageError(f"can't open the store {path}: it is a folder; name a file")
    if not create and not path.exists():
        raise UsageError(f"there is no store {path}. `latkit profile` makes one.")


def _is_cut(path: Path) -> bool:
    """Whether the file is shorter than its header says; SQLite reads what is missing as zeros.

    While there is a write-ahead log, its end may rightly be in there.
    """
    log = path.with_name(f"{path.name}-wal")
    if log.exists() or not path.exists():
        return False
    try:
        with path.open("rb") as file:
            header = file.read(_HEADER.size)
            size_bytes = file.seek(0, 2)
    except OSError as error:
        raise UsageError(f"can't open the store {path}: {error.strerror}") from error
    if len(header) < _HEADER.size or log.exists():
        return False
    magic, page_bytes, pages = _HEADER.unpack(header)
    page_bytes = 65536 if page_bytes == 1 else page_bytes
    return bool(magic == b"SQLite format 3\0" and size_bytes < page_bytes * pages)


def _set_up_sqlite(connection: Any, _record: Any) -> None:
    # Python's own transaction control begins late and never for DDL; ours is in _begin_sqlite.
    connection.isolation_level = None
    connection.execute(f"PRAGMA busy_timeout = {int(BUSY_TIMEOUT_S * 1000)}")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get("latkit_writes", False)
    # A transaction that reads first and writes later can't wait for another writer.
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _set_write_ahead_log(connection: Connection) -> None:
    """Switch a file to WAL once. The switch itself does not wait for others, so it is tried."""
    raw: Any = connection.connection.driver_connection
    mode = connection.exec_driver_sql("PRAGMA journal_mode").scalar()
    connection.rollback()
    deadline = time.monotonic() + BUSY_TIMEOUT_S
    while mode != "wal":
        try:
            raw.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if time.monotonic() > deadline or "locked" not in str(error):
                raise
            time.sleep(0.05)
