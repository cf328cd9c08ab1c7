"""The phone's runner against Python on the same machine, with the same library and models.

Blocks are timed in turns: by the runner on an emulated phone over adb, and by a Python process that
calls the same .so through ctypes (benchmarks/in_process.py). Every turn is a fresh process with
all blocks loaded, on the same processor, in the same order of visits; who goes first alternates.
A block's ratio is the median, over the turns, of the runner's median divided by Python's of the
same turn; the quartiles are those of the turns' ratios. Also compared: the sums of the outputs.

A call through ctypes costs about half a microsecond more than the runner's; blocks take 0.1 to
3 ms. Samples during which the process lost its processor are left out, on both sides.

    python benchmarks/runner_reference.py --emulated --runtime litert --json reference.json
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from in_process import Job
from latkit.devices.adb import FOLDER, Adb
from latkit.devices.canary import SIZE, canary_file
from latkit.devices.console import exit_with_code
from latkit.devices.convert import prepare
from latkit.devices.device import Model, TimingProtocol, Visit
from latkit.devices.errors import DeviceError
from latkit.devices.job import CANARY
from latkit.devices.phone.device import PhoneDevice
from latkit.devices.phone.runtime_library import open_runtime_library
from latkit.devices.rounds import round_plan, visiting_order
from latkit.devices.runner import runner_path
from latkit.latency.blocks import MBConv
from latkit.latency.subject import write_model
from phones import add_phone_options, phone
from results import report
from transport import mobile_blocks

CANDIDATES, PIXELS = 80, 320
SHORTEST_MS, LONGEST_MS = 0.1, 3.0
LIMIT = 0.03
TURN_TIMEOUT_S = 300


@dataclass(frozen=True)
class Subject:
    """A block's file for the runtime, and the shape of its input."""

    name: str
    path: Path
    shape: tuple[int, ...]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_phone_options(parser)
    parser.add_argument("--blocks", type=int, default=20)
    parser.add_argument("--turns", type=int, default=30, help="turns of each side")
    parser.add_argument("--runs", type=int, default=15, help="timed runs of a block in a turn")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    exit_with_code(lambda: run(arguments))


def run(arguments: argparse.Namespace) -> None:
    with phone(arguments) as (address, options), TemporaryDirectory() as name:
        device = PhoneDevice(Adb(), address.partition(":")[2] or None, options)
        if not device.setup.emulated:
            raise DeviceError("only an emulated phone shares its machine with Python: --emulated")
        assert options.runtime_library is not None
        folder = Path(name)
        library = open_runtime_library(options.runtime_library, "x86_64", folder)
        python = Python(device, library.path, folder)
        chosen = python.chosen(
            [
                subject(block, device.setup.runtime, folder)
                for block in mobile_blocks(CANDIDATES, PIXELS)
            ],
            arguments.blocks,
        )
        there: list[list[float]] = [[] for _ in chosen]
        here: list[list[float]] = [[] for _ in chosen]
        sums: list[float] = []
        for turn in range(arguments.turns):
            print(f"turn {turn + 1} of {arguments.turns}", file=sys.stderr)
            protocol = one_round(arguments.runs, turn)
            for side in ("runner", "python") if turn % 2 else ("python", "runner"):
                if side == "python":
                    medians, sums = python.turn(chosen, protocol)
                    _append(here, medians)
                else:
                    _append(there, runner_turn(device, chosen, protocol))
        runner_sums = outputs(device, library, chosen)
        setup, info = device.setup, device.info()
    rows = [
        row(item, *columns)
        for item, *columns in zip(chosen, there, here, runner_sums, sums, strict=False)
    ]
    ratios = [item["ratio"] for item in rows]
    report(
        {
            "within_3": statistics.mean(abs(ratio - 1) <= LIMIT for ratio in ratios),
            "ratio_min": min(ratios),
            "ratio_median": statistics.median(ratios),
            "ratio_max": max(ratios),
            "sums_equal": statistics.mean(item["sums equal"] for item in rows),
        },
        rows,
        {"setup": setup.key, "info": info, "turns": arguments.turns, "runs": arguments.runs},
        arguments.json,
    )


def one_round(runs: int, seed: int) -> TimingProtocol:
    """A protocol of one round, never repeated and never waited for."""
    return TimingProtocol(1, 1, runs, seed=seed, max_repeats=0, max_wait_s=0.0)


def subject(block: MBConv, runtime: str, folder: Path) -> Subject:
    """A block as the runtime eats it."""
    name = f"{block.height}x{block.width}x{block.in_channels}>{block.out_channels}"
    name += f" e{block.expanded_channels} k{block.kernel} s{block.stride}"
    name += " se" if block.squeeze_excite else ""
    path = prepare(write_model(block, folder), runtime, folder)
    return Subject(name, path, (1, block.in_channels, block.height, block.width))


