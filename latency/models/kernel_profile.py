"""Kernel profiling: times probe networks kernel by kernel, and as wholes, on a device.

Each network is timed in a fresh process, the canary beside it; where that was slow, the network is
timed again a little later, as long as repeats are left. Rows are stored as they come, so that a
kill costs one network, and nothing is timed twice.
"""

from __future__ import annotations

import itertools
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import onnx
from rich.progress import Progress

from ...devices.convert import prepare
from ...devices.device import CANARY_DRIFT_LIMIT, Device, Setup
from ...devices.errors import DeviceError, LatkitError, UsageError
from ...devices.quiet import QuietWatch, quiet_canary_ns
from ..counts import count
from ..kernel_run import KernelRun
from ..splitting.model_split import Split, device_split
from ..store import Store
from .probe_networks import probe_name, probe_network

DEFAULT_MINUTES = 15.0
"""Time that profiling takes where no bound is given: some 500 networks on a quiet host."""

FEWEST_RUNS, MOST_RUNS = 12, 50
RUNS_FLOPS = 15e9
"""Work of all timed runs of a network, about, where it is between those numbers of runs."""

REPEATS_SHARE = 0.3
"""Repeats at most, as a share of the networks timed; what is slow after that is accepted."""

ATTEMPTS = 3
"""Times that one network is timed at most."""

PAUSE_S = 2.0
"""Pause before a network is timed again: slow phases of a host last seconds, often minutes."""

GREATEST_REMAINDER = 1.15
"""A whole that takes more than this many times its kernels was interrupted."""

LEAST_CLEAN_SHARE = 0.25
"""Share of the runs during which the process must have kept its processor."""

SEVERE_DRIFT = 0.15
"""A canary that was slower by more than this share at any time within a network repeats it."""

MOST_FAILURES = 20
"""Networks in a row that may fail before profiling ends: then it is not the networks."""


@dataclass(frozen=True, slots=True)
class KernelProfile:
    """What the store holds of a setup after profiling.

    `seconds` is all the time that it took, waits and earlier calls included.
    """

    setup: Setup
    networks: int
    kernels: int
    seconds: float
    failures: Mapping[str, str]


def profile_kernels(
    device: Device,
    store: Store,
    *,
    networks: int | None = None,
    minutes: float | None = None,
    progress: Progress | None = None,
    label: str = "kernels",
) -> KernelProfile:
    """Time probe networks until the store holds `networks` of them or `minutes` of their time.

    Neither given: `DEFAULT_MINUTES`. Time that earlier calls spent counts, so a run that was cut
    off goes on where it was. Raises `UsageError` for a device that can't tell the times of single
    kernels, `LatkitError` where every network fails.
    """
    setup, info = device.setup, device.info()
    if setup.batch_size != 1 or setup.precision != "float32":
        raise UsageError("kernels are profiled in float32 and at batch size 1 only")
    if networks is None and minutes is None:
        minutes = DEFAULT_MINUTES
    found = store.kernel_runs(setup)
    finished = {run.network for run in found if run.accepted}
    state = _State(
        timed=sum(run.accepted and run.split is not None for run in found),
        seconds=sum(run.duration_s for run in found),
        failed_in_a_row=0,
    )
    task = None
    if progress is not None:
        total = networks if networks is not None else 60 * (minutes or 0)
        task = progress.add_task(label, total=total)
    with tempfile.TemporaryDirectory(prefix="latkit-") as folder:
        watch = _watch(found)
        for seed in itertools.count():
            if progress is not None and task is not None:
                done = state.timed if networks is not None else state.seconds
                progress.update(task, completed=done)
            if networks is not None and state.timed >= networks:
                break
            if minutes is not None and state.seconds >= 60 * minutes:
                break
            if probe_name(seed) in finished:
                continue
            for run in _runs(seed, device, Path(folder), watch, state):
                store.add_kernel_run(setup, info, run)
            if state.failed_in_a_row >= MOST_FAILURES:
                raise LatkitError(
                    f"{MOST_FAILURES} probe networks in a row can't be timed on {setup.key}; the "
                    f"last one: {state.last_cause}"
                )
    return kernel_profile(store, setup)


