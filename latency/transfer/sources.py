"""What other devices teach about a new one, before anything is measured on it.

The sources' latencies are completed where they were not measured. Then each source in turn plays
the new device, with the others, or those unlike it alone, as its sources: so the variances of the
kernel's parts are learned. Nothing is learned from the new device here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike

from ...devices.errors import UsageError
from .gaussian import (
    NEAR_ZERO,
    Floats,
    Part,
    Rows,
    Task,
    most_likely,
    most_telling,
)

FEWEST_ROWS = 10
"""Measured items that a source needs."""

COMPLETION_ROWS = 1000
NOISE_RATIOS = 10.0 ** np.arange(-3.5, 0.6, 0.5)

REHEARSAL_ROWS = 80
PRIOR_SPREAD = 3.0
NOISE_VARIANCE = 0.01

LIKENESS = (1.01, 0.95, 0.8, 0.6)
"""Sources that correlate more with the one that plays the new device are left out, in turn."""

CANDIDATES = 1000
WANTED = 600


@runtime_checkable
class Items(Protocol):
    """What a transfer asks of architectures or blocks; see `Choices` and `DescribedBlocks`."""

    keeps_measured: bool

    def __len__(self) -> int: ...

    def order(self) -> Rows:
        """Rows in an order that depends on their content alone."""

    def take(self, rows: Rows) -> Items:
        """The items `rows`."""

    def check(self, latency_ms: Floats) -> str:
        """What is wrong with latencies; empty where nothing is."""

    def transformed(self, latency_ms: Floats) -> Floats:
        """Latencies on the scale on which the kernel's parts add up."""

    def restored(self, latency: Floats) -> Floats:
        """Back to milliseconds."""

    def noise(self, latency_ms: Floats, step_ms: float) -> float:
        """Variance that rounding to `step_ms` adds to transformed latencies."""

    def kernels(self, these: Rows, those: Rows) -> Iterator[Floats]:
        """Kernels to complete a source with; evidence tells the best."""

    def parts(self, latency: Floats) -> list[Part]:
        """The kernel's parts, from latencies on sources, centred and scaled: (N, sources)."""


@dataclass(frozen=True, eq=False)
class Sources:
    """Items, what is known of them from the source devices, and what that taught.

    Rows are kept in an order of their own, so that nothing depends on the order in which they were
    given; `order` tells which given row each one was. `completed` are the sources' latencies,
    on the items' scale, centred and in units of their spread: (N, sources).
    """

    items: Items
    order: Rows
    completed: Floats
    parts: list[Part]
    log_variances: Floats

    def __len__(self) -> int:
        return len(self.order)

    def choose(
        self, count: int = 20, *, candidates: ArrayLike | None = None, seed: int = 0
    ) -> Rows:
        """Which items to measure on the new device: indices, the most telling first.

        `candidates` are the indices that can be measured (default: all). Raises `UsageError`
        where there are fewer than `count`.
        """
        given = np.arange(len(self)) if candidates is None else np.asarray(candidates)
        allowed = np.isin(self.order, self.checked(given))
        rows = np.flatnonzero(allowed)
        if not 1 <= count <= len(rows):
            raise UsageError(f"{count} items are to be chosen from {len(rows)} candidates")
        random = np.random.default_rng(seed)
        rows = drawn(random, rows, max(CANDIDATES, count))
        wanted = drawn(random, np.arange(len(self)), WANTED)
        # Half way back to where the variances began: sources that are all alike would choose only
        # by what tells such devices apart.
        cautious = (self.log_variances + beginning(self.parts)) / 2
        return self.order[most_telling(self.parts, cautious, rows, wanted, count)]

    def rows(self, indices: ArrayLike) -> Rows:
        """Rows in the order kept here, of indices in the order given."""
        rank = np.empty(len(self), dtype=np.intp)
        rank[self.order] = np.arange(len(self))
        return rank[self.checked(indices)]

    def checked(self, indices: ArrayLike) -> Rows:
        """Indices as an array; `UsageError` where they are none, or occur twice."""
        found = np.asarray(indices)
        if found.ndim == 2 and found.shape[1] == 1:
            found = found[:, 0]
        if found.ndim != 1 or not np.issubdtype(found.dtype, np.integer):
            raise UsageError(
                f"indices are a list of whole numbers, not {found.dtype} {found.shape}"
            )
        if found.size and not (found.min() >= 0 and found.max() < len(self)):
            raise UsageError(
                f"indices go from 0 to {len(self) - 1}, not from {found.min()} to {found.max()}"
            )
        if len(np.unique(found)) != len(found):
            raise UsageError("an index is given twice; give the median of its measurements once")
        return found.astype(np.intp)