class Python:
    """The side of Python: a fresh process for each turn."""

    def __init__(self, device: PhoneDevice, library: Path, folder: Path) -> None:
        self._setup = device.setup
        self._library = library
        path = prepare(canary_file(folder), device.setup.runtime, folder)
        self._canary = (str(path), [1, 3, SIZE, SIZE])

    def turn(
        self, chosen: Sequence[Subject], protocol: TimingProtocol
    ) -> tuple[dict[int, float], list[float]]:
        """Medians in milliseconds, and sums of outputs."""
        cores = self._setup.cores
        order = visiting_order(protocol.seed, 0, 0, len(chosen))
        job = Job(
            runtime=self._setup.runtime,
            library=str(self._library),
            accelerator=self._setup.accelerator,
            threads=self._setup.threads,
            cores=None if cores is None else list(cores),
            models=[*((str(item.path), list(item.shape)) for item in chosen), self._canary],
            warmups=protocol.warmups,
            warmup_ms=protocol.warmup_ms,
            plan=round_plan(order, protocol.runs),
        )
        program = Path(__file__).with_name("in_process.py")
        done = subprocess.run(
            [sys.executable, str(program)],
            input=job.to_json(),
            capture_output=True,
            text=True,
            timeout=TURN_TIMEOUT_S,
            check=False,
        )
        if done.returncode:
            raise DeviceError(f"{program} ended with {done.returncode}: {done.stderr[-500:]}")
        told = json.loads(done.stdout)
        medians = {
            number: median_ms(Visit(tuple(samples), hits and tuple(hits)))
            for number, samples, hits in told["visits"]
            if number != CANARY
        }
        return medians, told["outputs"]

    def chosen(self, candidates: Sequence[Subject], count: int) -> list[Subject]:
        """As many of them, evenly from the shortest allowed to the longest."""
        medians, _ = self.turn(candidates, one_round(15, 0))
        fitting = sorted(
            (number for number, time in medians.items() if SHORTEST_MS <= time <= LONGEST_MS),
            key=medians.__getitem__,
        )
        if len(fitting) < count:
            raise DeviceError(f"only {len(fitting)} blocks take {SHORTEST_MS} to {LONGEST_MS} ms")
        return [candidates[fitting[index * len(fitting) // count]] for index in range(count)]


def runner_turn(
    device: PhoneDevice, chosen: Sequence[Subject], protocol: TimingProtocol
) -> dict[int, float]:
    """Medians in milliseconds, by the runner."""
    models = [Model(str(number), item.path) for number, item in enumerate(chosen)]
    (item,) = device.measure(models, protocol)
    if item.failures:
        raise DeviceError(f"the runner failed: {item.failures}")
    return {int(name): median_ms(visit) for (name, _), visit in item.visits.items()}


def median_ms(visit: Visit) -> float:
    """Median of the samples that were not preempted; of all where none is clean."""
    hits = visit.preempted or (False,) * len(visit.samples_ns)
    clean = [time for time, hit in zip(visit.samples_ns, hits, strict=True) if not hit]
    return statistics.median(clean or visit.samples_ns) / 1e6


def outputs(device: PhoneDevice, library: Any, chosen: Sequence[Subject]) -> list[float]:
    """Sums of the blocks' outputs, by the runner."""
    sums = []
    with Adb().connect(device.info()["serial"]) as link:
        (program,) = link.push([runner_path("x86_64")], executable=True)
        pushed, *models = link.push([library.path, *(item.path for item in chosen)])
        process = link.start([program, f"{FOLDER}/progress"])
        lines = [f"library {library.runner_name} {pushed}", f"threads {device.setup.threads}"]
        if device.setup.accelerator != "cpu":
            lines.append(f"accelerator {device.setup.accelerator}")
        lines += [f"model {number} 0 {path}" for number, path in enumerate(models)]
        lines += ["load", *(f"outputs {number}" for number in range(len(models))), "quit"]
        for line in lines:
            process.write_line(line)
        while (line := process.read_line(TURN_TIMEOUT_S)) is not None:
            answer: Mapping[str, Any] = json.loads(line)
            if "error" in answer or "failed" in answer:
                raise DeviceError(f"the runner says: {line}")
            sums += [output["sum"] for output in answer.get("outputs", [])]
        process.end()
    return sums


def _append(columns: Sequence[list[float]], medians: Mapping[int, float]) -> None:
    for number, time in medians.items():
        columns[number].append(time)


def row(
    item: Subject, there: list[float], here: list[float], runner_sum: float, python_sum: float
) -> dict[str, Any]:
    ratios = np.array(there) / np.array(here)
    low, high = np.percentile(ratios, (25, 75))
    return {
        "block": item.name,
        "runner ms": statistics.median(there),
        "python ms": statistics.median(here),
        "ratio": float(np.median(ratios)),
        "quartiles": f"{low:.3f} to {high:.3f}",
        "sums equal": runner_sum == python_sum,
        "sum": runner_sum,
        "python sum": python_sum,
    }


if __name__ == "__main__":
    main()