def splits_at_one_speed(runs: Sequence[KernelRun]) -> list[Split]:
    """The splits of accepted runs, at the speed that the device had in the middle one of them.

    As `one_speed.at_one_speed` does it: times are longer or shorter by the share by which the
    canary was quicker or slower. Runs without a canary are taken as they are.
    """
    timed = [(run, run.split) for run in runs if run.accepted and run.split is not None]
    medians = [statistics.median(run.canary_ns) for run, _ in timed if run.canary_ns]
    usual_ns = statistics.median(medians) if medians else 0.0
    return [
        _faster(split, statistics.median(run.canary_ns) / usual_ns if run.canary_ns else 1.0)
        for run, split in timed
    ]


def _faster(split: Split, factor: float) -> Split:
    return replace(
        split,
        whole_ms=None if split.whole_ms is None else split.whole_ms / factor,
        kernels=tuple(
            replace(item, median_ms=None if item.median_ms is None else item.median_ms / factor)
            for item in split.kernels
        ),
    )


def kernel_profile(store: Store, setup: Setup) -> KernelProfile:
    """What the store holds of a setup's probe networks."""
    found = store.kernel_runs(setup)
    splits = [run.split for run in found if run.accepted and run.split is not None]
    return KernelProfile(
        setup,
        networks=len(splits),
        kernels=sum(len(split.kernels) for split in splits),
        seconds=sum(run.duration_s for run in found),
        failures={run.network: run.cause for run in found if run.cause},
    )


@dataclass(slots=True)
class _State:
    """Where a call stands."""

    timed: int
    seconds: float
    failed_in_a_row: int
    repeats: int = 0
    last_cause: str = ""


def _watch(found: Sequence[KernelRun]) -> QuietWatch:
    medians = [statistics.median(run.canary_ns) for run in found if run.canary_ns]
    return QuietWatch(quiet_canary_ns(medians) if medians else None, 0.0)


def _runs(
    seed: int, device: Device, folder: Path, watch: QuietWatch, state: _State
) -> Iterator[KernelRun]:
    """Time one probe network, and again where the device was busy."""
    setup = device.setup
    model = probe_network(seed)
    runs = max(FEWEST_RUNS, min(MOST_RUNS, round(RUNS_FLOPS / max(1, count(model).flops))))
    path = folder / f"{seed}.onnx"
    onnx.save(model, path)
    try:
        for attempt in range(ATTEMPTS):
            started_at, started = time.time(), time.monotonic()
            if attempt:
                time.sleep(PAUSE_S)
            split, cause, drift = None, "", 0.0
            samples: tuple[int, ...] = ()
            try:
                # Thousands of converted networks would fill the cache of the user.
                prepared = prepare(path, setup.runtime, folder, setup.batch_size)
                split = device_split(prepared, device, runs=runs)
                samples = tuple(round(sample) for sample in split.canary_ns)
                drift = watch.drift(statistics.median(samples)) if samples else 0.0
            except UsageError as error:
                if not state.timed:
                    raise  # The device can't tell kernels at all.
                cause = str(error)
            except DeviceError as error:
                cause = str(error)
            repeats_left = state.repeats < REPEATS_SHARE * (state.timed + 10)
            quiet = drift <= CANARY_DRIFT_LIMIT and (split is None or not _is_disturbed(split))
            accepted = bool(cause) or quiet or attempt == ATTEMPTS - 1 or not repeats_left
            duration_s = time.monotonic() - started
            state.seconds += duration_s
            state.repeats += not accepted
            state.timed += accepted and not cause
            state.failed_in_a_row = state.failed_in_a_row + 1 if cause else 0
            state.last_cause = cause
            yield KernelRun(
                probe_name(seed),
                accepted=accepted,
                started_at=started_at,
                duration_s=duration_s,
                canary_ns=samples,
                canary_drift=drift,
                split=split,
                cause=cause,
            )
            if accepted:
                return
    finally:
        for used in folder.iterdir():
            used.unlink()


def _is_disturbed(split: Split) -> bool:
    """Whether other processes ran in between: long runs are hit by that, the canary is not."""
    assert split.whole_ms is not None
    total = sum(item.median_ms or 0.0 for item in split.kernels)
    return (
        split.whole_ms > GREATEST_REMAINDER * total
        or split.canary_drift > SEVERE_DRIFT
        or split.clean_share < LEAST_CLEAN_SHARE
    )
