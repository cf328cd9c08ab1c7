"""A measurement: what the rounds say about one model, and how far they can be trusted.

Statistics are derived from the raw samples here and nowhere else.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import combinations
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from .device import (
    CANARY_DRIFT_LIMIT,
    ModelKey,
    Placement,
    Round,
    Setup,
    Summary,
    Visit,
)
from .errors import DeviceError

MINIMUM_ROUNDS = 6
"""The fewest rounds whose extremes enclose the median with 95 % confidence."""

MINIMUM_PROCESSES = 3
SPREAD_LIMIT = 0.05
"""Largest interquartile range of the rounds' medians, relative to the median, that is stable."""

CLEAN_SHARE = 0.5
"""Where a smaller share of the samples ran without preemption, all are used."""

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a measurement can be trusted, and why. Some reasons are only notes."""

    kind: Literal["stable", "noisy", "throttled"]
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True)
class Measurement:
    """The accepted rounds of one model on one setup, as a query.

    Samples during which the process lost its processor are dropped, unless fewer than
    `CLEAN_SHARE` are left: then all are used, and the verdict says so. The latency is the median
    over rounds of each round's median, so that a disturbed round weighs no more than a quiet one.
    Rounds in which the canary was slow are left out too, unless fewer than `MINIMUM_ROUNDS` are
    left: then all are used, and the verdict is noisy.

    Where a tool gave summaries only, each round counts with its summary's value, which is what
    `statistic` says: a mean, or a median.
    """

    model_id: str
    setup: Setup
    eviction_bytes: int
    rounds: tuple[Round, ...]

    @property
    def key(self) -> ModelKey:
        """What its rounds file it under."""
        return (self.model_id, self.eviction_bytes)

    @property
    def statistic(self) -> Literal["median", "mean"]:
        """What of a round's runs its value is: their median, or the mean that a tool told."""
        summary = self._timed[0][1].summary
        return "median" if summary is None else summary.statistic

    @property
    def placements(self) -> tuple[Placement, ...]:
        """Where the model ran: one place, or several where the runtime decided anew."""
        return tuple(dict.fromkeys(visit.placement for _, visit in self._visits if visit.placement))

    @property
    def median_ns(self) -> float:
        """Median over rounds of the `statistic` of each round, in nanoseconds."""
        return float(np.median(self._round_medians_ns))

    @property
    def median_ms(self) -> float:
        """Median over rounds of the `statistic` of each round, in milliseconds."""
        return self.median_ns / 1e6

    @property
    def low_ms(self) -> float:
        """Lower end of the 95 % interval of the median; see `high_ms`."""
        return float(np.sort(self._round_medians_ns)[self._interval_rank]) / 1e6

    @property
    def high_ms(self) -> float:
        """Upper end of the 95 % interval of the median, from order statistics of the rounds.

        Assumes nothing about the distribution. With fewer than `MINIMUM_ROUNDS` rounds it is the
        whole range, which then holds less than 95 %.
        """
        return float(np.sort(self._round_medians_ns)[-1 - self._interval_rank]) / 1e6

    @property
    def spread(self) -> float:
        """Interquartile range of the rounds' medians, relative to the median."""
        low, high = np.percentile(self._round_medians_ns, (25, 75))
        return float((high - low) / self.median_ns)

    @property
    def p5_ns(self) -> float | None:
        """5th percentile of all samples used, in nanoseconds; `None` of summaries."""
        return float(np.percentile(self.samples_ns, 5)) if self.samples_ns.size else None

    @property
    def p95_ns(self) -> float | None:
        """95th percentile of all samples used, in nanoseconds; `None` of summaries."""
        return float(np.percentile(self.samples_ns, 95)) if self.samples_ns.size else None

    @cached_property
    def canary_ns(self) -> float | None:
        """What the canary took beside it, a median over rounds; `None` where there was none."""
        medians = [np.median(item.canary_ns) for item, _ in self._visits if item.canary_ns]
        return float(np.median(medians)) if medians else None

    @property
    def sample_count(self) -> int:
        """How many runs are used."""
        return len(self.samples_ns) + sum(item.count for item in self._summaries)

    @cached_property
    def samples_ns(self) -> NDArray[np.int64]:
        """The samples used, in the order they were taken; none of summaries."""
        return np.concatenate([np.empty(0, np.int64), *self._used_samples_ns])

    @cached_property
    def verdict(self) -> Verdict:
        """Stable, noisy or throttled, with every reason."""
        throttled = list(self._throttling())
        noise = [*self._sampling_noise(), *self._canary_noise()]
        notes = list(self._notes())
        kind: Literal["stable", "noisy", "throttled"] = "stable"
        if throttled:
            kind = "throttled"
        elif noise:
            kind = "noisy"
        return Verdict(kind, tuple(throttled + noise + notes))

    @property
    def unsteady(self) -> bool:
        """Whether more rounds may help: they spread too much, or too few of them were quiet."""
        return self.spread > SPREAD_LIMIT or bool(self._slow and not self._leaves_slow_out)

    @cached_property
    def _timed(self) -> list[tuple[Round, Visit]]:
        return [(item, item.visits[self.key]) for item in self.rounds if self.key in item.visits]

    @cached_property
    def _slow(self) -> dict[int, float]:
        """Rounds, by their place in `_timed`, whose canary was slow, and by how much.

        The quiet canary is the one that the last round was compared with: what was known of it in
        the first rounds came from few others.
        """
        canaries = [
            (place, float(np.median(item.canary_ns)), item.canary_drift)
            for place, (item, _) in enumerate(self._timed)
            if item.canary_ns
        ]
        if not canaries:
            return {}
        _, last_ns, last_drift = canaries[-1]
        quiet_ns = last_ns / (1 + last_drift)
        drifts = {place: canary_ns / quiet_ns - 1 for place, canary_ns, _ in canaries}
        return {place: drift for place, drift in drifts.items() if drift > CANARY_DRIFT_LIMIT}

    @property
    def _leaves_slow_out(self) -> bool:
        return len(self._timed) - len(self._slow) >= MINIMUM_ROUNDS

    @cached_property
    def _visits(self) -> list[tuple[Round, Visit]]:
        """The rounds that are used."""
        if not self._leaves_slow_out:
            return self._timed
        return [item for place, item in enumerate(self._timed) if place not in self._slow]

    @cached_property
    def _preempted_count(self) -> int:
        return sum(sum(visit.preempted or ()) for _, visit in self._visits)

    @cached_property
    def _all_count(self) -> int:
        return sum(len(visit.samples_ns) for _, visit in self._visits)

    @cached_property
    def _keeps_preempted(self) -> bool:
        return self._all_count - self._preempted_count < CLEAN_SHARE * self._all_count

    @cached_property
    def _used_samples_ns(self) -> list[NDArray[np.int64]]:
        """Samples of each round; a round without a clean one is left out."""
        used = []
        for _, visit in self._visits:
            samples = np.array(visit.samples_ns, np.int64)
            if visit.preempted is not None and not self._keeps_preempted:
                samples = samples[~np.array(visit.preempted, bool)]
            if samples.size:
                used.append(samples)
        return used

    @property
    def _summaries(self) -> list[Summary]:
        return [visit.summary for _, visit in self._visits if visit.summary is not None]

    @cached_property
    def _round_medians_ns(self) -> NDArray[np.float64]:
        if self._summaries:
            return np.array([item.value_ns for item in self._summaries])
        return np.array([np.median(samples) for samples in self._used_samples_ns])

    @property
    def _interval_rank(self) -> int:
        return _interval_rank(len(self._round_medians_ns))

    def _throttling(self) -> Iterator[str]:
        causes = [item.context.get("throttled") for item, _ in self._visits]
        found = [str(cause) for cause in causes if cause]
        for cause in dict.fromkeys(found):
            yield f"throttled in {found.count(cause)} of {len(causes)} rounds: {cause}"

    def _sampling_noise(self) -> Iterator[str]:
        rounds = len(self._round_medians_ns)
        if rounds < MINIMUM_ROUNDS:
            yield f"only {rounds} rounds; {MINIMUM_ROUNDS} are needed"
        processes = len({(item.run_id, item.process) for item, _ in self._visits})
        if processes < MINIMUM_PROCESSES:
            yield f"only {processes} processes; {MINIMUM_PROCESSES} are needed"
        if self.spread > SPREAD_LIMIT:
            yield f"the rounds spread by {self.spread:.1%}; {SPREAD_LIMIT:.0%} is the limit"
        if self._keeps_preempted:
            yield (
                f"{_count_of(self._preempted_count, self._all_count)} preempted; "
                "the median is over all of them"
            )
        failed = [item.failures[self.key] for item in self.rounds if self.key in item.failures]
        if failed:
            yield f"failed in {len(failed)} of {len(self.rounds)} rounds: {failed[-1]}"

    def _canary_noise(self) -> Iterator[str]:
        if self._slow and not self._leaves_slow_out:
            yield (
                f"the canary was slow in {len(self._slow)} of {len(self._timed)} rounds, by up to "
                f"{max(self._slow.values()):.1%}"
            )
        runs: dict[str, list[float]] = {}
        for item, _ in self._visits:
            if item.canary_ns:
                runs.setdefault(item.run_id, []).append(float(np.median(item.canary_ns)))
        medians = {run: float(np.median(canaries)) for run, canaries in runs.items()}
        for (first, one), (second, other) in combinations(medians.items(), 2):
            difference = other / one - 1
            if abs(difference) > CANARY_DRIFT_LIMIT:
                yield (
                    f"the canary took {abs(difference):.1%} {'more' if difference > 0 else 'less'} "
                    f"in run {second[:8]} than in run {first[:8]}"
                )

    def _notes(self) -> Iterator[str]:
        if self._summaries:
            yield f"from summaries: the {self.statistic} of each round's runs, no single samples"
        asked = self.setup.accelerator_name
        for place in self.placements if asked != "cpu" else ():
            if place.accelerator != asked:
                yield f"{asked} was asked for, and {place.accelerator} ran it"
            elif None not in (place.delegated, place.nodes) and place.delegated != place.nodes:
                yield (
                    f"{place.delegated} of {place.nodes} nodes ran on {place.accelerator}, in "
                    f"{place.partitions} partitions"
                )
        if self._slow and self._leaves_slow_out:
            yield (
                f"{len(self._slow)} of {len(self._timed)} rounds left out: the canary was slow by "
                f"up to {max(self._slow.values()):.1%}"
            )
        unchecked = sum(visit.preempted is None for _, visit in self._visits)
        if unchecked and not self._summaries:
            yield f"preemption unchecked in {unchecked} of {len(self._visits)} rounds"


