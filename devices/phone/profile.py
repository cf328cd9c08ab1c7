"""Per-operation times of a model on a phone, and the graph that ONNX Runtime runs there.

The runner has the runtime write both files on the phone, in turn with runs of the same model
without the profiler and of the canary, as `per_op` does on this host. A phone's graph is its own:
this host's, optimized for another processor, says nothing of it.
"""

from __future__ import annotations

import contextlib
import json
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from secrets import token_hex

from ..adb import FOLDER, AdbLink
from ..backend import WorkerLostError
from ..device import Visit
from ..errors import DeviceError
from ..onnx_profile import node_times, run_times_ms
from ..per_op import FEWEST_CLEAN, SLICES, OperationTime, OperationTimes
from ..profiled import ProfiledOperation, Shaped, middle_ms
from .worker import Profiled, RunnerWorker, Turns

_REMOVE = 'cd "$1" && rm -f -- profile.*'
"""All of them: a phone is held by one process, so others were left by calls that were cut off."""


def phone_operation_times(
    link: AdbLink,
    worker: RunnerWorker,
    path: Path,
    *,
    runs: int,
    warmups: int,
    timeout_s: float,
    optimized: Path | None,
) -> OperationTimes:
    """Times of the operations of the one model of a worker that was just started; ends it.

    `path` is the model's file on this host. See `per_op.operation_times`; the warm-ups come before
    each of the turns. The phone is left without the files, and `optimized` is written whole and
    last. Raises `DeviceError` where the model can't be run or profiled, or the link breaks: what
    then remains on the phone goes when it is profiled again.
    """
    turns = Turns(min(SLICES, runs), warmups, max(1, -(-runs // SLICES)))
    try:
        _remove(link)
        told = _told(worker, path, turns, timeout_s)
        with tempfile.TemporaryDirectory(prefix="latkit-") as folder:
            profile = Path(folder) / "profile.json"
            link.pull(told.profile, profile)
            operations, runs_ms = _read(profile, turns.counted, path)
        if optimized is not None:
            link.pull(told.optimized, optimized)
    except BaseException:
        worker.end()
        with contextlib.suppress(DeviceError):
            _remove(link)
        raise
    worker.end()
    _remove(link)
    whole_ms, clean_share = _whole(told.visits)
    return OperationTimes(
        operations=tuple(
            OperationTime(item.name, item.kind, middle_ms(item.times_ms), item.outputs)
            for item in operations
        ),
        whole_ms=whole_ms,
        profiled_ms=statistics.median(runs_ms) if turns.count else 0.0,
        canary_ns=tuple(statistics.median(visit.samples_ns) for visit in told.canary),
        clean_share=clean_share,
        inputs=_inputs(path),
    )


def _told(worker: RunnerWorker, path: Path, turns: Turns, timeout_s: float) -> Profiled:
    """What the runner tells; `DeviceError` that names the file where it can't."""
    try:
        for cause in worker.load(timeout_s).failures.values():
            raise DeviceError(f"{path} can't be profiled: it {cause}")
        return worker.profile(0, turns, f"{FOLDER}/profile.{token_hex(8)}", timeout_s)
    except WorkerLostError as lost:
        raise DeviceError(f"{path} can't be profiled: at {lost.action} it {lost.cause}") from None


def _read(
    file: Path, counted: Sequence[bool], path: Path
) -> tuple[list[ProfiledOperation], list[float]]:
    """The operations and the whole runs of a profiler's file."""
    try:
        events = json.loads(file.read_bytes())
        operations, runs_ms = node_times(events, counted), run_times_ms(events, counted)
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise DeviceError(
            f"the phone's profile of {path} can't be read ({type(error).__name__}: {error}); use "
            "the library of ONNX Runtime 1.31"
        ) from error
    if len(runs_ms) != sum(counted):
        raise DeviceError(
            f"the phone's profile of {path} holds {len(runs_ms)} runs of {sum(counted)}; profile "
            "it with fewer runs"
        )
    return operations, runs_ms


def _inputs(path: Path) -> tuple[tuple[str, Shaped], ...]:
    """Names, element types and shapes of a model's inputs; an open batch is 1, as on the phone."""
    import onnx
    from onnx import helper

    graph = onnx.load(path, load_external_data=False).graph
    weights = {item.name for item in graph.initializer}
    return tuple(
        (
            item.name,
            (
                str(helper.tensor_dtype_to_np_dtype(item.type.tensor_type.elem_type)),
                tuple(max(1, axis.dim_value) for axis in item.type.tensor_type.shape.dim),
            ),
        )
        for item in graph.input
        if item.name not in weights
    )


def _whole(visits: Sequence[Visit]) -> tuple[float, float]:
    """Median of the plain runs in milliseconds, and the share that was not preempted.

    It is that of the latter alone where there are enough.
    """
    samples = [
        (sample, not hit)
        for visit in visits
        for sample, hit in zip(visit.samples_ns, visit.preempted or (), strict=True)
    ]
    if not samples:
        return 0.0, 1.0
    clean_ns = [sample for sample, clean in samples if clean]
    enough = len(clean_ns) >= FEWEST_CLEAN
    used_ns = clean_ns if enough else [sample for sample, _ in samples]
    return statistics.median(used_ns) / 1e6, len(clean_ns) / len(samples)


def _remove(link: AdbLink) -> None:
    link.script(_REMOVE, FOLDER, doing="removing profiles")
