"""Profiling: times what the store does not hold yet, and stores each round as it comes."""

from __future__ import annotations

import math
import statistics
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.progress import Progress, TaskID

from ..devices.device import (
    CANARY_DRIFT_LIMIT,
    Device,
    Model,
    ModelKey,
    TimingProtocol,
)
from ..devices.errors import UnstableError
from ..devices.measurement import MINIMUM_ROUNDS, Measurement
from ..devices.quiet import quiet_canary_ns
from .store import Store
from .subject import Subject, subject_id, write_model

BATCH_SIZE = 200
"""Models that a round covers at most, so that a round is short and a kill costs seconds."""

UNSTEADY_FACTOR = 2
"""What is unsteady after the protocol's rounds is timed until it has this many times as many."""

Request = tuple[Subject, int]
"""A subject, and the bytes to evict before each of its runs."""


@dataclass(frozen=True, slots=True)
class Profile:
    """What profiling gave: a measurement or the cause of its failure for every model asked for."""

    measurements: Mapping[ModelKey, Measurement]
    failures: Mapping[ModelKey, str]


def profile(
    device: Device,
    models: Sequence[Request],
    store: Store,
    protocol: TimingProtocol,
    *,
    strict: bool = False,
    retry_failed: bool = False,
    folder: Path | None = None,
    progress: Progress | None = None,
    description: str = "profile",
) -> Profile:
    """Time `models` on `device` until the store holds `protocol.rounds` accepted rounds of each.

    What is unsteady then is timed for as many rounds again, once: a device is often busy for a
    while only. It counts with all its rounds, and is noisy in the end where it still is.

    Whatever the store holds already is not measured again, so a killed run goes on where it was.
    A model that failed before is tried again only with `retry_failed`. `folder` is where the
    models' files are written (default: `store.model_folder`).

    With `strict`, rounds of an earlier run whose canary differs by more than
    `CANARY_DRIFT_LIMIT` from the latest run's are discarded and measured again, once; raises
    `UnstableError` where a measurement is not stable in the end. All rounds are stored by then.
    """
    run = _Run(device, store, protocol, folder or store.model_folder, progress, description)
    subjects = {(subject_id(subject), size): subject for subject, size in models}
    store.add_subjects(list(subjects.values()))
    failed: Mapping[ModelKey, str] = {} if retry_failed else store.failures(device.setup)
    run.measure(subjects, failed, protocol.rounds)
    if strict and run.discard_older_runs(subjects):
        failed = store.failures(device.setup)
        run.measure(subjects, failed, protocol.rounds)
    failed = store.failures(device.setup)
    found = store.all_measurements(device.setup)
    unsteady = {
        key: subject for key, subject in subjects.items() if key in found and found[key].unsteady
    }
    if unsteady and protocol.rounds >= MINIMUM_ROUNDS:
        run.measure(unsteady, failed, protocol.rounds * UNSTEADY_FACTOR)
        failed = store.failures(device.setup)
        found = store.all_measurements(device.setup)
    result = Profile(
        {key: found[key] for key in subjects if key in found and key not in failed},
        {key: failed[key] for key in subjects if key in failed},
    )
    if strict:
        _check_stable(result)
    return result


class _Run:
    """One call of `profile`."""

    def __init__(
        self,
        device: Device,
        store: Store,
        protocol: TimingProtocol,
        folder: Path,
        progress: Progress | None,
        description: str,
    ) -> None:
        self._device = device
        self._store = store
        self._protocol = protocol
        self._folder = folder
        self._progress = progress
        self._description = description
        self._task: TaskID | None = None

    def measure(
        self, subjects: Mapping[ModelKey, Subject], failed: Mapping[ModelKey, str], rounds: int
    ) -> None:
        """Time each model that has not failed until it has this many rounds."""
        finished = self._store.finished_rounds(self._device.setup)
        by_missing: dict[int, list[ModelKey]] = {}
        for key in subjects:
            missing = rounds - finished.get(key, 0)
            if missing > 0 and key not in failed:
                by_missing.setdefault(missing, []).append(key)
        total = sum(missing * len(keys) for missing, keys in by_missing.items())
        if total and self._progress is not None:
            self._task = self._progress.add_task(self._description, total=total)
        for missing, keys in sorted(by_missing.items(), reverse=True):
            for batch in _batches(keys, BATCH_SIZE):
                models = [
                    Model(key[0], write_model(subjects[key], self._folder), key[1]) for key in batch
                ]
                self._measure_batch(models, missing)

    def _measure_batch(self, models: Sequence[Model], missing: int) -> None:
        canaries = self._store.canary_medians_ns(self._device.setup)
        protocol = replace(
            self._protocol,
            quiet_canary_ns=quiet_canary_ns(canaries) if canaries else None,
            rounds=missing,
            processes=min(self._protocol.processes, missing),
            # Another seed gives the rounds that are left orders of their own.
            seed=self._protocol.seed + UNSTEADY_FACTOR * self._protocol.rounds - missing,
        )
        info = self._device.info()
        rounds = self._device.measure(models, protocol)
        try:
            for item in rounds:
                self._store.add_round(self._device.setup, protocol, info, item)
                if item.accepted and self._progress is not None and self._task is not None:
                    self._progress.advance(self._task, len(models))
        finally:
            # Where storing failed or the user stops, the device's processes end now, not later.
            if isinstance(rounds, Generator):
                rounds.close()

    def discard_older_runs(self, keys: Iterable[ModelKey]) -> bool:
        """Discard rounds of runs whose canary differs from the latest one's; tell if any was."""
        setup = self._device.setup
        runs_of: dict[ModelKey, list[str]] = {}
        canary: dict[str, list[float]] = {}
        rounds = [item for item in self._store.rounds(setup) if item.accepted]
        for item in rounds:
            canary.setdefault(item.run_id, []).append(statistics.median(item.canary_ns))
            for key in item.visits:
                runs_of.setdefault(key, []).append(item.run_id)
        median = {run_id: statistics.median(medians) for run_id, medians in canary.items()}
        drifted: set[str] = set()
        for key in keys:
            runs = runs_of.get(key, [])
            drifted.update(
                run_id
                for run_id in runs
                if abs(median[run_id] / median[runs[-1]] - 1) > CANARY_DRIFT_LIMIT
            )
        self._store.discard(
            (item for item in rounds if item.run_id in drifted),
            f"the canary of a later run differs by more than {CANARY_DRIFT_LIMIT:.0%}",
        )
        return bool(drifted)


def _batches(keys: Sequence[ModelKey], size: int) -> Iterator[Sequence[ModelKey]]:
    """Split into as few batches of at most `size` as possible, of about equal length."""
    count = math.ceil(len(keys) / size)
    for index in range(count):
        yield keys[index * len(keys) // count : (index + 1) * len(keys) // count]


def _check_stable(result: Profile) -> None:
    unstable = {
        key: item for key, item in result.measurements.items() if item.verdict.kind != "stable"
    }
    if unstable:
        (model, _), first = next(iter(unstable.items()))
        raise UnstableError(
            f"{len(unstable)} of {len(result.measurements)} measurements are not stable. The "
            f"first, {model}, is {first.verdict.kind}: {'; '.join(first.verdict.reasons)}. All "
            "rounds are stored. Quiet the device and measure again, with more rounds."
        )