def measurement(model: ModelKey, setup: Setup, rounds: Sequence[Round]) -> Measurement:
    """What `rounds` say about a model. Rounds that were not accepted are left out.

    Raises `DeviceError` where no accepted round timed the model; it names the failure if there is
    one. Also where rounds give different statistics: they are never mixed.
    """
    accepted = tuple(
        item
        for item in rounds
        if item.accepted and (model in item.visits or model in item.failures)
    )
    visits = [item.visits[model] for item in accepted if model in item.visits]
    kinds = {"samples" if visit.summary is None else visit.summary.statistic for visit in visits}
    if len(kinds) > 1:
        listed = ", ".join(sorted(kinds))
        raise DeviceError(
            f"{model[0]} on {setup.key} has rounds of several kinds, {listed}, which are never "
            "mixed. Measure it into a new store."
        )
    if not any(is_timed(visit) for visit in visits):
        failures = [item.failures[model] for item in rounds if model in item.failures]
        cause = f"it failed: {failures[-1]}" if failures else "it has no accepted round; measure it"
        raise DeviceError(
            f"there is no measurement of {model[0]} (eviction {model[1]} bytes) on {setup.key}: "
            f"{cause}"
        )
    return Measurement(model[0], setup, model[1], accepted)


def is_timed(visit: Visit) -> bool:
    """Whether a visit says how long its model takes."""
    return bool(visit.samples_ns) or visit.summary is not None


def _count_of(part: int, whole: int) -> str:
    return f"every sample ({whole}) was" if part == whole else f"{part} of {whole} samples were"


@lru_cache(maxsize=1000)
def _interval_rank(count: int) -> int:
    """Largest rank from either end, from 0, that encloses the median with 95 % confidence."""
    rank = 0
    outside = 1 + count  # ways in which at most `rank + 1` of `count` values lie below the median
    while 1 - 2 * outside / 2**count >= CONFIDENCE:
        rank += 1
        outside += math.comb(count, rank + 1)
    return rank
