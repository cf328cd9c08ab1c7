"""The two steps of `latkit adapt`, for architectures of a data file and for blocks of tables."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ...devices.device import Setup
from ...devices.errors import UsageError
from ...devices.files import write_atomically
from ..blocks import Block
from ..calibration import is_timed
from ..store import Store
from ..subject import subject_to_json
from ..table import Estimate, LatencyTable
from .choices import Choices
from .data import LatencyData
from .predictor import COVERAGE, FEWEST_SAMPLES, adapt
from .sources import learn_sources
from .table import learn_tables


@dataclass(frozen=True)
class MeasuredBlocks:
    """What a store holds of a setup's blocks, at one eviction size."""

    eviction_bytes: int
    estimates: Mapping[Block, Estimate]


def choose_architectures(
    data: LatencyData, sources: Sequence[str], count: int, output_path: Path, seed: int = 0
) -> list[int]:
    """Write a CSV of the architectures to measure, latencies to be filled in; their indices."""
    learned = learn_sources(Choices.of(data.choices), data.columns(sources), seed=seed)
    indices = learned.choose(count, seed=seed)
    chosen = [" ".join(map(str, data.choices[index])) for index in indices]
    frame = pd.DataFrame({"index": indices, "latency_ms": "", "choices": chosen})
    _write_csv(frame, output_path)
    return [int(index) for index in indices]


def predict_architectures(
    data: LatencyData,
    sources: Sequence[str],
    measured: Mapping[int, float],
    output_path: Path,
    *,
    coverage: float = COVERAGE,
    seed: int = 0,
) -> pd.DataFrame:
    """Write a CSV with the latency of every architecture on the new device; the same as a frame."""
    found = adapt(
        Choices.of(data.choices), data.columns(sources), measured, coverage=coverage, seed=seed
    )
    frame = pd.DataFrame(
        {
            "index": np.arange(len(data.choices)),
            "latency_ms": found.latency_ms,
            "low_ms": found.low_ms,
            "high_ms": found.high_ms,
            "source": "predicted",
        }
    )
    frame.loc[found.indices, "latency_ms"] = found.measured_ms
    frame.loc[found.indices, "low_ms"] = np.minimum(found.low_ms[found.indices], found.measured_ms)
    frame.loc[found.indices, "high_ms"] = np.maximum(
        found.high_ms[found.indices], found.measured_ms
    )
    frame.loc[found.indices, "source"] = "measured"
    _write_csv(frame, output_path)
    return frame


def choose_blocks(
    tables: Sequence[LatencyTable],
    count: int,
    output_path: Path,
    more: Sequence[Block] = (),
    seed: int = 0,
) -> list[Block]:
    """Write the blocks to measure, as the JSON list that `latkit profile --blocks` takes."""
    blocks, sources = learn_tables(tables, more, seed=seed)
    chosen = [blocks[index] for index in sources.choose(count, seed=seed)]
    text = json.dumps([subject_to_json(block) for block in chosen], indent=1)
    write_atomically(output_path, text.encode() + b"\n")
    return chosen


def measured_blocks(store: Store, setup: Setup, eviction_bytes: int | None) -> MeasuredBlocks:
    """The blocks that a store has of a setup, by default at the size at which it has most."""
    subjects = store.subjects()
    found = {
        key: item
        for key, item in store.all_measurements(setup, eviction_bytes).items()
        if isinstance(subjects[key[0]], Block)
    }
    sizes = Counter(size for _, size in found)
    size = max(sizes, key=lambda each: (sizes[each], -each), default=eviction_bytes or 0)
    estimates: dict[Block, Estimate] = {}
    for (model_id, of_size), item in found.items():
        block = subjects[model_id]
        if of_size == size and isinstance(block, Block) and is_timed(block):
            reason = "" if item.verdict.kind == "stable" else "; ".join(item.verdict.reasons)
            estimates[block] = Estimate(
                item.median_ms, item.low_ms, item.high_ms, "measured", reason
            )
    if len(estimates) < FEWEST_SAMPLES:
        raise UsageError(
            f"the store {store} holds {len(estimates)} blocks of {setup.key} with {size} bytes "
            f"evicted; {FEWEST_SAMPLES} are needed, better 20. Let latkit adapt --choose 20 choose "
            "them, and measure them by latkit profile --blocks."
        )
    return MeasuredBlocks(size, estimates)


def read_measured(path: Path) -> dict[int, float]:
    """Read a CSV with the columns `index` and `latency_ms`; rows without a latency are left out.

    Raises `UsageError` that names what can't be read, and where no latency was filled in.
    """
    try:
        frame = pd.read_csv(path)
    except OSError as error:
        raise UsageError(f"can't read {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise UsageError(f"{path} is no CSV: {error}") from error
    missing = [name for name in ("index", "latency_ms") if name not in frame]
    if missing:
        raise UsageError(f"{path} has no column {' and no column '.join(missing)}")
    filled = frame[frame["latency_ms"].notna()]
    if filled.empty:
        raise UsageError(f"{path} has no latency yet: fill in the column latency_ms")
    measured: dict[int, float] = {}
    for line, index, latency in zip(
        filled.index + 2, filled["index"], filled["latency_ms"], strict=True
    ):
        try:
            number, value = int(index), float(latency)
        except ValueError as error:
            raise UsageError(f"{path}, line {line}: {index},{latency} is no number") from error
        if number != index or number in measured:
            raise UsageError(f"{path}, line {line}: index {index} is no index, or given twice")
        measured[number] = value
    return measured


def _write_csv(frame: pd.DataFrame, path: Path) -> None:
    write_atomically(path, frame.to_csv(index=False).encode())
