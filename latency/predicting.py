"""Predictions without the device: a table or a predictor as a file, or fitted to the store."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..devices.device import Setup
from ..devices.errors import UsageError
from .blocks import Block
from .calibration import PredictionError, is_timed, prediction_error
from .document import document_kind
from .grid import grows, probe_blocks
from .network import Network
from .one_speed import at_one_speed
from .predictor import COVERAGE, FEWEST_SAMPLES, LatencyPredictor
from .store import Store
from .subject import ModelFile, Subject, subject_label
from .table import Estimate, LatencyTable
from .transfer.table import KIND as ADAPTED_TABLE
from .transfer.table import AdaptedTable


@dataclass(frozen=True)
class Estimator:
    """A table or a predictor that was read from a file; `name` says which in messages."""

    name: str
    model: LatencyTable | AdaptedTable | LatencyPredictor
    setup: Setup

    def estimate(self, subject: Subject) -> Estimate:
        """Latency of a block timed alone, or of a whole network.

        A table's networks are calibrated. Those of a predictor, or of a table that was adapted
        from other devices, are plain sums of blocks; the interval is the sum of the blocks'
        intervals, as if they all erred to the same side.
        """
        match subject:
            case Block():
                return self.model.estimate(subject)
            case Network() if isinstance(self.model, LatencyTable):
                return self.model.network(subject)
            case Network():
                return _sum([self.model.estimate(block) for block in subject.blocks])
            case ModelFile():
                raise UsageError(
                    f"{subject_label(subject)} is a model file; {self.name} knows blocks and "
                    "networks of them"
                )


@dataclass(frozen=True)
class Fitted:
    """A predictor fitted to a store, and its error on blocks that it was not fitted to.

    The error is that of the `at_random` blocks alone which were not picked for being hard.
    """

    predictor: LatencyPredictor
    eviction_bytes: int
    blocks: int
    at_random: int
    error: PredictionError

    @property
    def parts(self) -> tuple[str, ...]:
        """What the model is made of, in words."""
        model = self.predictor.model_
        parts = [f"physical model, channel grid of {self.predictor.channel_grid_}"]
        if model.process is not None:
            parts.append(f"process over {len(model.process.components) - 1} groups of kernels")
        if len(model.trees.roots):
            parts.append(f"{len(model.trees.roots)} trees")
        return (*parts, "monotone on the grid") if self.predictor.monotone else tuple(parts)


def load_estimator(table: Path | None, predictor: Path | None) -> Estimator:
    """The one of a table and a predictor that is given; `UsageError` where not exactly one is."""
    if table is not None and predictor is None:
        read: LatencyTable | AdaptedTable = (
            AdaptedTable.load(table)
            if document_kind(table) == ADAPTED_TABLE
            else LatencyTable.load(table)
        )
        return Estimator(f"the latency table {table}", read, read.setup)
    if predictor is not None and table is None:
        loaded = LatencyPredictor.load(predictor)
        if loaded.setup is None:
            raise UsageError(f"the latency predictor {predictor} does not say what device it is of")
        return Estimator(f"the latency predictor {predictor}", loaded, loaded.setup)
    raise UsageError("give one of --table FILE and --predictor FILE")


def fit_predictor(
    store: Store, setup: Setup, eviction_bytes: int | None = None, seed: int = 0
) -> Fitted:
    """Fit a predictor to all blocks that were measured at one eviction size.

    Without `eviction_bytes` the size at which most blocks were measured is taken. Blocks whose
    verdict is not stable take part: their medians are the best that is known. Blocks that were
    measured because a model was unsure of them take no part in the intervals.
    """
    subjects = store.subjects()
    picks = store.picks(setup)
    measured = {
        key: item
        for key, item in store.all_measurements(setup).items()
        if isinstance(subjects[key[0]], Block)
    }
    found = at_one_speed(measured)
    sizes = Counter(size for _, size in found)
    if eviction_bytes is None:
        eviction_bytes = max(sizes, key=lambda size: (sizes[size], size), default=0)
    blocks: list[Block] = []
    latency_ms: list[float] = []
    at_random: list[bool] = []
    for (model_id, size), item in found.items():
        block = subjects[model_id]
        if size == eviction_bytes and isinstance(block, Block) and is_timed(block):
            blocks.append(block)
            latency_ms.append(item.median_ms)
            at_random.append(picks.get((model_id, size), True))
    if len(blocks) < FEWEST_SAMPLES:
        listed = ", ".join(f"{count} at {size} bytes" for size, count in sorted(sizes.items()))
        raise UsageError(
            f"{len(blocks)} blocks were measured on {setup.key} with {eviction_bytes} bytes "
            f"evicted, and a predictor needs {FEWEST_SAMPLES} (measured are: {listed or 'none'}). "
            "Profile some, or choose another --eviction-bytes."
        )
    predictor = LatencyPredictor(setup, eviction_bytes).fit(
        blocks, latency_ms, seed, at_random=at_random
    )
    probes = {
        block.expanded_channels: found[block.key, 0].median_ms
        for block in probe_blocks()
        if (block.key, 0) in found
    }
    predictor.monotone = grows(list(probes), list(probes.values()), predictor.channel_grid_)
    drawn = np.array(at_random)
    measured_ms, left_out_ms = np.array(latency_ms)[drawn], predictor.left_out_ms_[drawn]
    errors = np.abs(np.log(left_out_ms / measured_ms)) / predictor.left_out_spread_[drawn]
    error = replace(prediction_error(left_out_ms, measured_ms), inside=_inside(errors, seed))
    return Fitted(predictor, eviction_bytes, len(blocks), len(measured_ms), error)


def _inside(errors: NDArray[np.float64], seed: int) -> float | None:
    """Share of the blocks inside an interval that is made from the other half of them.

    `None` where half of them is too few for intervals.
    """
    halves = np.random.default_rng(seed).permutation(len(errors)) % 2
    inside = np.zeros(len(errors), dtype=bool)
    for half in (0, 1):
        others = np.sort(errors[halves != half])
        rank = math.ceil((len(others) + 1) * COVERAGE)
        if rank > len(others):
            return None
        inside[halves == half] = errors[halves == half] <= others[rank - 1]
    return float(inside.mean())


def _sum(estimates: Sequence[Estimate]) -> Estimate:
    reasons = [item.reason for item in estimates if item.latency_ms and item.reason]
    return Estimate(
        sum(item.latency_ms for item in estimates),
        sum(item.low_ms for item in estimates),
        sum(item.high_ms for item in estimates),
        "predicted",
        "; ".join(["sum of blocks, not calibrated", *dict.fromkeys(reasons)]),
    )
