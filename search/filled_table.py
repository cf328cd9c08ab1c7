"""A latency table whose gaps a predictor fills, for spaces with more blocks than can be timed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..devices.errors import UsageError
from ..latency.blocks import Block
from ..latency.predicting import fit_predictor
from ..latency.predictor import LatencyPredictor
from ..latency.store import Store
from ..latency.table import Estimate, LatencyTable
from .space import SearchSpace

LOOKED_THROUGH = 256
"""Random architectures that tell whether a table knows a space's blocks."""


@dataclass(frozen=True)
class FilledTable(LatencyTable):
    """Measured blocks are the table's, also in between; all others are predicted."""

    predictor: LatencyPredictor | None = None

    def _estimate(self, block: Block) -> Estimate:
        try:
            return super()._estimate(block)
        except UsageError:
            if self.predictor is None:
                raise
            return self.predictor.estimate(block)


def without_gaps(table: LatencyTable, space: SearchSpace, store: Store, path: Path) -> LatencyTable:
    """The table, or one that is filled where it can't tell what networks of the space take.

    The predictor is fitted to what the store has of the table's setup, and kept at `path`: a search
    that goes on takes that. Raises `UsageError` where the store has too few blocks to fit one to.
    """
    if _knows(table, space):
        return table
    if path.exists():
        predictor = LatencyPredictor.load(path)
    else:
        predictor = fit_predictor(store, table.setup, table.eviction_bytes).predictor
        path.parent.mkdir(parents=True, exist_ok=True)
        predictor.save(path)
    predictor.check_setup(table.setup)
    return FilledTable(
        table.setup,
        table.eviction_bytes,
        table.channel_grid,
        table.entries,
        table.calibration,
        table.trials,
        predictor=predictor,
    )


def _knows(table: LatencyTable, space: SearchSpace) -> bool:
    random = np.random.default_rng(0)
    drawn = [space.sample(random) for _ in range(LOOKED_THROUGH)]
    try:
        for architecture in dict.fromkeys(drawn):
            table.network(space.network(architecture))
    except UsageError:
        return False
    return True
