"""Command-line options that several verbs share, and what is made of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, cast, get_args

import typer

from ..devices.device import Precision, Setup
from ..devices.errors import LatkitError, UsageError
from ..devices.options import DeviceOptions
from ..devices.registry import device_name
from .store import Store

DeviceOption = Annotated[
    str, typer.Option("--device", help="Address of the device: cpu, cuda:0, adb:SERIAL.")
]
DevicesOption = Annotated[
    list[str],
    typer.Option(
        "--device", help="Address of a device: cpu, cuda:0, adb:SERIAL. Several at once: repeat it."
    ),
]
RuntimeOption = Annotated[
    str | None,
    typer.Option(
        "--runtime", help="Inference runtime: onnxruntime, litert, torch. Default: the device's."
    ),
]
AcceleratorOption = Annotated[
    str | None,
    typer.Option(
        "--accelerator",
        help="On a phone: cpu, xnnpack, nnapi, gpu, gpu:LIBRARY.so, plugin:LIBRARY.so.",
    ),
]
AllowFallbackOption = Annotated[
    bool,
    typer.Option(
        "--allow-fallback", help="Time models also where the accelerator takes none of their nodes."
    ),
]
BatchSizeOption = Annotated[
    int, typer.Option("--batch-size", min=1, help="First dimension of every model's inputs.")
]
RuntimeLibraryOption = Annotated[
    Path | None,
    typer.Option(
        "--runtime-library", help="A phone's runtime: onnxruntime's or TFLite's .aar or .so."
    ),
]
BenchmarkModelOption = Annotated[
    Path | None,
    typer.Option("--benchmark-model", help="TFLite's benchmark_model program for the phone."),
]
AdbOption = Annotated[
    Path | None, typer.Option("--adb", help="The adb program. Default: the one on the PATH.")
]
AllowEmulatedOption = Annotated[
    bool,
    typer.Option("--allow-emulated", help="Accept measurements of an emulated device."),
]
ThreadsOption = Annotated[int, typer.Option("--threads", min=1, help="Threads of the runtime.")]
CoresOption = Annotated[
    str | None,
    typer.Option("--cores", help="Processors to pin to, such as 0,1. Default: the device's."),
]
PrecisionOption = Annotated[
    str,
    typer.Option(
        "--precision",
        help="float32, float16 or int8: .onnx files are written in it before they are timed.",
    ),
]
StoreOption = Annotated[
    str, typer.Option("--store", help="The store: a path (SQLite), or a database's URL.")
]
SpaceOption = Annotated[
    str | None,
    typer.Option(
        "--space", help="A space by name, or your own as path/file.py:NAME (the file is run)."
    ),
]
ClassesOption = Annotated[
    int | None,
    typer.Option("--classes", min=2, help="Classes that the space's networks tell apart."),
]
BlocksOption = Annotated[
    Path | None,
    typer.Option("--blocks", help='A JSON list of blocks, [{"kind": "MBConv", ...}, ...].'),
]
EvictionOption = Annotated[
    int | None,
    typer.Option("--eviction-bytes", min=0, help="Bytes evicted from the caches before each run."),
]
CalibrationNetworksOption = Annotated[
    int,
    typer.Option("--calibration-networks", min=3, help="Networks to fit the calibration to."),
]
HeldOutNetworksOption = Annotated[
    int,
    typer.Option("--held-out-networks", min=0, help="Networks to test the calibration on."),
]
SeedOption = Annotated[
    int, typer.Option("--seed", min=0, help="Seed of what is drawn: networks, folds.")
]
OutputOption = Annotated[Path, typer.Option("--output", help="The file to write.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Write JSON to stdout.")]

# The same options where they narrow down what the store or a file holds: nothing is the default.
AnyDeviceOption = Annotated[
    str | None,
    typer.Option("--device", help="Which device: an address, or a part of its name."),
]
AnyRuntimeOption = Annotated[str | None, typer.Option("--runtime", help="Which runtime.")]
AnyThreadsOption = Annotated[
    int | None, typer.Option("--threads", min=1, help="How many threads of the runtime.")
]
AnyPrecisionOption = Annotated[str | None, typer.Option("--precision", help="Which precision.")]
AnyAcceleratorOption = Annotated[
    str | None, typer.Option("--accelerator", help="Which accelerator.")
]
AnyBatchSizeOption = Annotated[
    int | None, typer.Option("--batch-size", min=1, help="Which batch size.")
]


def parse_numbers(option: str, text: str) -> tuple[int, ...]:
    """Whole numbers from `0,1,2`; `UsageError` where they are none."""
    try:
        numbers = tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise UsageError(f"{option} {text}: numbers, such as 0,1,2, are needed") from error
    if min(numbers) < 0:
        raise UsageError(f"{option} {text}: the numbers begin at 0")
    return numbers


def parse_cores(text: str | None) -> tuple[int, ...] | None:
    """Processors from `0,1`; `None`, not given, leaves them to the device."""
    return None if text is None else tuple(sorted(set(parse_numbers("--cores", text))))


def parse_precision(text: str) -> Precision:
    """A precision; `UsageError` lists the known."""
    if text not in get_args(Precision):
        raise UsageError(f"--precision {text}: it is one of {', '.join(get_args(Precision))}")
    return cast(Precision, text)


def device_options(
    runtime: str | None,
    threads: int,
    cores: str | None,
    precision: str,
    accelerator: str | None,
    allow_fallback: bool,
    batch_size: int,
    runtime_library: Path | None,
    benchmark_model: Path | None,
    adb: Path | None,
) -> DeviceOptions:
    """What devices are opened with, from the command's options."""
    return DeviceOptions(
        runtime,
        threads,
        parse_cores(cores),
        parse_precision(precision),
        accelerator,
        allow_fallback,
        batch_size,
        runtime_library,
        benchmark_model,
        adb,
    )


