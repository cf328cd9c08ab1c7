"""NAS-Bench-201 as a table: accuracy and latency of every architecture of the space."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from latkit.latency.cost import CostModel, Factor
from latkit.latency.transfer.choices import Choices
from latkit.latency.transfer.data import LatencyData, read_latency_data
from latkit.latency.transfer.predictor import TransferPredictor
from latkit.latency.transfer.sources import learn_sources
from latkit.search.pareto import hypervolume
from latkit.search.spaces.nasbench201 import EDGES, OPERATIONS, nasbench201
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]

FLOOR = 0.5
"""Accuracy of the hypervolume's reference; its latency is the table's largest."""

SPACE = nasbench201()


@dataclass(frozen=True, eq=False)
class Table:
    """Accuracy (shares of 1) of all architectures, in the order of the space's flat index.

    `true_ms` is what is judged by, `seen_ms` what strategies are given.
    """

    device: str
    accuracy: Floats
    true_ms: Floats
    seen_ms: Floats

    @cached_property
    def cost(self) -> CostModel:
        """What strategies see, exactly: one factor over all choices."""
        return CostModel(SPACE.option_counts, [all_choices(self.seen_ms)], 0.0, SPACE.describe)

    def index(self, choices: Sequence[int]) -> int:
        """The row of an architecture."""
        return int(np.ravel_multi_index(tuple(choices), SPACE.option_counts))

    def best_within(self, target_ms: float) -> float:
        """Accuracy of the best architecture that is truly within the target."""
        return float(self.accuracy[self.true_ms <= target_ms].max())

    def hypervolume_ratio(self, rows: Indices) -> float:
        """Hypervolume of these architectures, by their true latencies, over that of all."""
        return self._volume(rows) / self._whole

    def _volume(self, rows: Indices) -> float:
        ceiling_ms = float(self.true_ms.max())
        return hypervolume(self.true_ms[rows], self.accuracy[rows], (ceiling_ms, FLOOR))

    @cached_property
    def _whole(self) -> float:
        return self._volume(np.arange(len(self.accuracy)))


def all_choices(values: Floats) -> Factor:
    """One factor over all choices."""
    return Factor(tuple(range(len(SPACE.choices))), values.reshape(SPACE.option_counts))


def read_tables(
    accuracy_path: Path,
    latency_path: Path,
    devices: Sequence[str],
    measurements: int | None,
    sources: Sequence[str] | None,
) -> list[Table]:
    """A table for each device; with `measurements`, seen through a latency model made from these.

    `sources` are the devices that the model knows; by default all that are not reported.
    """
    latency = read_latency_data(latency_path)
    with np.load(accuracy_path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    names = [name for name in arrays if name.endswith("_acc")]
    if len(names) != 1:
        raise SystemExit(f"{accuracy_path} must have one array *_acc; it has {[*arrays]}")
    order = flat_order(latency_path, latency.choices)
    accuracy_order = flat_order(accuracy_path, arrays["ops"], arrays.get("op_names"))
    accuracy = arrays[names[0]].astype(np.float64)[accuracy_order]
    accuracy = accuracy / 100 if accuracy.max() > 1 else accuracy
    true_ms = latency.columns(devices)
    seen_ms = true_ms
    if measurements is not None:
        known = sources or [name for name in latency.devices if name not in devices]
        if shared := set(known) & set(devices):
            raise SystemExit(f"both source and reported: {', '.join(sorted(shared))}")
        seen_ms = modelled(latency, known, true_ms, measurements)
    return [
        Table(device, accuracy, true_ms[order, column], seen_ms[order, column])
        for column, device in enumerate(devices)
    ]


def modelled(
    latency: LatencyData, sources: Sequence[str], true_ms: Floats, measurements: int
) -> Floats:
    """Latencies of all architectures on each device, from a few measurements of it."""
    learned = learn_sources(Choices.of(latency.choices), latency.columns(sources), seed=0)
    columns = []
    for true in true_ms.T:
        chosen = learned.choose(measurements, candidates=np.flatnonzero(~np.isnan(true)), seed=0)
        columns.append(TransferPredictor(learned).fit(chosen, true[chosen]).predict())
    return np.stack(columns, axis=1)


def flat_order(
    path: Path, operations: NDArray[np.integer], names: NDArray[np.str_] | None = None
) -> Indices:
    """Rows of a file in the space's order. Operations are found by name, where the file has names.

    The columns of `ops` are the edges 1<-0, 2<-0, 2<-1, ..., as those of the space.
    """
    if names is None:
        with np.load(path, allow_pickle=False) as file:
            names = file["op_names"] if "op_names" in file.files else np.array(OPERATIONS)
    listed = [str(name) for name in names]
    if sorted(listed) != sorted(OPERATIONS) or operations.shape[1] != len(EDGES):
        raise SystemExit(f"{path} is no table of NAS-Bench-201: operations {listed}")
    options = np.array([OPERATIONS.index(name) for name in listed])[operations]
    flat = np.ravel_multi_index(tuple(options.T), SPACE.option_counts)
    order = np.argsort(flat)
    if not np.array_equal(flat[order], np.arange(SPACE.size())):
        raise SystemExit(f"{path} does not hold each of {SPACE.size()} architectures once")
    return order
