"""Predictions without the device: a table or a predictor as a file, or fitted to the store."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..devices.device import Setup
from ..devices.errors import UsageError
from .blocks import Block
from .calibration import PredictionError, is_timed, prediction_error
from .network import Network
from .predictor import FEWEST_SAMPLES, LatencyPredictor
from .store import Store
from .subject import ModelFile, Subject, subject_label
from .table import Estimate, LatencyTable


@dataclass(frozen=True)
class Estimator:
    """A table or a predictor that was read from a file; `name` says which in messages."""

    name: str
    model: LatencyTable | LatencyPredictor
    setup: Setup

    def estimate(self, subject: Subject) -> Estimate:
        """Latency of a block timed alone, or of a whole network.

        A table's networks are calibrated. A predictor's are plain sums of blocks; the interval is
        the sum of the blocks' intervals, as if they all erred to the same side.
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
    """A predictor fitted to a store, and its error on blocks that it was not fitted to."""

    predictor: LatencyPredictor
    eviction_bytes: int
    blocks: int
    error: PredictionError


def load_estimator(table: Path | None, predictor: Path | None) -> Estimator:
    """The one of a table and a predictor that is given; `UsageError` where not exactly one is."""
    if table is not None and predictor is None:
        read = LatencyTable.load(table)
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
    verdict is not stable take part: their medians are the best that is known.
    """
    subjects = store.subjects()
    found = {
        key: item
        for key, item in store.all_measurements(setup).items()
        if isinstance(subjects[key[0]], Block)
    }
    sizes = Counter(size for _, size in found)
    if eviction_bytes is None:
        eviction_bytes = max(sizes, key=lambda size: (sizes[size], size), default=0)
    blocks: list[Block] = []
    latency_ms: list[float] = []
    for (model_id, size), item in found.items():
        block = subjects[model_id]
        if size == eviction_bytes and isinstance(block, Block) and is_timed(block):
            blocks.append(block)
            latency_ms.append(item.median_ms)
    if len(blocks) < FEWEST_SAMPLES:
        listed = ", ".join(f"{count} at {size} bytes" for size, count in sorted(sizes.items()))
        raise UsageError(
            f"{len(blocks)} blocks were measured on {setup.key} with {eviction_bytes} bytes "
            f"evicted, and a predictor needs {FEWEST_SAMPLES} (measured are: {listed or 'none'}). "
            "Profile some, or choose another --eviction-bytes."
        )
    predictor = LatencyPredictor(setup, eviction_bytes).fit(blocks, latency_ms, seed)
    error = prediction_error(predictor.left_out_ms_, latency_ms)
    return Fitted(predictor, eviction_bytes, len(blocks), error)


def _sum(estimates: Sequence[Estimate]) -> Estimate:
    reasons = [item.reason for item in estimates if item.latency_ms and item.reason]
    return Estimate(
        sum(item.latency_ms for item in estimates),
        sum(item.low_ms for item in estimates),
        sum(item.high_ms for item in estimates),
        "predicted",
        "; ".join(["sum of blocks, not calibrated", *dict.fromkeys(reasons)]),
    )
