"""TFLite's own `benchmark_model`, the user's, run on a phone: for delegates no library exports.

It gives aggregates only, of one model for each start of the program, without cache eviction.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..adb import FOLDER, AdbLink, LinkLostError, ShellResult
from ..device import Placement, Precision, Summary
from ..errors import DeviceError, UsageError
from ..placement import read_placement
from .benchmark_result import (
    Statistic,
    is_median_told,
    read_result_file,
    read_text,
    summarize,
    unreadable,
)

ACCELERATOR_FLAGS = {
    "xnnpack": "use_xnnpack",
    "gpu": "use_gpu",
    "nnapi": "use_nnapi",
    "plugin": "external_delegate_path",
}
"""The flag that asks for each accelerator; `cpu` is what the program does by default."""

MAX_RUNS_S = 60.0
"""The warm-up and the timed runs are each broken off after so many seconds."""

LOADING_TIMEOUT_S = 300.0
"""How long loading a model may take; some delegates compile for minutes."""

LINK_TIMEOUT_S = 30.0
PROBE_RUNS = 50
RESULT_FILE = f"{FOLDER}/benchmark_result.pb"
"""Where the program writes its result on the phone, whose link only one process holds at a time."""

_FLAG = re.compile(r"--(\w+)=")
_FALSE_OR_TRUE = ("false", "true")


class BenchmarkFailedError(DeviceError):
    """The benchmark program could not load or run a model, or told no latency of it."""


@dataclass(frozen=True, slots=True)
class BenchmarkReading:
    """What one start of the program told of one model.

    `placement` is `None` where it does not tell; `peak_memory_bytes` where it was not asked to.
    """

    summary: Summary
    placement: Placement | None
    peak_memory_bytes: int | None


def supported_flags(usage: str) -> frozenset[str]:
    """The flags that the program's --help lists, without dashes; they differ with its age.

    Raises `UsageError` where this is no such program.
    """
    flags = frozenset(_FLAG.findall(usage))
    if "graph" not in flags:
        tail = usage.strip()[-300:] or "nothing"
        raise UsageError(
            "this is not TFLite's benchmark_model for this phone: its --help names no --graph. Get "
            f"the one for the phone's processor. It said:\n{tail}"
        )
    return flags


def benchmark_arguments(
    model: str,
    flags: frozenset[str],
    *,
    accelerator: str = "cpu",
    plugin: str | None = None,
    threads: int = 1,
    precision: Precision = "float32",
    runs: int = 50,
    warmups: int = 10,
    max_s: float = MAX_RUNS_S,
    result_file: str | None = None,
) -> list[str]:
    """The program's arguments to time one model: exactly `runs` runs, unless they take `max_s`.

    `model`, `plugin` (an external delegate's library) and `result_file` are paths on the phone.
    Only `flags` are used, which `supported_flags` tells. A GPU computes in float16 by default:
    that is switched off unless `precision` is float16. Raises `UsageError` where the program
    can't do what is asked for.
    """
    if (accelerator == "plugin") != (plugin is not None):
        raise UsageError("the accelerator plugin, and only that one, needs a delegate's library")
    loses_precision = _FALSE_OR_TRUE[precision == "float16"]
    wanted = {
        "graph": model,
        "num_threads": str(threads),
        "num_runs": str(runs),
        "min_secs": "0",
        "max_secs": f"{max_s:g}",
        "warmup_runs": str(warmups),
        "warmup_min_secs": "0",
        "allow_fp16": loses_precision,
    }
    if accelerator == "gpu":
        wanted["gpu_precision_loss_allowed"] = loses_precision
    if result_file is not None:
        wanted["result_file_path"] = result_file
    arguments = [f"--{name}={value}" for name, value in wanted.items() if name in flags]
    if accelerator != "cpu":
        flag = ACCELERATOR_FLAGS.get(accelerator)
        if flag is None or flag not in flags:
            able = [name for name, item in ACCELERATOR_FLAGS.items() if item in flags]
            raise UsageError(
                f"this benchmark_model knows no accelerator {accelerator!r}; it knows "
                f"{', '.join(['cpu', *able])}"
            )
        arguments.append(f"--{flag}={'true' if plugin is None else plugin}")
    return arguments


def read_benchmark(
    stdout: str,
    result_file: bytes | None = None,
    *,
    stderr: str = "",
    statistic: Statistic | None = None,
    accelerator: str = "cpu",
    nodes: int | None = None,
) -> BenchmarkReading:
    """Read what the program told, of the result file where there is one.

    `statistic` is the one to take; `None`: the median where the program tells it. `nodes` is how
    many the model has, as far as is known. Raises `BenchmarkFailedError`, with the end of the
    output, where it tells no latency, or an impossible one.
    """
    # The runtime logs to stderr what a delegate takes; the program then says to stdout what of it.
    output = f"{stderr}\n{stdout}"
    try:
        told = read_text(output)
        if result_file is not None:
            from_file = read_result_file(result_file)
            if from_file.count != told.count:
                raise unreadable("its result file tells of another number of runs", output)
            told = from_file
        if statistic is None:
            statistic = _tell_statistic(stdout=output, result_file=result_file)
        summary = summarize(told, statistic, output)
    except DeviceError as error:
        raise BenchmarkFailedError(str(error)) from error
    placement = read_placement("litert", accelerator, output, nodes)
    return BenchmarkReading(summary, placement, told.peak_memory_bytes)


def _tell_statistic(stdout: str, result_file: bytes | None) -> Statistic:
    """Which statistic this program tells: older ones know no median."""
    if result_file is not None:
        return "median" if "median" in read_result_file(result_file).times_ns else "mean"
    return "median" if is_median_told(stdout) else "mean"


class BenchmarkModelTool:
    """TFLite's benchmark program on a phone, for one accelerator.

    `binary` and `plugin` are paths on the phone. Which statistic it tells is found out by
    `probe_statistic`; every later reading is of that one. Raises `UsageError` where `binary` is
    no such program or does not know the accelerator.
    """

    def __init__(
        self,
        link: AdbLink,
        binary: str,
        *,
        accelerator: str = "cpu",
        plugin: str | None = None,
        threads: int = 1,
        cores: Sequence[int] | None = None,
        precision: Precision = "float32",
    ) -> None:
        self._link = link
        self._binary = binary
        self._accelerator = accelerator
        self._plugin = plugin
        self._threads = threads
        self._cores = cores
        self._precision = precision
        usage = link.shell([binary, "--help"])
        self._flags = supported_flags(f"{usage.stdout}\n{usage.stderr}")
        self._statistic: Statistic | None = None
        self._arguments("model", 1, 1, MAX_RUNS_S)

    def probe_statistic(self, canary: str) -> str:
        """Run the canary (a path on the phone) once; return the name of the runtime.

        It names the statistic, `benchmark_model-median` or `benchmark_model-mean`, so that
        latencies by the one and by the other are never filed under one setup.
        """
        stdout, stderr, result_file = self._start(canary, PROBE_RUNS, 1, MAX_RUNS_S)
        reading = read_benchmark(stdout, result_file, stderr=stderr)
        self._statistic = reading.summary.statistic
        return f"benchmark_model-{self._statistic}"

    def run(
        self,
        model: str,
        *,
        runs: int,
        warmups: int,
        max_s: float = MAX_RUNS_S,
        nodes: int | None = None,
    ) -> BenchmarkReading:
        """Time one model, a path on the phone, in a new process.

        Where the model ran is told, not judged. Raises `BenchmarkFailedError` where the model
        can't be timed, `LinkLostError` where the link breaks.
        """
        stdout, stderr, result_file = self._start(model, runs, warmups, max_s)
        reading = read_benchmark(
            stdout,
            result_file,
            stderr=stderr,
            statistic=self._statistic,
            accelerator=self._accelerator,
            nodes=nodes,
        )
        if reading.summary.count > runs and "min_secs" in self._flags:
            cause = f"it tells of {reading.summary.count} runs, and was asked for {runs}"
            raise BenchmarkFailedError(str(unreadable(cause, stdout)))
        return reading

    def _start(
        self, model: str, runs: int, warmups: int, max_s: float
    ) -> tuple[str, str, bytes | None]:
        """What one start printed to stdout and stderr, and its result file."""
        words = [self._binary, *self._arguments(model, runs, warmups, max_s)]
        if self._cores is not None:
            words = ["taskset", f"{sum(1 << core for core in set(self._cores)):x}", *words]
        # A model that hangs the program fails alone: the phone ends it before the link gives up.
        bound_s = 2 * max_s + LOADING_TIMEOUT_S
        words = ["timeout", "-s", "KILL", f"{bound_s:.0f}", *words]
        # What an earlier start left must never be taken for this one's.
        self._link.shell(["rm", "-f", RESULT_FILE])
        done = self._link.shell(words, timeout_s=bound_s + LINK_TIMEOUT_S)
        if done.exit_code:
            raise BenchmarkFailedError(_failure(done))
        if "result_file_path" not in self._flags:
            return done.stdout, done.stderr, None
        return done.stdout, done.stderr, self._fetch_result()

    def _arguments(self, model: str, runs: int, warmups: int, max_s: float) -> list[str]:
        return benchmark_arguments(
            model,
            self._flags,
            accelerator=self._accelerator,
            plugin=self._plugin,
            threads=self._threads,
            precision=self._precision,
            runs=runs,
            warmups=warmups,
            max_s=max_s,
            result_file=RESULT_FILE,
        )

    def _fetch_result(self) -> bytes:
        with tempfile.TemporaryDirectory(prefix="latkit-") as folder:
            local = Path(folder) / "result.pb"
            try:
                self._link.pull(RESULT_FILE, local)
            except LinkLostError:
                raise
            except DeviceError as error:
                raise BenchmarkFailedError(
                    f"the benchmark program ended well, and left no result file: {error}"
                ) from error
            content = local.read_bytes()
        self._link.shell(["rm", "-f", RESULT_FILE])
        return content


def _failure(done: ShellResult) -> str:
    """Why the program ended badly: a shell tells a signal as an exit code above 128."""
    signal = f" (signal {done.exit_code - 128})" if done.exit_code > 128 else ""
    cause = f"it ended with exit code {done.exit_code}{signal}"
    return str(unreadable(cause, f"{done.stdout}\n{done.stderr}"))
