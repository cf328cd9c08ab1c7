"""ONNX Runtime's own profile: each node that it runs, with its shapes and the time of each run."""

from __future__ import annotations

import importlib
import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .profiled import ProfiledOperation, Shaped, middle_ms
from .runtimes import ONNX_DTYPES, OnnxRuntime, numbered_input, onnx_session_options

if TYPE_CHECKING:
    import onnx

KERNEL_SUFFIX = "_kernel_time"
PROVIDERS = ("CPUExecutionProvider",)

CHAIN_NODES = 200
CHAIN_RUNS = 60
"""How long the chain is that tells what profiling costs, and how often it runs."""


class OnnxProfile:
    """A session with the profiler on. `optimized` is where the runtime writes what it runs."""

    def __init__(self, path: Path, threads: int, folder: Path, optimized: Path | None) -> None:
        onnxruntime: Any = importlib.import_module(OnnxRuntime.name)
        options = onnx_session_options(onnxruntime, threads)
        options.enable_profiling = True
        options.profile_file_prefix = str(folder / "profile")
        if optimized is not None:
            options.optimized_model_filepath = str(optimized)
        self._session = onnxruntime.InferenceSession(str(path), options, providers=[*PROVIDERS])
        inputs = {
            item.name: numbered_input(number, item.name, item.shape, ONNX_DTYPES[item.type])
            for number, item in enumerate(self._session.get_inputs())
        }
        self.inputs = [(name, (str(values.dtype), values.shape)) for name, values in inputs.items()]
        """Names, element types and shapes of the inputs."""
        self.run: Callable[[], Any] = lambda: self._session.run(None, inputs)

    def operations(self, counted: Sequence[bool]) -> tuple[list[ProfiledOperation], list[float]]:
        """Each node in the order they run, and the milliseconds of each whole run.

        `counted` tells of every run so far whether it counts or was a warm-up; one that counts
        has its times in the operations. Ends the profile.
        """
        events = json.loads(Path(self._session.end_profiling()).read_text())
        return node_times(events, counted), run_times_ms(events, counted)


def profiler_ms(threads: int, folder: Path) -> float:
    """What the profiler adds to the time of one node, in milliseconds.

    From a chain of nodes that do next to nothing, timed with and without the profiler.
    """
    path = folder / "chain.onnx"
    path.write_bytes(_chain().SerializeToString())
    plain = OnnxRuntime().load(path, threads)
    profile = OnnxProfile(path, threads, folder, None)
    samples_ns = []
    for _ in range(CHAIN_RUNS):
        profile.run()
        start = time.perf_counter_ns()
        plain.run()
        samples_ns.append(time.perf_counter_ns() - start)
    counted = [number >= CHAIN_RUNS // 2 for number in range(CHAIN_RUNS)]
    nodes, _ = profile.operations(counted)
    told_ms = sum(middle_ms(node.times_ms) for node in nodes)
    return max(0.0, told_ms - statistics.median(samples_ns) / 1e6) / CHAIN_NODES


def _chain() -> onnx.ModelProto:
    from onnx import TensorProto, helper

    names = [f"value{number}" for number in range(CHAIN_NODES + 1)]
    nodes = [
        helper.make_node(("Abs", "Neg")[number % 2], [names[number]], [names[number + 1]])
        for number in range(CHAIN_NODES)
    ]
    first, last = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1])
        for name in (names[0], names[-1])
    )
    graph = helper.make_graph(nodes, "chain", [first], [last])
    opsets = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def node_times(
    events: Sequence[Mapping[str, Any]], counted: Sequence[bool]
) -> list[ProfiledOperation]:
    """Each node's times over the runs that count, in milliseconds, from the profiler's events.

    A node that a run executes several times, in a loop, counts with their sum.
    """
    runs: list[dict[tuple[str, str, str], float]] = [{}]
    told: dict[tuple[str, str, str], Mapping[str, Any]] = {}
    for event in events:
        if event.get("name") == "model_run":
            runs.append({})
        elif event.get("cat") == "Node" and event["name"].endswith(KERNEL_SUFFIX):
            arguments = event["args"]
            name = event["name"].removesuffix(KERNEL_SUFFIX)
            node = (name, arguments["op_name"], arguments.get("node_index", ""))
            runs[-1][node] = runs[-1].get(node, 0.0) + event["dur"]
            told[node] = arguments
    timed = [run for run, counts in zip(runs, counted, strict=False) if counts]
    return [
        ProfiledOperation(
            name=node[0],
            kind=node[1],
            times_ms=tuple(run.get(node, 0.0) / 1e3 for run in timed),
            outputs=_shaped(told[node].get("output_type_shape", ())),
        )
        for node in dict.fromkeys(node for run in timed for node in run)
    ]


def run_times_ms(events: Sequence[Mapping[str, Any]], counted: Sequence[bool]) -> list[float]:
    """How long each run that counts took as a whole, by the profiler's clock."""
    runs = [event["dur"] / 1e3 for event in events if event.get("name") == "model_run"]
    return [run for run, counts in zip(runs, counted, strict=False) if counts]


def _shaped(values: Sequence[Mapping[str, Sequence[int]]]) -> tuple[Shaped, ...]:
    return tuple(
        (kind, tuple(int(length) for length in shape))
        for value in values
        for kind, shape in value.items()
    )
