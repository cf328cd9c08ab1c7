"""Command-line options that several verbs share, and what is made of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, cast, get_args

import typer

from ..devices.device import Device, Precision, Setup
from ..devices.errors import LatkitError, UsageError
from ..devices.registry import open_device
from .store import Store

DeviceOption = Annotated[
    str, typer.Option("--device", help="Address of the device: cpu, cuda:0, adb:SERIAL.")
]
RuntimeOption = Annotated[
    str, typer.Option("--runtime", help="Inference runtime: onnxruntime or litert.")
]
ThreadsOption = Annotated[int, typer.Option("--threads", min=1, help="Threads of the runtime.")]
CoresOption = Annotated[
    str | None,
    typer.Option("--cores", help="Processors to pin to, such as 0,1. Default: the device's."),
]
PrecisionOption = Annotated[
    str, typer.Option("--precision", help="float32, float16 or int8, as the device can.")
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


def open_chosen(
    device: str, runtime: str, threads: int, cores: str | None, precision: str
) -> Device:
    """The device that the options name."""
    return open_device(
        device,
        runtime=runtime,
        threads=threads,
        cores=parse_cores(cores),
        precision=parse_precision(precision),
    )


def choose_setup(
    store: Store,
    device: str | None,
    runtime: str | None,
    threads: int | None,
    cores: str | None,
    precision: str | None,
) -> Setup:
    """The one setup of the store that fits the options given.

    Raises `UsageError`, listing the setups, where none or more than one does.
    """
    known = store.setups()
    found = [
        setup
        for setup in known
        if runtime in (None, setup.runtime)
        and threads in (None, setup.threads)
        and parse_cores(cores) in (None, setup.cores)
        and precision in (None, setup.precision)
    ]
    if device is not None:
        found = [setup for setup in found if _is_device(device, setup)]
    if len(found) == 1:
        return found[0]
    listed = "\n  ".join(setup.key for setup in (found or known)) or "none; profile something first"
    problem = "several setups" if found else "no setup"
    raise UsageError(
        f"the store {store} holds {problem} that fit. Choose one by --device, --runtime, "
        f"--threads, --cores and --precision. It holds\n  {listed}"
    )


def check_setup(
    holds_for: Setup,
    what: str,
    device: str | None,
    runtime: str | None,
    threads: int | None,
    cores: str | None,
    precision: str | None,
) -> None:
    """Raise `UsageError`, naming both, where `what` was not made for the setup of the options.

    What the options leave open is as in `holds_for`.
    """
    asked = replace(
        holds_for,
        device=holds_for.device if device is None or _is_device(device, holds_for) else device,
        runtime=runtime or holds_for.runtime,
        threads=threads or holds_for.threads,
        cores=holds_for.cores if cores is None else parse_cores(cores),
        precision=holds_for.precision if precision is None else parse_precision(precision),
    )
    if asked != holds_for:
        raise UsageError(
            f"{what} was made for {holds_for.key}, and you ask for {asked.key}. Take one that was "
            "made for that device, or leave the options out."
        )


def _is_device(text: str, setup: Setup) -> bool:
    """Whether an address or a part of a name means the device of a setup."""
    if text.lower() in setup.device.lower():
        return True
    try:
        return open_device(text, runtime=setup.runtime).setup.device == setup.device
    except LatkitError:
        return False
