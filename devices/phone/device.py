"""Phones as devices: rounds timed by a program on an Android phone, over adb."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..adb import Adb, AdbLink
from ..backend import Visited, Worker
from ..canary import canary_file
from ..convert import SUFFIXES, check_precision, default_cache, each_prepared, prepare
from ..device import FALLBACK, Model, Precision, Round, Setup, TimingProtocol
from ..errors import DeviceError, LatkitError, UsageError
from ..job import Job
from ..options import DeviceOptions
from ..per_op import RUNS, WARMUPS, OperationTimes
from ..precision import described
from ..rounds import SEVERE_DRIFT, measure_rounds
from ..runner import runner_path
from .facts import choose_cores, read_facts
from .profile import phone_operation_times
from .programs import Accelerator, BenchmarkProgram, PhoneProgram, RunnerProgram
from .settings import prepared, put_back
from .state import MODERATE, read_state, thermal_rise, wait_cool

TIMEOUT_S = 120.0
"""How long one model may take to load, or to be visited beyond its usual time."""

PROFILE_WARMUP_MS = 1000.0
"""After so long no more warm-ups begin while a model is profiled, but for the first two."""

COOLING_S = 300.0
"""How long may be waited in one call for a phone to cool down."""


class PhoneDevice:
    """Times model files on an Android phone, by a program and a library that the user has.

    Linked to the phone only while it measures. Raises `DeviceError` where the phone can't be
    reached or has another architecture, `UsageError` where the library or an option doesn't fit.
    """

    def __init__(self, adb: Adb, serial: str | None, options: DeviceOptions) -> None:
        check_precision(options.precision)
        _check_float16(options)
        self.timeout_s = TIMEOUT_S
        self._adb = adb
        self._cache = default_cache()
        self._link: AdbLink | None = None
        self._cooling_left_s = COOLING_S
        with adb.connect(serial) as link:
            self._serial = link.serial
            self._facts = read_facts(link)
            put_back(link)
            self._abi = abi = architecture(self._facts, self._serial)
            self._program: PhoneProgram
            if options.benchmark_model is None:
                self._program = RunnerProgram(options, abi, self._cache)
            else:
                canary = prepare(canary_file(self._cache), "litert", self._cache)
                self._program = BenchmarkProgram(options, abi, link, canary)
        self._precision = described(SUFFIXES[self._program.runtime], options.precision, abi)
        self._setup = Setup(
            device=phone_name(self._facts, self._serial),
            runtime=self._program.runtime,
            runtime_version=self._program.version,
            accelerator=_asked_for(self._program.accelerator, options.allow_fallback),
            threads=options.threads,
            cores=choose_cores(self._facts, options.threads, options.cores),
            precision=options.precision,
            batch_size=options.batch_size,
            emulated=self._facts["emulated"],
        )

    @property
    def setup(self) -> Setup:
        """The key under which its measurements are filed."""
        return self._setup

    def info(self) -> dict[str, Any]:
        """Everything about the phone and the runtime that could explain a latency."""
        accelerator = self._program.accelerator
        delegate = {
            "accelerator_library": str(accelerator.library),
            "accelerator_sha256": accelerator.sha256,
        }
        return {
            **self._facts,
            **self._program.info(),
            "serial": self._serial,
            "adb": self._adb.version(),
            "runs_in": "adb shell",
            "precision": self._precision,
            **({} if accelerator.library is None else delegate),
        }

    def measure(self, models: Sequence[Model], protocol: TimingProtocol) -> Iterator[Round]:
        """Time `models` by `protocol`; yield each round as it is finished. See `measure_rounds`."""
        return measure_rounds(self, models, protocol)

    def operations(
        self,
        path: Path,
        *,
        runs: int = RUNS,
        warmups: int = WARMUPS,
        optimized: Path | None = None,
    ) -> OperationTimes:
        """Times of a model's operations on the phone, by its runtime's own profiler.

        `path` is a file that the runtime eats, or an .onnx file to be converted. With `runs=0` the
        model is profiled once only: the operations are known then, not their times. ONNX Runtime's
        graph, as it runs on this phone, is written to `optimized`.

        Raises `UsageError` where the phone's runtime can't tell them, `DeviceError` where the model
        can't be run, or the phone is lost.
        """
        start = self._program.profiler()
        file = self._prepare(path, self._setup.precision)
        with self.session():
            (place,) = self._linked.push([file])
            job = Job(self.canary(), ((place, 0),), (), warmups, PROFILE_WARMUP_MS)
            return phone_operation_times(
                self._linked,
                start(self._linked, self._setup, job),
                file,
                runs=runs,
                warmups=warmups,
                timeout_s=self.timeout_s,
                optimized=optimized,
            )

    @contextmanager
    def session(self) -> Iterator[Mapping[str, Any]]:
        """Link to the phone, keep it awake and its clocks fixed; put all back afterwards."""
        self._cooling_left_s = COOLING_S
        with self._adb.connect(self._serial) as link, prepared(link) as done:
            self._link = link
            try:
                yield {"prepared": dict(done)}
            finally:
                self._link = None

    def deliver(self, models: Sequence[Path]) -> list[str | LatkitError]:
        """Convert the models where needed and push them."""
        precision = self._setup.precision
        files = each_prepared(models, lambda path: self._prepare(path, precision))
        found = list(dict.fromkeys(item for item in files if isinstance(item, Path)))
        places = dict(zip(found, self._linked.push(found), strict=True))
        return [places[item] if isinstance(item, Path) else item for item in files]

    def canary(self) -> str:
        """Push the canary: float32 in every precision, since it watches the phone."""
        (place,) = self._linked.push([self._prepare(canary_file(self._cache), "float32")])
        return place

    def worker(self, job: Job, folder: Path) -> Worker:
        """A fresh program on the phone."""
        del folder
        return self._program.worker(self._linked, self._setup, job)

    def state(self) -> Mapping[str, Any]:
        """Temperatures, battery, screen: what changes."""
        return read_state(self._linked)

    def throttled(
        self, before: Mapping[str, Any], after: Mapping[str, Any], visited: Visited, drift: float
    ) -> str | None:
        """Heat, a canary far slower than on the quiet phone, or other cores than asked for."""
        pinned = visited.context.get("pinned_to")
        if self._setup.cores is not None and pinned not in (None, list(self._setup.cores)):
            return f"it ran on cores {pinned} instead of {list(self._setup.cores)}"
        rise = thermal_rise(before, after)
        if rise is None and drift > SEVERE_DRIFT:
            return f"the canary was {drift:.0%} slower than on the quiet phone"
        return rise

    def cool(self, before: Mapping[str, Any]) -> float:
        """Wait for the thermal status of before the round, up to `COOLING_S` in a call.

        A phone that was slowed down by heat even then must cool further.
        """
        limit = min(before.get("thermal_status") or 0, MODERATE - 1)
        waited = wait_cool(self._linked, limit, self._cooling_left_s)
        self._cooling_left_s -= min(waited["waited_s"], self._cooling_left_s)
        return float(waited["waited_s"])

    @property
    def _linked(self) -> AdbLink:
        if self._link is None:
            raise DeviceError(f"{self._serial} is not linked: this happens outside of a session")
        return self._link

    def _prepare(self, path: Path, precision: Precision) -> Path:
        runtime, batch_size = self._setup.runtime, self._setup.batch_size
        prepared_path = prepare(path, runtime, self._cache, batch_size, precision, self._abi)
        if prepared_path.suffix == ".onnx":
            _require_whole(prepared_path)
        return prepared_path


def _asked_for(accelerator: Accelerator, allow_fallback: bool) -> str:
    """What `Setup.accelerator` says. With a fallback allowed it is another setup: what was timed
    elsewhere must not be taken for the accelerator's later, nor failures hold where it is allowed.
    """
    is_asked = allow_fallback and accelerator.name != "cpu"
    return f"{accelerator.key}{FALLBACK if is_asked else ''}"


def _check_float16(options: DeviceOptions) -> None:
    """Raise `UsageError` where float16 would be asked for and float32 be computed."""
    name = (options.accelerator or "").partition(":")[0]
    is_wide = name in ("gpu", "nnapi") and options.benchmark_model is None
    if options.precision == "float16" and is_wide:
        raise UsageError(
            f"our program has {name} compute in float32, whatever the weights are; "
            "for float16 on it give TFLite's own: --benchmark-model"
        )


def _require_whole(path: Path) -> None:
    """Raise `UsageError` where a model's weights lie in other files: one file is pushed."""
    import onnx
    from onnx.external_data_helper import uses_external_data

    try:
        model = onnx.load(path, load_external_data=False)
    except Exception:
        return  # A damaged file is the runtime's to judge, as on any other device.
    if any(uses_external_data(weight) for weight in model.graph.initializer):
        raise UsageError(
            f"{path} keeps weights in other files, which are not brought to a phone; save it with "
            "them inside: onnx.save(onnx.load(path), new_path)"
        )


def architecture(facts: Mapping[str, Any], serial: str) -> str:
    """The first of the phone's ABIs that there is a runner for; `DeviceError` names them."""
    abis = facts["abis"] or []
    for abi in abis:
        try:
            runner_path(abi)
        except DeviceError:
            continue
        return str(abi)
    raise DeviceError(
        f"phone {serial} runs programs for {', '.join(abis) or 'nothing known'}; there are runners "
        "for arm64-v8a and x86_64 only"
    )


def phone_name(facts: Mapping[str, Any], serial: str) -> str:
    """What `Setup.device` says: the very phone, its model, SoC and Android release."""
    parts = [f"adb:{facts['serial_number'] or serial}"]
    parts += [str(facts[name]) for name in ("manufacturer", "model") if facts[name]]
    parts.append(f"({facts['soc'] or 'unknown SoC'}, Android {facts['android'] or 'unknown'})")
    return " ".join(parts).replace("|", "/")