def learn_sources(items: Items, latency_ms: ArrayLike, *, seed: int = 0) -> Sources:
    """Learn from the latencies of source devices: (N, sources), NaN where not measured.

    Takes seconds. Raises `UsageError` where shapes don't fit, a latency is impossible, or a source
    has fewer than `FEWEST_ROWS` of them. With a single source nothing can be rehearsed: the
    variances are then those that the parts begin with.
    """
    order = items.order()
    latency = np.ascontiguousarray(_checked(items, latency_ms)[order])
    items = items.take(order)
    transformed = items.transformed(latency)
    location = np.nanmean(transformed, axis=0)
    spread = np.maximum(np.nanstd(transformed, axis=0), NEAR_ZERO * (1 + np.abs(location)))
    measured = (transformed - location) / spread
    random = np.random.default_rng(seed)
    completed = _completed(items, measured, random)
    parts = items.parts(completed)
    tasks = list(_rehearsals(items, measured, completed, random))
    start = beginning(parts)
    # All rehearsals together weigh as one device's: near copies among the sources must not make
    # the kernel sure that the new device is another copy.
    log_variances = (
        most_likely(tasks, start, PRIOR_SPREAD, weight=1 / len(tasks)) if tasks else start
    )
    return Sources(items, order, completed, parts, log_variances)


def beginning(parts: list[Part]) -> Floats:
    """Log variances of the parts and the noise where nothing is known."""
    return np.log([*(part.variance for part in parts), NOISE_VARIANCE])


def beginning_unlike(parts: list[Part]) -> Floats:
    """The same for a device that is like no source: it goes by what an item is made of."""
    variances = (part.variance if part.unlike is None else part.unlike for part in parts)
    return np.log([*variances, NOISE_VARIANCE])


def drawn(random: np.random.Generator, rows: Rows, count: int) -> Rows:
    """At most `count` of `rows`, at random, in their order."""
    if len(rows) <= count:
        return rows
    return np.sort(random.choice(rows, count, replace=False))


def _checked(items: Items, latency_ms: ArrayLike) -> Floats:
    latency = np.asarray(latency_ms, dtype=np.float64)
    if latency.ndim != 2 or latency.shape[0] != len(items) or not latency.shape[1]:
        raise UsageError(
            f"latencies of sources have a row for each of {len(items)} items and a column for each "
            f"device, not the shape {latency.shape}"
        )
    for index, column in enumerate(latency.T):
        known = column[~np.isnan(column)]
        wrong = "is infinite" if np.isinf(known).any() else items.check(known)
        if wrong:
            raise UsageError(
                f"source {index}: a latency {wrong}. Give NaN where none was measured."
            )
        if len(known) < FEWEST_ROWS:
            raise UsageError(
                f"source {index} has {len(known)} measured latencies; {FEWEST_ROWS} are needed. "
                "Leave this source out."
            )
    return latency


def _completed(items: Items, measured: Floats, random: np.random.Generator) -> Floats:
    """Every source's latency of every item, by kernel ridge regression on the measured ones."""
    completed = np.empty_like(measured)
    patterns: dict[bytes, list[int]] = {}
    for source, known in enumerate(~np.isnan(measured.T)):
        patterns.setdefault(known.tobytes(), []).append(source)
    for sources in patterns.values():
        known = ~np.isnan(measured[:, sources[0]])
        if not (items.keeps_measured and known.all()):
            rows = drawn(random, np.flatnonzero(known), COMPLETION_ROWS)
            completed[:, sources] = _regression(
                items, rows, measured[np.ix_(rows, np.array(sources))]
            )
        if items.keeps_measured:
            completed[:, sources] = np.where(
                known[:, None], measured[:, sources], completed[:, sources]
            )
    spread = np.maximum(completed.std(0), NEAR_ZERO)
    return np.asarray((completed - completed.mean(0)) / spread)


def _regression(items: Items, rows: Rows, latency: Floats) -> Floats:
    """Predict all items from `rows`; kernel and noise by their evidence over all columns."""
    mean = latency.mean(0)
    best: tuple[float, int, Floats] | None = None
    for index, kernel in enumerate(items.kernels(rows, rows)):
        values, vectors = np.linalg.eigh(kernel)
        turned = vectors.T @ (latency - mean)
        for ratio in NOISE_RATIOS:
            damped = values.clip(0.0) + ratio
            errors = np.maximum((turned**2 / damped[:, None]).mean(0), NEAR_ZERO**2)
            surprise = len(rows) * float(np.log(errors).mean()) + float(np.log(damped).sum())
            if best is None or surprise < best[0]:
                best = (surprise, index, vectors @ (turned / damped[:, None]))
    assert best is not None
    predicted = np.empty((len(items), latency.shape[1]))
    for start in range(0, len(items), COMPLETION_ROWS):
        some = np.arange(start, min(start + COMPLETION_ROWS, len(items)))
        kernel = next(k for i, k in enumerate(items.kernels(some, rows)) if i == best[1])
        predicted[some] = kernel @ best[2] + mean
    return predicted


def _rehearsals(
    items: Items, measured: Floats, completed: Floats, random: np.random.Generator
) -> Iterator[Task]:
    """Each source as the new device, with all others, and with those unlike it alone."""
    count = measured.shape[1]
    alike = completed.T @ completed / len(completed)
    for source in range(count):
        rows = np.flatnonzero(~np.isnan(measured[:, source]))
        if not measured[rows, source].any():
            continue  # a constant device: nothing is to be learned from it
        tried = set[tuple[int, ...]]()
        for limit in LIKENESS:
            others = tuple(
                other for other in range(count) if other != source and alike[source, other] < limit
            )
            if others and others not in tried:
                tried.add(others)
                parts = items.parts(completed[:, others])
                told = drawn(random, rows, REHEARSAL_ROWS)
                latency = measured[told, source]
                yield Task.of(parts, told, latency - latency.mean())
