"""Latency table: measured blocks of one device and runtime, and what networks of them take."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..devices.device import Setup
from ..devices.errors import DamagedFileError, UsageError
from .blocks import Block
from .calibration import Calibration, block_terms, is_timed
from .counts import block_counts
from .document import read_document, write_document
from .interpolation import Family, comparable, family, nearest, off_grid, surrounding
from .network import Network
from .subject import block_from_json, subject_to_json

KIND = "latency_table"
VERSION = 1

EXTRAPOLATION_MARGIN = 0.5
"""How much wider than constant to proportional an extrapolated interval is, to either side."""

Source = Literal["measured", "interpolated", "extrapolated", "predicted"]
VerdictKind = Literal["stable", "noisy", "throttled"]


@dataclass(frozen=True, slots=True)
class Entry:
    """A measured block: median with its 95 % interval, and how far it can be trusted."""

    median_ms: float
    low_ms: float
    high_ms: float
    verdict: VerdictKind = "stable"
    reasons: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 0 < self.low_ms <= self.median_ms <= self.high_ms < math.inf:
            raise UsageError(
                f"a latency of {self.median_ms} ms in [{self.low_ms}, {self.high_ms}] is none"
            )


@dataclass(frozen=True, slots=True)
class Estimate:
    """A latency with its interval, where it is from, and why it may be wrong."""

    latency_ms: float
    low_ms: float
    high_ms: float
    source: Source
    reason: str = ""


@dataclass(frozen=True, slots=True)
class EvictionTrial:
    """How well networks were explained by blocks timed with this many bytes evicted.

    `plain_bias` is that of plain sums, `rmspe` the calibrated leave-one-out error; `chosen` marks
    the trial that the table was made with.
    """

    eviction_bytes: int
    plain_bias: float
    rmspe: float
    chosen: bool = False


@dataclass(frozen=True)
class LatencyTable:
    """Blocks and their latencies on one setup, with the calibration to whole networks.

    All blocks were timed with the same `eviction_bytes`. Blocks that were not measured are
    interpolated over width, between measured ones on the grid of `channel_grid` channels.
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

    def frame(self) -> pd.DataFrame:
        """One row for each measured block: its kind and fields, latency and verdict."""
        rows = [
            {**subject_to_json(block), **asdict(entry), "reasons": "; ".join(entry.reasons)}
            for block, entry in self.entries.items()
        ]
        return pd.DataFrame(rows)

    def save(self, path: Path) -> None:
        """Write the table as a latkit document (JSON)."""
        body = {
            "setup": asdict(self.setup),
            "eviction_bytes": self.eviction_bytes,
            "channel_grid": self.channel_grid,
            "calibration": asdict(self.calibration),
            "trials": [asdict(trial) for trial in self.trials],
            "entries": [
                {"block": subject_to_json(block), **asdict(entry)}
                for block, entry in sorted(self.entries.items(), key=_by_key)
            ],
        }
        write_document(path, KIND, VERSION, body)

    @classmethod
    def load(cls, path: Path) -> LatencyTable:
        """Read a table; `DamagedFileError` where it is damaged or newer than this latkit."""
        document = read_document(path, KIND, VERSION)
        try:
            body = _Body.model_validate_json(json.dumps(document, allow_nan=False), strict=True)
            entries = {
                block_from_json(item.block, f"entry {index}"): Entry(
                    item.median_ms, item.low_ms, item.high_ms, item.verdict, item.reasons
                )
                for index, item in enumerate(body.entries)
            }
        except (UsageError, ValidationError, ValueError) as error:
            raise DamagedFileError(
                f"{path} holds no valid latency table: {error}. Make it again from the store."
            ) from error
        return cls(
            body.setup,
            body.eviction_bytes,
            body.channel_grid,
            entries,
            body.calibration,
            body.trials,
        )

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
            return Estimate(entry.median_ms, entry.low_ms, entry.high_ms, "measured")
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


Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class _EntryBody(BaseModel):
    """One entry as it stands in a file."""

    model_config = ConfigDict(extra="forbid")
    block: dict[str, Any]
    median_ms: Positive
    low_ms: Positive
    high_ms: Positive
    verdict: VerdictKind
    reasons: tuple[str, ...]


class _Body(BaseModel):
    """What a table's file holds, version 1."""

    model_config = ConfigDict(extra="forbid")
    setup: Setup
    eviction_bytes: Annotated[int, Field(ge=0)]
    channel_grid: Annotated[int, Field(ge=1)]
    calibration: Calibration
    trials: tuple[EvictionTrial, ...]
    entries: list[_EntryBody]
