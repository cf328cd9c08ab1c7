"""The evaluations of a search as a trajectory (`curves`): from its logs, and from its store."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from ..latency.store import Store
from .log import read_log
from .space import Architecture
from .trajectory import trajectory_of

COLUMNS = ["strategy", "index", "architecture", "predicted_ms", "accuracy", "feasible"]


def evaluations(
    logs: Sequence[Path], limit_ms: float = math.inf, store: Store | None = None
) -> pd.DataFrame:
    """A row for each evaluation of logs that follow each other; `index` counts on over them.

    Feasible is what is predicted at `limit_ms` or below. What no log holds (seconds, measured_ms,
    the strategies' figures) comes from `store`, and is NaN where that has no rows of the search.
    """
    if not logs:
        return pd.DataFrame(columns=COLUMNS)
    frames = [_of_log(log, store) for log in logs]
    counts: dict[str, int] = defaultdict(int)
    for frame in frames:
        lengths = frame["strategy"].value_counts()
        frame["index"] += frame["strategy"].map(lambda name: counts[name]).astype("int64")
        for strategy, length in lengths.items():
            counts[str(strategy)] += int(length)
    found = pd.concat(frames, ignore_index=True)
    return found.assign(feasible=found["predicted_ms"] <= limit_ms)


def _of_log(log: Path, store: Store | None) -> pd.DataFrame:
    settings, entries = read_log(log)
    rows = [
        (item.strategy, item.index, item.architecture, item.predicted_ms, item.accuracy, True)
        for item in entries
    ]
    found = pd.DataFrame(rows, columns=COLUMNS)
    if store is None or found.empty:
        return found
    stored = trajectory_of(store, log, settings)
    told = stored[stored["index"].notna()].astype({"index": "int64"})
    told = told.drop(columns=["search", "seed", "predicted_ms", "accuracy"])
    keys = [Architecture(choices).key for choices in found["architecture"]]
    joined = found.assign(architecture=keys).merge(
        told, on=["strategy", "index", "architecture"], how="left"
    )
    return joined.assign(architecture=found["architecture"])
