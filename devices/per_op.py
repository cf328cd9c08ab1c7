"""Per-operation times of a model, where the runtime tells them; the child process that asks it.

ONNX Runtime has a profiler of its own; LiteRT's Python interface tells nothing. The times explain
where a latency comes from, they are no measurement: profiling itself costs time, times are whole
microseconds, and the caches are warm.
"""

from __future__ import annotations

import importlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .device import Setup
from .errors import DeviceError, UsageError
from .host import can_pin
from .runtimes import (
    ONNX_DTYPES,
    OnnxRuntime,
    find_runtime,
    numbered_input,
    onnx_session_options,
)

RUNS = 50
WARMUPS = 5
TIMEOUT_S = 600
STDERR_TAIL = 2000
KERNEL_SUFFIX = "_kernel_time"


@dataclass(frozen=True, slots=True)
class OperationTime:
    """One operation as the runtime executes it, after its own fusions, and its median time."""

    name: str
    kind: str
    median_ms: float


@dataclass(frozen=True, slots=True)
class OperationTimes:
    """Median time of every operation, in the order they run, and of the whole model.

    `whole_ms` was timed without the profiler, in the same process. `remainder_ms` is what the
    operations leave of it: calls between them, less what profiling added to each.
    """

    operations: tuple[OperationTime, ...]
    whole_ms: float

    @property
    def sum_ms(self) -> float:
        """Sum over the operations."""
        return sum(item.median_ms for item in self.operations)

    @property
    def remainder_ms(self) -> float:
        """The whole less the sum; negative where profiling cost more than it missed."""
        return self.whole_ms - self.sum_ms


def operation_times(
    path: Path, setup: Setup, *, runs: int = RUNS, warmups: int = WARMUPS
) -> OperationTimes:
    """Times of a model's operations on this host, in a fresh process pinned as `setup` says.

    Raises `UsageError` where the runtime or device can't tell them, `DeviceError` where the model
    can't be run.
    """
    if setup.runtime != OnnxRuntime.name:
        raise UsageError(
            f"{setup.runtime} does not tell the times of single operations through its Python "
            f"interface; use --runtime {OnnxRuntime.name}, or leave --per-op out"
        )
    if not setup.device.startswith("cpu:"):
        raise UsageError(
            f"times of single operations are known for this host only, not {setup.key}"
        )
    question = {
        "path": str(path.absolute()),
        "threads": setup.threads,
        "cores": setup.cores,
        "runs": runs,
        "warmups": warmups,
    }
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "latkit.devices.per_op"],
            input=json.dumps(question),
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise DeviceError(f"{path} was not profiled within {TIMEOUT_S} s") from error
    if done.returncode != 0:
        tail = done.stderr[-STDERR_TAIL:].strip()
        raise DeviceError(f"{path} can't be profiled (exit code {done.returncode}): {tail}")
    answer = json.loads(done.stdout)
    return OperationTimes(
        tuple(OperationTime(**item) for item in answer["operations"]), answer["whole_ms"]
    )


def kernel_medians(events: Sequence[Mapping[str, Any]], warmups: int) -> list[OperationTime]:
    """Median over runs of each node's time, from ONNX Runtime's profile; first runs left out.

    A node that a run executes several times, in a loop, counts with their sum.
    """
    runs: list[dict[tuple[str, str], float]] = [{}]
    for event in events:
        if event.get("name") == "model_run":
            runs.append({})
        elif event.get("cat") == "Node" and event["name"].endswith(KERNEL_SUFFIX):
            node = (event["name"].removesuffix(KERNEL_SUFFIX), event["args"]["op_name"])
            runs[-1][node] = runs[-1].get(node, 0.0) + event["dur"]
    timed = runs[warmups:-1]
    nodes = dict.fromkeys(node for run in timed for node in run)
    return [
        OperationTime(*node, statistics.median(run.get(node, 0.0) for run in timed) / 1e3)
        for node in nodes
    ]


def _profiled(path: Path, threads: int, runs: int, warmups: int, folder: Path) -> Any:
    """The events of ONNX Runtime's profiler over `warmups + runs` runs."""
    onnxruntime: Any = importlib.import_module(OnnxRuntime.name)
    options = onnx_session_options(onnxruntime, threads)
    options.enable_profiling = True
    options.profile_file_prefix = str(folder / "profile")
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    inputs = {
        item.name: numbered_input(number, item.name, item.shape, ONNX_DTYPES[item.type])
        for number, item in enumerate(session.get_inputs())
    }
    for _ in range(warmups + runs):
        session.run(None, inputs)
    return json.loads(Path(session.end_profiling()).read_text())


def _answer(question: Mapping[str, Any]) -> dict[str, Any]:
    """Profile in this process: once with the runtime's profiler, and once timed as a whole."""
    path, runs, warmups = Path(question["path"]), question["runs"], question["warmups"]
    if question["cores"] is not None and can_pin():
        os.sched_setaffinity(0, question["cores"])
    whole = find_runtime(OnnxRuntime.name).load(path, question["threads"])
    samples_ns = []
    for _ in range(warmups + runs):
        start = time.perf_counter_ns()
        whole.run()
        samples_ns.append(time.perf_counter_ns() - start)
    with tempfile.TemporaryDirectory(prefix="latkit-") as folder:
        events = _profiled(path, question["threads"], runs, warmups, Path(folder))
    return {
        "operations": [
            {"name": item.name, "kind": item.kind, "median_ms": item.median_ms}
            for item in kernel_medians(events, warmups)
        ],
        "whole_ms": statistics.median(samples_ns[warmups:]) / 1e6,
    }


def main() -> None:
    """Answer the question on standard input; the runtime's own output goes to standard error."""
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)
        answers.write(json.dumps(_answer(json.load(sys.stdin))))


if __name__ == "__main__":
    main()
