"""Latency table: measured blocks of one device and runtime, and what networks of them take."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from pydantic import ValidationError

from ..devices.device import Setup
from ..devices.errors import DamagedFileError, UsageError
from .blocks import Block
from .calibration import Calibration, block_terms, is_timed
from .counts import block_counts
from .document import read_document, write_document
from .interpolation import Family, comparable, family, nearest, off_grid, surrounding
from .network import Network
from .subject import subject_to_json
from .table_entry import Entry as Entry
from .table_entry import EvictionTrial as EvictionTrial
from .table_file import VERSION, TableAbout, TableBody, check_latencies, parse_about
from .table_records import about_of, columns_of, read_record, to_records
from .table_rows import collect, refusal

KIND = "latency_table"

EXTRAPOLATION_MARGIN = 0.5
"""How much wider than constant to proportional an extrapolated interval is, to either side."""

UNCALIBRATED = "plain sum of blocks, not calibrated on measured networks"
"""Why a network's estimate is not to be trusted where the table knows no networks."""

Source = Literal["measured", "interpolated", "extrapolated", "predicted"]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A latency with its interval, where it is from, and why it may be wrong."""

    latency_ms: float
    low_ms: float
    high_ms: float
    source: Source
    reason: str = ""


@dataclass(frozen=True)
class LatencyTable:
    """Blocks and their latencies on one setup, with the calibration to whole networks.

    All blocks were timed with the same `eviction_bytes`. Blocks that were not measured are
    interpolated over width, between measured ones on the grid of `channel_grid` channels.

    >>> from latkit.devices.device import Setup
    >>> from latkit.latency.blocks import Pointwise
    >>> from latkit.latency.calibration import Calibration
    >>> from latkit.latency.table import Entry, LatencyTable
    >>> block = Pointwise(in_channels=16, out_channels=32, height=14, width=14)
    >>> setup = Setup("my board", "litert", "2.3")
    >>> table = LatencyTable(setup, 0, 8, {block: Entry(0.05, 0.048, 0.053)}, Calibration())
    >>> table.estimate(block).latency_ms
    0.05
    >>> frame = table.frame()  # pandas; frame.to_csv(...) is what others read
    >>> frame[["kind", "out_channels", "median_ms", "verdict"]].values.tolist()
    [['Pointwise', 32, 0.05, 'stable']]
    >>> LatencyTable.from_frame(frame) == table
    True
    """

    setup: Setup
    eviction_bytes: int
    channel_grid: int
    entries: Mapping[Block, Entry]
    calibration: Calibration
    trials: tuple[EvictionTrial, ...] = ()
    _estimates: dict[Block, Estimate] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def estimate(self, block: Block) -> Estimate:
        """Latency of one block timed alone, uncalibrated.

        Raises `UsageError` where it was neither measured nor can be interpolated or extrapolated:
        no block like it was measured, or a width lies off the channel grid.
        """
        if block not in self._estimates:
            self._estimates[block] = self._estimate(block)
        return self._estimates[block]

    def network(self, network: Network) -> Estimate:
        """Calibrated latency of a whole network.

        The interval covers a new network of measured blocks with probability `COVERAGE`; blocks
        that are only estimated widen it by the width of their own. `source` is `predicted`, or
        the weakest source of a block.
        """
        latency_ms = sum(self.block_cost_ms(block) for block in network.blocks)
        latency_ms += self.calibration.constant_ms
        low_ms, high_ms = self.calibration.interval_ms(latency_ms)
        source: Source = "predicted"
        reasons = []
        for block in network.blocks:
            estimate = self.estimate(block)
            if estimate.source == "measured":
                continue
            low_ms -= self.calibration.scale * (estimate.latency_ms - estimate.low_ms)
            high_ms += self.calibration.scale * (estimate.high_ms - estimate.latency_ms)
            if source != "extrapolated":
                source = estimate.source
            reasons.append(f"{block}: {estimate.source}, {estimate.reason}")
        if self.calibration == Calibration():
            reasons.insert(0, UNCALIBRATED)
        return Estimate(latency_ms, max(0.0, low_ms), high_ms, source, "; ".join(reasons))

    def block_cost_ms(self, block: Block) -> float:
        """What the block adds to a network's calibrated latency; 0 for an identity.

        The costs of a network's blocks and `calibration.constant_ms` sum to its latency.
        """
        if not is_timed(block):
            return 0.0
        return self.calibration.cost_ms(block_terms(block, self.estimate(block).latency_ms))

    def check_setup(self, setup: Setup) -> None:
        """Raise `UsageError` where `setup` is not the one that the table was measured on."""
        if setup != self.setup:
            raise UsageError(
                f"the latency table is of {self.setup.key}, and does not hold for {setup.key}. "
                "Profile that device, or choose the one of the table."
            )

    def records(self) -> list[dict[str, Any]]:
        """A record for each measured block, and all else of the table in the first.

        latency/sharing_records.py says what the columns are. `UsageError` for an empty table.
        """
        if not self.entries:
            raise UsageError(f"the latency table of {self.setup.key} holds no block to share")
        return to_records({"version": VERSION, **self._about()}, self.entries)

    def frame(self) -> pd.DataFrame:
        """`records` as a data frame; `from_frame` takes it, also read back from a CSV file."""
        records = self.records()
        columns = {name: [record.get(name) for record in records] for name in columns_of(records)}
        # pandas' own arrays keep whole numbers whole where some are missing.
        return pd.DataFrame(
            {name: pd.array(cells) if None in cells else cells for name, cells in columns.items()}
        )

    @classmethod
    def from_frame(
        cls, frame: pd.DataFrame, setup: Setup | None = None, *, channel_grid: int = 8
    ) -> LatencyTable:
        """The table that `frame` gave, or one of hand-made rows: a block's fields, `median_ms`.

        `setup` and `channel_grid` are for rows that do not say what table they are of. Raises
        `DamagedFileError` that lists the rows that can't be used, if there are any.
        """
        records = [
            {str(name): cell for name, cell in row.items()} for row in frame.to_dict("records")
        ]
        entries, refused = collect(map(read_record, range(len(records)), records))
        if refused:
            raise refusal("the data frame", refused, len(entries))
        return cls.of_entries(about_of(records), entries, setup, channel_grid)

    @classmethod
    def of_entries(
        cls,
        about: Mapping[str, Any] | None,
        entries: Mapping[Block, Entry],
        setup: Setup | None,
        channel_grid: int,
    ) -> LatencyTable:
        """A table of shared entries: of what they say they are of, or of `setup`, uncalibrated.

        Raises `UsageError` where not exactly one of the two is known, `DamagedFileError` where
        `about` makes no sense or is newer.
        """
        if about is None:
            if setup is None:
                raise UsageError(
                    "the rows do not say what device they are of. Name it (--device-name)."
                )
            return cls(setup, 0, channel_grid, entries, Calibration())
        if setup is not None:
            raise UsageError(
                "the rows say themselves what device they are of. Name none (no --device-name)."
            )
        return cls._of(parse_about(about), entries)

    @classmethod
    def _of(cls, about: TableAbout, entries: Mapping[Block, Entry]) -> LatencyTable:
        return cls(
            about.setup,
            about.eviction_bytes,
            about.channel_grid,
            entries,
            about.calibration,
            about.trials,
        )

    def _about(self) -> dict[str, Any]:
        """All but the entries, as plain JSON values."""
        return {
            "setup": asdict(self.setup),
            "eviction_bytes": self.eviction_bytes,
            "channel_grid": self.channel_grid,
            "calibration": asdict(self.calibration),
            "trials": [asdict(trial) for trial in self.trials],
        }

    def save(self, path: Path) -> None:
        """Write the table as a latkit document (JSON)."""
        body = {
            **self._about(),
            "entries": [
                {"block": subject_to_json(block), **asdict(entry)}
                for block, entry in sorted(self.entries.items(), key=_by_key)
            ],
        }
        write_document(path, KIND, VERSION, body)

    @classmethod
    def load(cls, path: Path) -> LatencyTable:
        """Read a table; `DamagedFileError` where it is damaged or newer than this latkit.

        That names the block where a latency is none: negative, no number, or outside its interval.
        """
        document = read_document(path, KIND, VERSION)
        try:
            check_latencies(document)
            body = TableBody.model_validate_json(json.dumps(document, allow_nan=False), strict=True)
            entries = body.blocks()
        except (UsageError, ValidationError, ValueError) as error:
            raise DamagedFileError(
                f"{path} holds no valid latency table: {error}. Make it again from the store."
            ) from error
        return cls._of(body, entries)

    @cached_property
    def _families(self) -> dict[Family, list[Block]]:
        found: dict[Family, list[Block]] = {}
        for block in sorted(self.entries, key=_key):
            found.setdefault(family(block), []).append(block)
        return found

    def _estimate(self, block: Block) -> Estimate:
        if not is_timed(block):
            return Estimate(0.0, 0.0, 0.0, "measured", "no operation")
        if block in self.entries:
            entry = self.entries[block]
            reason = "; ".join(entry.reasons)
            return Estimate(entry.median_ms, entry.low_ms, entry.high_ms, "measured", reason)
        relatives = self._families.get(family(block), [])
        others = comparable(block, relatives, self.channel_grid)
        if not others:
            raise UsageError(self._missing(block, relatives))
        weights = surrounding(block, others)
        return self._interpolated(weights) if weights else self._extrapolated(block, others)

    def _missing(self, block: Block, relatives: list[Block]) -> str:
        bad = off_grid(block, self.channel_grid)
        if relatives and bad:
            named = ", ".join(
                f"{name} {getattr(block, name)} (on the grid: {' and '.join(map(str, pair))})"
                for name, pair in ((name, sorted(set(pair))) for name, pair in bad.items())
            )
            return (
                f"{block} was not measured, and can't be interpolated: on {self.setup.key} latency "
                f"over width is a sawtooth with teeth of {self.channel_grid} channels, and these "
                f"widths lie off its grid: {named}. Choose a width on it, or profile the block."
            )
        return (
            f"{block} was not measured on {self.setup.key}, nor was a block that differs from it "
            f"in widths on the grid of {self.channel_grid} alone. Profile it, with "
            f"{self.eviction_bytes} bytes evicted, and build the table again."
        )

    def _interpolated(self, weights: Mapping[Block, float]) -> Estimate:
        entries = {block: self.entries[block] for block in weights}
        return Estimate(
            sum(weight * entries[block].median_ms for block, weight in weights.items()),
            min(entry.low_ms for entry in entries.values()),
            max(entry.high_ms for entry in entries.values()),
            "interpolated",
            "between " + " and ".join(map(str, weights)),
        )

    def _extrapolated(self, block: Block, others: list[Block]) -> Estimate:
        closest = nearest(block, others)
        entry = self.entries[closest]
        ratio = block_counts(block).flops / block_counts(closest).flops
        return Estimate(
            ratio * entry.median_ms,
            (1 - EXTRAPOLATION_MARGIN) * min(1.0, ratio) * entry.low_ms,
            (1 + EXTRAPOLATION_MARGIN) * max(1.0, ratio) * entry.high_ms,
            "extrapolated",
            f"outside of what was measured; by FLOPs from {closest}",
        )


def _key(block: Block) -> str:
    return block.key


def _by_key(item: tuple[Block, Entry]) -> str:
    return item[0].key
