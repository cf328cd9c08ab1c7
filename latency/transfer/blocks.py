"""Blocks, as the transfer between devices sees them: by what they compute, in log latency."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ...devices.device import Setup
from ...devices.errors import UsageError
from ..blocks import Block
from ..calibration import is_timed
from ..features import describe, matrix, names_of
from ..subject import subject_label
from ..table import LatencyTable
from ..table_records import about_of
from .choices import landmark_features
from .gaussian import NEAR_ZERO, Floats, Part, Rows

CHANNEL_GRID = 8
"""Grid that features are described on; a new device's is not known."""

LANDMARKS = 200
REACHES = (0.5, 1.0, 2.0)
"""Length scales that are tried, in units of the square root of the number of features."""


@dataclass(frozen=True, eq=False)
class DescribedBlocks:
    """N different blocks that have an operation, with their features and categories."""

    blocks: tuple[Block, ...]

    keeps_measured = True
    """A source's own measurement of a block is better than what others of its blocks tell."""

    @classmethod
    def of(cls, blocks: Sequence[Block]) -> DescribedBlocks:
        """Check blocks; `UsageError` for one that is given twice or has no operation."""
        if not blocks:
            raise UsageError("no blocks are given")
        if len(set(blocks)) != len(blocks):
            raise UsageError("a block is given twice")
        idle = [block for block in blocks if not is_timed(block)]
        if idle:
            raise UsageError(f"{subject_label(idle[0])} has no operation: it takes no time")
        return cls(tuple(blocks))

    def __len__(self) -> int:
        return len(self.blocks)

    def order(self) -> Rows:
        """Rows in an order that depends on their content alone."""
        return np.array(sorted(range(len(self)), key=lambda row: self.blocks[row].key))

    def take(self, rows: Rows) -> DescribedBlocks:
        """The blocks `rows`."""
        return DescribedBlocks(tuple(self.blocks[row] for row in rows))

    def check(self, latency_ms: Floats) -> str:
        """What is wrong with latencies; empty where nothing is."""
        return "is not positive" if (latency_ms <= 0).any() else ""

    def transformed(self, latency_ms: Floats) -> Floats:
        """The logarithm: blocks differ by orders of magnitude, and devices by factors."""
        return np.asarray(np.log(latency_ms))

    def restored(self, latency: Floats) -> Floats:
        """Back to milliseconds."""
        return np.asarray(np.exp(latency))

    def noise(self, latency_ms: Floats, step_ms: float) -> float:
        """Variance that rounding to `step_ms` adds to the logarithm, for the typical latency."""
        return float(np.median((step_ms / latency_ms) ** 2)) / 12

    def kernels(self, these: Rows, those: Rows) -> Iterator[Floats]:
        """Kernels to complete a source with: linear in the features, smooth nearby."""
        linear = self._features[these] @ self._features[those].T / self._features.shape[1]
        for reach in REACHES:
            yield linear + self._smooth(these, those, reach)

    def parts(self, latency: Floats) -> list[Part]:
        """The kernel's parts, from log latencies on sources, centred and scaled: (N, sources)."""
        consensus = latency.mean(1, keepdims=True)
        return [
            Part("consensus", consensus, 1.0),
            Part("other components", latency - consensus, 0.1),
            Part("categories", self._categories, 0.03),
            Part("consensus by category", consensus * self._categories, 0.03),
            Part("features", self._features, 0.03),
            Part("near in features", self._nearby, 0.3),
        ]

    def _smooth(self, these: Rows, those: Rows, reach: float) -> Floats:
        first, second = self._features[these], self._features[those]
        distance = (first**2).sum(1)[:, None] + (second**2).sum(1) - 2 * first @ second.T
        return np.asarray(np.exp(-distance / (2 * reach**2 * self._features.shape[1])))

    @cached_property
    def _features(self) -> Floats:
        rows = [describe(block, CHANNEL_GRID).features for block in self.blocks]
        values = matrix(rows, names_of(rows))
        spread = values.std(0)
        varied = spread > NEAR_ZERO
        if not varied.any():
            return np.zeros((len(self), 1))
        return np.asarray((values[:, varied] - values[:, varied].mean(0)) / spread[varied])

    @cached_property
    def _categories(self) -> Floats:
        rows = [
            dict.fromkeys(describe(block, CHANNEL_GRID).categories, 1.0) for block in self.blocks
        ]
        values = matrix(rows, names_of(rows))
        return np.asarray(values - values.mean(0))

    @cached_property
    def _nearby(self) -> Floats:
        spaced = np.unique(np.linspace(0, len(self) - 1, LANDMARKS).astype(np.intp))
        return landmark_features(
            self._smooth(spaced, spaced, REACHES[1]),
            self._smooth(np.arange(len(self)), spaced, REACHES[1]),
        )


@dataclass(frozen=True, eq=False)
class BlockLatencies:
    """Blocks and their latency in ms on source devices: (N, sources), NaN where not measured."""

    blocks: tuple[Block, ...]
    latency_ms: NDArray[np.float64]


def block_latencies(
    sources: Sequence[LatencyTable | pd.DataFrame | Mapping[Block, float]],
    more: Sequence[Block] = (),
) -> BlockLatencies:
    """All blocks of the sources and `more`, without those that have no operation.

    A source is a table, its frame (columns `kind`, the block's fields, `median_ms`), or a mapping
    of latencies in ms.
    """
    columns = [_latencies(source) for source in sources]
    listed = dict.fromkeys(block for column in columns for block in column)
    timed = tuple(block for block in dict.fromkeys([*listed, *more]) if is_timed(block))
    latency = [[column.get(block, np.nan) for column in columns] for block in timed]
    return BlockLatencies(timed, np.array(latency, dtype=np.float64).reshape(len(timed), -1))


def _latencies(
    source: LatencyTable | pd.DataFrame | Mapping[Block, float],
) -> Mapping[Block, float]:
    if isinstance(source, pd.DataFrame):
        about = about_of(map(_named, source.to_dict("records")))
        source = LatencyTable.from_frame(source, UNNAMED if about is None else None)
    if isinstance(source, LatencyTable):
        return {block: entry.median_ms for block, entry in source.entries.items()}
    return source


UNNAMED = Setup("a source device", "unknown", "unknown")
"""Stands for the setup where a frame does not say what it is of: nothing reads it here."""


def _named(row: Mapping[Hashable, Any]) -> dict[str, Any]:
    return {str(name): cell for name, cell in row.items()}
