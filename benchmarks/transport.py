"""How much of a profile's time is lost on the way to a phone?

Profiles blocks through adb, and the same ones on this host's cpu after that, each into a new
store. The blocks are MBConvs as in a MobileNetV2 for pictures of `--pixels`, of various kernels,
expansions and widths. `overhead` is the share of the wall time, from opening the device to the
last round stored, in which no model runs; `transport` is the same without the waits for a quiet
device.

Models run for as long as their samples, the canary's, and the first runs after loading tell,
exactly, and for their warm-ups, which are not sampled: as many as the protocol asks for, each taken
to last as long as the visit's median sample. That is too little, for the first runs after another
model's are slower; `overhead_by_rounds` counts all of the time that the device says a round took as
running, which is a little too much. The canary's runs while a process settles or a wait lasts do
not count, nor do walks through memory (`--eviction-bytes`).

How long the blocks take decides. At 224 pixels that is some 0.1 ms on a fast host, and so on an
emulated phone; `--pixels 640` gives that one blocks of 1 to 2 ms, as a slower processor has them.

    python benchmarks/transport.py --emulated --json transport.json
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from clocked import Clock, ClockedDevice
from latkit.devices.console import exit_with_code, progress_bar
from latkit.devices.device import Device, Round, TimingProtocol, Visit
from latkit.devices.errors import DeviceError, UsageError
from latkit.devices.options import DeviceOptions
from latkit.devices.registry import open_device
from latkit.devices.worker import FEWEST_WARMUPS
from latkit.latency.blocks import MBConv
from latkit.latency.profile import profile
from latkit.latency.store import Store
from phones import add_phone_options, phone
from results import report

STAGES = (
    *((2, 16, 24, 2), (4, 24, 24, 1), (4, 24, 32, 2), (8, 32, 32, 1), (8, 32, 64, 2)),
    *((16, 64, 64, 1), (16, 64, 96, 1), (16, 96, 96, 1), (16, 96, 160, 2), (32, 160, 160, 1)),
)
"""By how much pictures have shrunk, channels read and written, stride (MobileNetV2, table 2)."""

PARTS = {
    "open": "finding the device, its facts, its library",
    "prepare": "making it ready, and putting it back",
    "push": "converting models and bringing them there",
    "start": "starting processes, their program and library with them",
    "load": "loading models, running each once, settling",
    "round": "rounds on the device, models running or not",
    "answer": "rounds, beyond what the device says they took",
    "wait": "until the device is quiet: timing the canary, pauses, cooling",
    "state": "reading temperatures and the like between rounds",
    "end": "ending processes",
    "rest": "all else: building models, storing rounds",
}
"""Where wall time goes. Without overlap: they add up to the whole."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_phone_options(parser)
    parser.add_argument("--blocks", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--processes", type=int, default=TimingProtocol().processes)
    parser.add_argument("--runs", type=int, default=5, help="timed runs of a visit")
    parser.add_argument("--eviction-bytes", type=int, default=0)
    parser.add_argument("--pixels", type=int, default=224, help="of the networks' pictures")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    exit_with_code(lambda: run(arguments))


def run(arguments: argparse.Namespace) -> None:
    protocol = TimingProtocol(arguments.rounds, arguments.processes, arguments.runs)
    blocks = mobile_blocks(arguments.blocks, arguments.pixels)
    with phone(arguments) as (address, options):
        there = timed_profile(address, options, blocks, arguments.eviction_bytes, protocol)
    runtime = there.setup.runtime
    here = timed_profile(
        "cpu", DeviceOptions(runtime=runtime), blocks, arguments.eviction_bytes, protocol
    )
    both = {"adb": there, "cpu": here}
    rows = [
        {"part": part, **_columns(both, lambda item, part=part: item.parts[part]), "what": what}
        for part, what in PARTS.items()
    ]
    rows += [
        {
            "part": "models run",
            **_columns(both, lambda item: item.running_s),
            "what": "of load and round",
        },
        {"part": "wall", **_columns(both, lambda item: item.wall_s), "what": ""},
    ]
    figures = {}
    for name, item in both.items():
        figures[f"{name}_blocks_a_minute"] = 60 * len(blocks) / item.wall_s
        figures[f"{name}_overhead"] = 1 - item.running_s / item.wall_s
        in_rounds_s = item.parts["round"] + item.first_runs_s
        figures[f"{name}_overhead_by_rounds"] = 1 - in_rounds_s / item.wall_s
        waiting_s = item.parts["wait"]
        figures[f"{name}_transport"] = 1 - item.running_s / (item.wall_s - waiting_s)
        figures[f"{name}_rounds"] = float(len(item.rounds))
        medians = (statistics.median(v.samples_ns) for r in item.rounds for v in r.visits.values())
        figures[f"{name}_mean_ms"] = statistics.mean(medians) / 1e6
    figures["wall_ratio"] = there.wall_s / here.wall_s
    context = {
        "blocks": len(blocks),
        "pixels": arguments.pixels,
        "eviction_bytes": arguments.eviction_bytes,
        "protocol": asdict(protocol),
        "setups": {name: item.setup.key for name, item in both.items()},
        "info": {name: item.info for name, item in both.items()},
        "repeated_rounds": {
            name: sum(not round_.accepted for round_ in item.rounds) for name, item in both.items()
        },
    }
    report(figures, rows, context, arguments.json)


def mobile_blocks(count: int, pixels: int) -> list[MBConv]:
    """Blocks of MobileNetV2 and its relatives, `count` of them from all over the network."""
    found = [
        MBConv(
            in_channels=_channels(read * width),
            out_channels=_channels(written * width),
            height=max(1, pixels // shrunk),
            width=max(1, pixels // shrunk),
            expanded_channels=expansion * _channels(read * width),
            kernel=kernel,
            stride=stride,
            squeeze_excite=excite,
        )
        for shrunk, read, written, stride in STAGES
        for expansion in (3, 4, 6)
        for kernel in (3, 5, 7)
        for excite in (False, True)
        for width in (0.5, 0.75, 1.0)
    ]
    if not 0 < count <= len(found):
        raise UsageError(f"--blocks must be from 1 to {len(found)}")
    return [found[index * len(found) // count] for index in range(count)]


def _channels(count: float) -> int:
    return max(8, round(count / 8) * 8)


class Profiled:
    """How long a profile took, in all and in its parts; seconds."""

    def __init__(
        self,
        device: Device,
        rounds: Sequence[Round],
        wall_s: float,
        parts: Mapping[str, float],
        first_runs_s: float,
        protocol: TimingProtocol,
    ) -> None:
        self.setup = device.setup
        self.info = device.info()
        self.rounds = rounds
        self.wall_s = wall_s
        rest = wall_s - sum(parts.values())
        self.parts = {part: parts.get(part, 0.0) for part in PARTS} | {"rest": rest}
        self.first_runs_s = first_runs_s
        self.running_s = first_runs_s + sum(running_s(item, protocol) for item in rounds)


def running_s(item: Round, protocol: TimingProtocol) -> float:
    """How long models ran in a round: samples and canary as told, warm-ups by the median."""
    canary_ns = statistics.mean(item.canary_ns) * len(item.canary_ns)
    return (canary_ns + sum(_visit_ns(visit, protocol) for visit in item.visits.values())) / 1e9


def _visit_ns(visit: Visit, protocol: TimingProtocol) -> float:
    median_ns = statistics.median(visit.samples_ns)
    warmups = min(protocol.warmups, max(FEWEST_WARMUPS, 1e6 * protocol.warmup_ms / median_ns))
    return sum(visit.samples_ns) + warmups * median_ns


def _columns(both: Mapping[str, Profiled], value: Callable[[Profiled], float]) -> dict[str, float]:
    columns = {}
    for name, item in both.items():
        columns[f"{name} s"] = value(item)
        columns[f"{name} share"] = value(item) / item.wall_s
    return columns


def timed_profile(
    address: str,
    options: DeviceOptions,
    blocks: Sequence[MBConv],
    eviction_bytes: int,
    protocol: TimingProtocol,
) -> Profiled:
    """Profile into a new store."""
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder, progress_bar() as progress:
        started = time.monotonic()
        with clock.at("open"):
            device = open_device(address, options)
        with Store(Path(folder) / "store.sqlite") as store:
            result = profile(
                ClockedDevice(device, clock),
                [(block, eviction_bytes) for block in blocks],
                store,
                protocol,
                progress=progress,
                description=address,
            )
            wall_s = time.monotonic() - started
            rounds = store.rounds(device.setup)
    if result.failures:
        (model, _), cause = next(iter(result.failures.items()))
        raise DeviceError(f"{len(result.failures)} blocks failed. The first, {model}: {cause}")
    return Profiled(device, rounds, wall_s, clock.parts, clock.first_runs_s, protocol)


if __name__ == "__main__":
    main()
