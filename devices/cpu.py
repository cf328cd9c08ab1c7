"""This host's processor as a device: rounds in fresh, pinned worker processes."""

from __future__ import annotations

import statistics
import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from .convert import default_cache, prepare
from .device import (
    CANARY_DRIFT_LIMIT,
    PRECISIONS,
    Model,
    ModelKey,
    Precision,
    Round,
    Setup,
    TimingProtocol,
    Visit,
)
from .errors import DeviceError, LatkitError, UsageError
from .files import write_atomically
from .host import allowed_cores, can_pin, hardware_name, host_facts
from .job import Job
from .quiet import QuietWatch
from .runtimes import find_runtime, runtime_facts
from .worker_process import WorkerLostError, WorkerProcess

TIMEOUT_S = 300.0
"""How long one model may take to load, or to be visited beyond `EXPECTED_TIMES` its usual time."""

EXPECTED_TIMES = 100
EVICTION_BYTES_A_SECOND = 1e9
"""A low guess, for timeouts only."""

MAX_LOST_WORKERS = 20
"""So many models may crash or hang their worker in one call; after that the device is given up."""


class CpuDevice:
    """Times model files on this host's processor.

    Every process that times is fresh, pinned to `cores` (by default the last `threads` of those
    allowed, where the host can pin), and loads all models before its first round. Conversions are
    kept in `cache`. Raises `DeviceError` where the runtime is not installed or can't do
    `precision`, `UsageError` where the cores don't fit.
    """

    def __init__(
        self,
        *,
        runtime: str = "onnxruntime",
        threads: int = 1,
        cores: Sequence[int] | None = None,
        precision: Precision = "float32",
        cache: Path | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self._runtime = find_runtime(runtime)
        if precision not in PRECISIONS:
            raise UsageError(
                f"there is no precision {precision!r}; there are {', '.join(PRECISIONS)}"
            )
        if precision != "float32":
            raise DeviceError(f"the cpu device does not support {precision} yet; use float32")
        self._cache = default_cache() if cache is None else cache
        self._timeout_s = timeout_s
        self._setup = Setup(
            device=f"cpu:{hardware_name()}",
            runtime=self._runtime.name,
            runtime_version=self._runtime.version(),
            threads=threads,
            cores=_choose_cores(threads, cores),
            precision=precision,
        )

    @property
    def setup(self) -> Setup:
        """The key under which its measurements are filed."""
        return self._setup

    def info(self) -> dict[str, Any]:
        """Everything about the host and the runtime that could explain a latency."""
        return {**host_facts(), **runtime_facts(self._runtime, self._setup.threads)}

    def measure(self, models: Sequence[Model], protocol: TimingProtocol) -> Iterator[Round]:
        """Time `models` by `protocol`; yield each round as it is finished.

        A round waits for a quiet device, up to `protocol.max_wait_s` in all. Where its canary is
        slower than the quiet device's by more than `CANARY_DRIFT_LIMIT` all the same, and repeats
        are left, the round is yielded with `accepted=False` and done again. A model that fails
        once is left out from then on, with its cause in `failures`, also when it takes the worker
        with it.

        Raises `UsageError` where a key occurs twice or the protocol asks for nothing,
        `DeviceError` where workers can't be started or are lost again and again.
        """
        keys = [model.key for model in models]
        if len(set(keys)) < len(keys):
            twice = next(key for key in keys if keys.count(key) > 1)
            raise UsageError(f"the model {twice[0]!r}, eviction {twice[1]} bytes, is given twice")
        if any(model.eviction_bytes < 0 for model in models):
            raise UsageError("eviction_bytes must be at least 0")
        if min(protocol.rounds, protocol.processes, protocol.runs) < 1:
            raise UsageError(f"rounds, processes and runs must be at least 1: {protocol}")
        least = (protocol.warmups, protocol.warmup_ms, protocol.max_repeats, protocol.max_wait_s)
        if min(*least, protocol.seed) < 0:
            raise UsageError(f"warm-ups, repeats, waits and seed must be at least 0: {protocol}")
        return self._rounds(tuple(models), protocol)

    def _rounds(self, models: tuple[Model, ...], protocol: TimingProtocol) -> Iterator[Round]:
        run_id = uuid.uuid4().hex
        watch = QuietWatch(protocol.quiet_canary_ns, protocol.max_wait_s)
        repeats_left = protocol.max_repeats
        processes = min(protocol.processes, protocol.rounds)
        with tempfile.TemporaryDirectory(prefix="latkit-") as folder:
            batch = _Batch(self, models, protocol, Path(folder))
            try:
                for index in range(protocol.rounds):
                    process = index * processes // protocol.rounds
                    for attempt in range(protocol.max_repeats + 1):
                        watch.wait(partial(batch.canary_ns, process))
                        answer = batch.round(process, index, attempt)
                        drift = watch.drift(statistics.median(answer["canary_ns"]))
                        accepted = drift <= CANARY_DRIFT_LIMIT or repeats_left == 0
                        yield Round(
                            run_id=run_id,
                            process=process,
                            index=index,
                            attempt=attempt,
                            accepted=accepted,
                            started_at=answer["started_at"],
                            duration_s=answer["duration_s"],
                            canary_ns=tuple(answer["canary_ns"]),
                            canary_drift=drift,
                            visits=batch.visits(answer),
                            failures=dict(batch.failures),
                            context=batch.context(answer),
                        )
                        if accepted:
                            break
                        repeats_left -= 1
            finally:
                batch.end()

    def _prepare(self, path: Path) -> Path:
        return prepare(path, self._runtime.name, self._cache)

    def _canary(self) -> Path:
        from .canary import build_canary

        content = build_canary().SerializeToString(deterministic=True)
        path = self._cache / "canary.onnx"
        if not path.is_file() or path.read_bytes() != content:
            write_atomically(path, content)
        return self._prepare(path)


class _Batch:
    """The models of one call, and the worker that has them loaded."""

    def __init__(
        self,
        device: CpuDevice,
        models: tuple[Model, ...],
        protocol: TimingProtocol,
        folder: Path,
    ) -> None:
        self._device = device
        self._models = models
        self._protocol = protocol
        self._folder = folder
        self._canary = device._canary()
        self._worker: WorkerProcess | None = None
        self._process = -1
        self._loaded: dict[str, Any] = {}
        self._lost_workers = 0
        self._paths: list[str] = []
        self.failures: dict[ModelKey, str] = {}
        for model in models:
            try:
                self._paths.append(str(device._prepare(model.path).resolve()))
            except LatkitError as error:
                self._paths.append("")
                self.failures[model.key] = str(error)

    def round(self, process: int, index: int, attempt: int) -> dict[str, Any]:
        """One round, in the worker of this process; again in a fresh one if a model ends it."""
        while True:
            try:
                worker = self._worker_of(process)
                answer = worker.round(index, attempt, self._visit_timeout_s)
            except WorkerLostError as lost:
                self._drop_culprit(lost)
            else:
                self._note_failures(answer["failures"])
                return answer

    def canary_ns(self, process: int) -> float:
        """Median of the canary alone, now, in the worker of this process."""
        while True:
            try:
                samples = self._worker_of(process).canary(self._visit_timeout_s)["canary_ns"]
            except WorkerLostError as lost:
                self._drop_culprit(lost)
            else:
                return float(statistics.median(samples))

    def visits(self, answer: Mapping[str, Any]) -> dict[ModelKey, Visit]:
        """The samples of a worker's answer, by model."""
        return {
            self._models[int(number)].key: Visit(
                tuple(samples), None if preempted is None else tuple(preempted)
            )
            for number, (samples, preempted) in answer["visits"].items()
        }

    def context(self, answer: Mapping[str, Any]) -> dict[str, Any]:
        """What the host did meanwhile, and where the runtime placed the models."""
        before, after = answer["before"], answer["after"]
        context = {
            "load_average": before["load_average"],
            "frequency_mhz": [before["frequency_mhz"], after["frequency_mhz"]],
            "pinned_to": self._loaded["pinned_to"],
            "canary_preempted": answer["canary_preempted"],
            "memory_walk_ns": answer["memory_walk_ns"],
            "lost_workers": self._lost_workers,
        }
        for name in ("steal_ticks", "throttle_events"):
            if before[name] is None or after[name] is None:
                context[name] = None
                context[f"{name}_reason"] = before.get(f"{name}_reason")
            else:
                context[name] = after[name] - before[name]
        if context["throttle_events"]:
            context["throttled"] = f"the processor throttled {context['throttle_events']} times"
        placements: dict[str, int] = {}
        for placement in self._loaded["placements"].values():
            placements[placement] = placements.get(placement, 0) + 1
        if placements:
            context["placements"] = placements
        return context

    def end(self) -> None:
        """Let the worker go."""
        if self._worker is not None:
            self._worker.end()
            self._worker = None

    def _worker_of(self, process: int) -> WorkerProcess:
        if self._worker is not None and self._process == process:
            return self._worker
        self.end()
        setup, protocol = self._device.setup, self._protocol
        skip = [number for number, model in enumerate(self._models) if model.key in self.failures]
        job = Job(
            runtime=setup.runtime,
            threads=setup.threads,
            cores=setup.cores,
            canary=str(self._canary.resolve()),
            models=tuple(
                (path, model.eviction_bytes)
                for path, model in zip(self._paths, self._models, strict=True)
            ),
            skip=tuple(skip),
            warmups=protocol.warmups,
            warmup_ms=protocol.warmup_ms,
            runs=protocol.runs,
            seed=protocol.seed,
            progress=str(self._folder / "progress"),
        )
        self._worker = WorkerProcess(job, self._folder)
        self._process = process
        self._loaded = self._worker.start(self._device._timeout_s)
        self._note_failures(self._loaded["failures"])
        return self._worker

    def _visit_timeout_s(self, number: int | None) -> float:
        known: dict[str, int] = self._loaded["first_run_ns"]
        if number is None or str(number) not in known:
            return self._device._timeout_s
        first_run_ns = known[str(number)]
        protocol, size = self._protocol, self._models[number].eviction_bytes
        expected_s = (protocol.warmups + protocol.runs) * first_run_ns / 1e9
        expected_s += protocol.runs * size / EVICTION_BYTES_A_SECOND
        return self._device._timeout_s + EXPECTED_TIMES * expected_s

    def _note_failures(self, failures: Mapping[str, str]) -> None:
        for number, cause in failures.items():
            self.failures.setdefault(self._models[int(number)].key, cause)

    def _drop_culprit(self, lost: WorkerLostError) -> None:
        """Blame the model that the worker was at; `DeviceError` where that would not be fair."""
        self.end()
        self._lost_workers += 1
        if lost.number is None:
            raise DeviceError(
                f"the worker process {lost.cause} (at: {lost.action}). Nothing of the batch was at "
                "fault; check that the runtime runs here: latkit devices"
            )
        key = self._models[lost.number].key
        if lost.killed:
            raise DeviceError(
                f"something {lost.cause} while the model {key[0]} was at {lost.action}; that is "
                "what happens when memory runs out. Time fewer models at once."
            )
        if self._lost_workers > MAX_LOST_WORKERS:
            raise DeviceError(
                f"{self._lost_workers} worker processes were lost; the last one {lost.cause} at "
                f"the model {key[0]} ({lost.action}). Time the models one by one to find out why."
            )
        self.failures[key] = f"{lost.action}: {lost.cause}"


def _choose_cores(threads: int, cores: Sequence[int] | None) -> tuple[int, ...] | None:
    """The processors to pin to; the last ones by default: systems keep to the first."""
    allowed = allowed_cores()
    if threads < 1:
        raise UsageError(f"threads is {threads}, and must be at least 1")
    if threads > len(allowed):
        raise UsageError(
            f"{threads} threads are asked for, and this process may use {len(allowed)} processors"
        )
    if cores is None:
        return allowed[-threads:] if can_pin() else None
    if not can_pin():
        raise UsageError("this host can't pin a process to cores; leave them out")
    chosen = tuple(sorted(set(cores)))
    foreign = [core for core in chosen if core not in allowed]
    if foreign:
        raise UsageError(f"cores {foreign} are not among those allowed here, {list(allowed)}")
    if len(chosen) < threads:
        raise UsageError(f"{threads} threads need as many cores; given are {list(chosen)}")
    return chosen
