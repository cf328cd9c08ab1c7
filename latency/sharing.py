r"""Latency tables for others, and those of others: CSV and JSON files in and out.

>>> from pathlib import Path
>>> from tempfile import TemporaryDirectory
>>> from latkit.devices.device import Setup
>>> from latkit.latency.sharing import export_table, import_table
>>> folder = TemporaryDirectory()
>>> path = Path(folder.name) / "rows.csv"
>>> lines = ["kind,in_features,out_features,median_ms", "LinearBlock,64,10,0.25"]
>>> _ = path.write_text("\n".join([*lines, "LinearBlock,64,20,-1.0"]))
>>> imported = import_table(path, Setup("a phone", "tflite", "2.3"))
>>> [(row.row, row.value, row.cause) for row in imported.refused]
[(3, '-1.0', 'the latency is negative')]
>>> table = imported.accept(skip_bad_rows=True)  # DamagedFileError without it
>>> export_table(table, Path(folder.name) / "table.csv")
>>> import_table(Path(folder.name) / "table.csv").accept() == table
True
>>> folder.cleanup()
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..devices.device import Setup
from ..devices.errors import DamagedFileError, LatkitError, UsageError
from ..devices.files import write_atomically
from .table import LatencyTable
from .table_records import about_of, columns_of, read_record
from .table_rows import RefusedRow, collect, refusal, shown
from .third_party import FORMS

DEVICE_COLUMN = "device"
"""Where a published table holds several devices, the column that names them."""

VALUES_SHOWN = 30


@dataclass(frozen=True)
class ImportedTable:
    """What was read of a shared table: the good rows as a table, and those refused, with causes.

    `form` says whose table it is: `latkit`, or a name of `FORMS`.
    """

    name: str
    form: str
    table: LatencyTable
    refused: tuple[RefusedRow, ...]

    def is_usable(self, skip_bad_rows: bool) -> bool:
        """Whether no row is refused, or with `skip_bad_rows` any other is left."""
        return not self.refused or (skip_bad_rows and bool(self.table.entries))

    def accept(self, skip_bad_rows: bool = False) -> LatencyTable:
        """The table; `DamagedFileError` that lists the refused rows where it is not usable."""
        if not self.is_usable(skip_bad_rows):
            raise refusal(self.name, self.refused, len(self.table.entries))
        return self.table


def export_table(table: LatencyTable, path: Path) -> None:
    """Write a table as `.csv` or `.json`, one row or record for each block; see `import_table`.

    `pandas.read_csv` and `pandas.read_json` read it in one call (to the last digit, as
    `import_table` does, with `precise_float=True`, and before pandas 3 with
    `float_precision="round_trip"`). `UsageError` for another suffix, and a table without blocks.
    """
    records = table.records()
    match path.suffix:
        case ".csv":
            text = io.StringIO()
            writer = csv.DictWriter(text, columns_of(records), restval="", lineterminator="\n")
            writer.writeheader()
            writer.writerows(records)
            content = text.getvalue()
        case ".json":
            lines = (
                json.dumps({name: cell for name, cell in record.items() if cell is not None})
                for record in records
            )
            content = "[\n" + ",\n".join(lines) + "\n]\n"
        case _:
            raise UsageError(f"{path}: a table is exported as .csv or .json; name it so")
    write_atomically(path, content.encode())


def import_table(
    path: Path,
    setup: Setup | None = None,
    *,
    channel_grid: int = 8,
    where: Mapping[str, str] | None = None,
) -> ImportedTable:
    """Read a shared table: `.csv` or `.json` records, each also as `.gz`.

    It is one that `export_table` wrote, or Once-for-All's or TF-NAS's block table, known by its
    columns (see latency/sharing_third_party.py), or rows of your own with a block's `kind` and
    fields and `median_ms`. All but the first do not say what they were measured on: that is
    `setup`, and `channel_grid` (widths between which the table may interpolate). They know no
    networks, so that these are plain sums, not calibrated. Of the rows only those are taken that
    have the values of `where` in its columns.

    Raises `UsageError` where the file can't be read, is in no known form, or holds several
    devices of which `where` names none; `DamagedFileError` where it is broken as a whole.
    """
    name = str(path)
    numbered, columns, broken = _read(path)
    chosen = _choose(name, numbered, columns, where or {})
    records = [record for _, record in chosen]
    for form in FORMS:
        if form.columns <= set(columns):
            _check_one_device(name, records)
            about, form_name, read = None, form.name, form.read
            break
    else:
        if not {"kind", "median_ms"} <= set(columns):
            raise UsageError(
                f"{name} has the columns {', '.join(map(shown, columns))}. A table has "
                "kind and median_ms (latkit's), "
                + ", or ".join(f"{' and '.join(sorted(f.columns))} ({f.name}'s)" for f in FORMS)
            )
        about, form_name, read = (
            _about(name, [record for _, record in numbered]),
            "latkit",
            read_record,
        )
    entries, refused = collect([*broken, *(read(number, record) for number, record in chosen)])
    try:
        table = LatencyTable.of_entries(about, entries, setup, channel_grid)
    except LatkitError as error:
        raise type(error)(f"{name}: {error}") from error
    return ImportedTable(name, form_name, table, refused)


Numbered = list[tuple[int, dict[str, Any]]]


def _read(path: Path) -> tuple[Numbered, list[str], list[RefusedRow]]:
    """Numbered rows, columns, and the rows that are broken as such."""
    suffixes = path.suffixes[-2:]
    packed = suffixes[-1:] == [".gz"]
    form = suffixes[0] if packed else path.suffix
    if form not in (".csv", ".json"):
        raise UsageError(f"{path}: a table is imported from .csv or .json, each also as .gz")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UsageError(f"can't read {path}: {error.strerror}") from error
    try:
        text = (gzip.decompress(content) if packed else content).decode("utf-8-sig")
        return _csv_rows(text) if form == ".csv" else _json_records(path, text)
    except (OSError, EOFError, zlib.error, csv.Error, ValueError, RecursionError) as error:
        raise DamagedFileError(f"{path} is no {form[1:]} file: {error}") from error


def _csv_rows(text: str) -> tuple[Numbered, list[str], list[RefusedRow]]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    columns = next(reader, [])
    if len(set(columns)) != len(columns):
        raise ValueError(f"two columns have one name: {', '.join(columns)}")
    rows: Numbered = []
    broken = []
    line = reader.line_num
    for cells in reader:
        first, line = line + 1, reader.line_num
        if len(cells) == len(columns):
            rows.append((first, dict(zip(columns, cells, strict=True))))
        elif cells:
            cause = f"it has {len(cells)} cells, and the header {len(columns)}"
            broken.append(RefusedRow(first, shown(",".join(cells)), "", "broken row", cause))
    return rows, columns, broken


def _json_records(path: Path, text: str) -> tuple[Numbered, list[str], list[RefusedRow]]:
    data = json.loads(text)
    if isinstance(data, dict) and "format" in data:
        raise UsageError(f"{path} is a latkit document as it stands: nothing is to be imported")
    if not isinstance(data, list):
        raise UsageError(f"{path}: a list of records is needed, one for each block")
    rows = [(number, item) for number, item in enumerate(data, 1) if isinstance(item, dict)]
    broken = [
        RefusedRow(number, shown(item), "", "broken row", "it is no record")
        for number, item in enumerate(data, 1)
        if not isinstance(item, dict)
    ]
    return rows, list(dict.fromkeys(name for _, item in rows for name in item)), broken


def _choose(
    name: str, rows: Numbered, columns: Sequence[str], where: Mapping[str, str]
) -> Numbered:
    for column, wanted in where.items():
        if column not in columns:
            raise UsageError(f"{name} has no column {column}; it has {', '.join(columns)}")
        found = [(number, row) for number, row in rows if str(row.get(column)) == wanted]
        if rows and not found:
            known = sorted({shown(row.get(column)) for _, row in rows})
            raise UsageError(
                f"{name} has no row with {column}={wanted}; there are "
                + ", ".join(known[:VALUES_SHOWN])
            )
        rows = found
    return rows


def _check_one_device(name: str, records: Sequence[Mapping[str, Any]]) -> None:
    devices = sorted({shown(row[DEVICE_COLUMN]) for row in records if DEVICE_COLUMN in row})
    if len(devices) > 1:
        raise UsageError(
            f"{name} holds several devices: {', '.join(devices[:VALUES_SHOWN])}. Choose one "
            f"by --where {DEVICE_COLUMN}={devices[0]}, say."
        )


def _about(name: str, records: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    try:
        return about_of(records)
    except DamagedFileError as error:
        raise DamagedFileError(f"{name}: {error}") from error
