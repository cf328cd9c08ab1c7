"""Table of a device on which few blocks were measured and the others predicted from other devices.

File: a latkit document `adapted_table`. Version 1: setup, eviction_bytes, coverage, sources (the
keys of their setups) and entries (block, latency, interval, measured or predicted).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ...devices.device import Setup
from ...devices.errors import DamagedFileError, UsageError
from ..blocks import Block
from ..calibration import is_timed
from ..document import read_document, write_document
from ..subject import block_from_json, subject_to_json
from ..table import Estimate, LatencyTable
from .blocks import DescribedBlocks, block_latencies
from .predictor import COVERAGE, TransferPredictor
from .sources import Sources, learn_sources

KIND = "adapted_table"
VERSION = 1


@dataclass(frozen=True)
class AdaptedTable:
    """Blocks and their latencies on `setup`: measured, or predicted from `sources`.

    The interval of a predicted block holds its latency with probability `coverage`; that of a
    measured one is its measurement's. `sources` are the keys of the setups that it was made from.
    """

    setup: Setup
    eviction_bytes: int
    coverage: float
    sources: tuple[str, ...]
    entries: Mapping[Block, Estimate]

    def estimate(self, block: Block) -> Estimate:
        """Latency of one block timed alone; `UsageError` for a block that the table lacks."""
        if not is_timed(block):
            return Estimate(0.0, 0.0, 0.0, "measured", "no operation")
        if block not in self.entries:
            raise UsageError(
                f"{block} is in none of the tables that this one was made from. Make it again with "
                "the block among those to predict."
            )
        return self.entries[block]

    def frame(self) -> pd.DataFrame:
        """One row for each block: its kind and fields, latency, interval and source."""
        rows = [
            {**subject_to_json(block), **asdict(entry)} for block, entry in self.entries.items()
        ]
        return pd.DataFrame(rows)

    def save(self, path: Path) -> None:
        """Write the table as a latkit document (JSON)."""
        body = {
            "setup": asdict(self.setup),
            "eviction_bytes": self.eviction_bytes,
            "coverage": self.coverage,
            "sources": list(self.sources),
            "entries": [
                {"block": subject_to_json(block), **asdict(entry)}
                for block, entry in sorted(self.entries.items(), key=lambda item: item[0].key)
            ],
        }
        write_document(path, KIND, VERSION, body)

    @classmethod
    def load(cls, path: Path) -> AdaptedTable:
        """Read a table; `DamagedFileError` where it is damaged or newer than this latkit."""
        document = read_document(path, KIND, VERSION)
        try:
            body = _Body.model_validate_json(json.dumps(document, allow_nan=False), strict=True)
            entries = {
                block_from_json(item.block, f"entry {index}"): Estimate(
                    item.latency_ms, item.low_ms, item.high_ms, item.source, item.reason
                )
                for index, item in enumerate(body.entries)
            }
        except (UsageError, ValidationError, ValueError) as error:
            raise DamagedFileError(
                f"{path} holds no valid adapted table: {error}. Make it again with latkit adapt."
            ) from error
        return cls(body.setup, body.eviction_bytes, body.coverage, body.sources, entries)


def learn_tables(
    tables: Sequence[LatencyTable], more: Sequence[Block] = (), *, seed: int = 0
) -> tuple[tuple[Block, ...], Sources]:
    """All blocks of the tables and `more`, and what the tables teach about a new device.

    Raises `UsageError` where tables differ in precision or batch size, or tell of too few blocks.
    """
    if not tables:
        raise UsageError("at least one table of another device is needed")
    for name in ("precision", "batch_size"):
        found = {str(getattr(table.setup, name)) for table in tables}
        if len(found) > 1:
            raise UsageError(
                f"the tables are of more than one {name.replace('_', ' ')}: "
                f"{', '.join(sorted(found))}. Take tables of one."
            )
    known = block_latencies(tables, more)
    return known.blocks, learn_sources(
        DescribedBlocks.of(known.blocks), known.latency_ms, seed=seed
    )


def adapt_tables(
    tables: Sequence[LatencyTable],
    setup: Setup,
    measured: Mapping[Block, Estimate],
    *,
    eviction_bytes: int = 0,
    more: Sequence[Block] = (),
    coverage: float = COVERAGE,
    seed: int = 0,
) -> AdaptedTable:
    """The table of a new device from other devices' tables and few measured blocks.

    Predicts every block of `tables`, of `more` and of `measured`. Raises `UsageError` where the
    new device's precision or batch size is not the tables', or too few blocks were measured.
    """
    blocks, sources = learn_tables(tables, [*more, *measured], seed=seed)
    first = tables[0].setup
    if (setup.precision, setup.batch_size) != (first.precision, first.batch_size):
        raise UsageError(
            f"the new device was measured with {setup.precision} and batch size "
            f"{setup.batch_size}, the tables with {first.precision} and {first.batch_size}"
        )
    rows = {block: row for row, block in enumerate(blocks)}
    timed = {block: estimate for block, estimate in measured.items() if block in rows}
    predictor = TransferPredictor(sources).fit(
        np.array([rows[block] for block in timed], dtype=np.intp),
        [estimate.latency_ms for estimate in timed.values()],
    )
    latency, (low, high) = predictor.predict(), predictor.predict_interval(coverage=coverage)
    reason = f"from {len(timed)} measured blocks and {len(tables)} other devices"
    entries = {
        block: Estimate(float(middle), float(start), float(end), "predicted", reason)
        for block, middle, start, end in zip(blocks, latency, low, high, strict=True)
    }
    names = tuple(table.setup.key for table in tables)
    return AdaptedTable(setup, eviction_bytes, coverage, names, {**entries, **timed})


Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class _EntryBody(BaseModel):
    """One entry as it stands in a file."""

    model_config = ConfigDict(extra="forbid")
    block: dict[str, Any]
    latency_ms: Positive
    low_ms: Positive
    high_ms: Positive
    source: Literal["measured", "predicted"]
    reason: str


class _Body(BaseModel):
    """What a table's file holds, version 1."""

    model_config = ConfigDict(extra="forbid")
    setup: Setup
    eviction_bytes: Annotated[int, Field(ge=0)]
    coverage: Annotated[float, Field(gt=0, lt=1)]
    sources: tuple[str, ...]
    entries: list[_EntryBody]