def refuse_emulated(setup: Setup, allow_emulated: bool) -> None:
    """Raise `UsageError` where a setup is an emulated device's and that was not asked for."""
    if setup.emulated and not allow_emulated:
        raise UsageError(
            f"{setup.key} is an emulated device: what it takes says nothing of a real phone. Give "
            "--allow-emulated where that is what you want."
        )


@dataclass(frozen=True, slots=True)
class SetupChoice:
    """What the options of a verb say of a setup that exists already; `None` where nothing.

    `device` is an address or a part of a name.
    """

    device: str | None = None
    runtime: str | None = None
    threads: int | None = None
    cores: str | None = None
    precision: str | None = None
    accelerator: str | None = None
    batch_size: int | None = None

    def choose(self, store: Store) -> Setup:
        """The one setup of the store that fits; `UsageError`, listing them, where not just one."""
        known = store.setups()
        found = [setup for setup in known if self.applied(setup) == setup]
        if len(found) == 1:
            return found[0]
        listed = [setup.key for setup in (found or known)] or ["none; profile something first"]
        raise UsageError(
            f"the store {store} holds {'several setups' if found else 'no setup'} that fit. Choose "
            "one by --device, --runtime, --threads, --cores, --precision, --accelerator and "
            "--batch-size. It holds\n  " + "\n  ".join(listed)
        )

    def check(self, holds_for: Setup, what: str) -> None:
        """Raise `UsageError`, naming both, where `what` was not made for the setup asked for."""
        asked = self.applied(holds_for)
        if asked != holds_for:
            raise UsageError(
                f"{what} was made for {holds_for.key}, and you ask for {asked.key}. Take one that "
                "was made for that device, or leave the options out."
            )

    def applied(self, setup: Setup) -> Setup:
        """The setup with what the options say in place of its own values."""
        accelerator = setup.accelerator
        if self.accelerator not in (None, accelerator, setup.accelerator_name):
            accelerator = str(self.accelerator)
        is_device = self.device is None or _is_device(self.device, setup)
        return replace(
            setup,
            device=setup.device if is_device else str(self.device),
            runtime=self.runtime or setup.runtime,
            threads=self.threads or setup.threads,
            cores=setup.cores if self.cores is None else parse_cores(self.cores),
            precision=setup.precision
            if self.precision is None
            else parse_precision(self.precision),
            accelerator=accelerator,
            batch_size=self.batch_size or setup.batch_size,
        )


def _is_device(text: str, setup: Setup) -> bool:
    """Whether an address or a part of a name means the device of a setup."""
    if text.lower() in setup.device.lower():
        return True
    try:
        return device_name(text) == setup.device
    except LatkitError:
        return False
