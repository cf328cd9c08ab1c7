"""The verb `devices`: what can be measured here."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from . import console
from .kind import DeviceListing
from .options import DeviceOptions
from .registry import list_devices


def register(app: typer.Typer) -> None:
    """Add the verbs of this folder to the command."""
    app.command()(devices)


def devices(
    adb: Annotated[
        Path | None, typer.Option("--adb", help="The adb program. Default: the one on the PATH.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Write JSON to stdout.")] = False,
) -> None:
    """List the devices that are there, with what they can do, and what to do where they can't."""
    listings = list_devices(DeviceOptions(adb=adb))
    if json:
        console.print_json([asdict(listing) for listing in listings])
        return
    table = Table("address", "device", "runtimes", "accelerators", "cores", "temperature")
    for listing in listings:
        table.add_row(
            Text(listing.address),
            Text(_described(listing)),
            Text(_runtimes(listing)),
            ", ".join(listing.accelerators),
            _cores(listing),
            Text(listing.temperature or ""),
        )
    console.stdout.print(table)
    for listing in listings:
        if listing.problem is not None:
            text = f"{listing.address}: {listing.problem}"
            console.stdout.print(text, markup=False, highlight=False, soft_wrap=True)


def _cores(listing: DeviceListing) -> str:
    cores = ", ".join(map(str, listing.cores))
    return f"{cores} (no pinning)" if cores and not listing.can_pin else cores


def _described(listing: DeviceListing) -> str:
    parts = [listing.kind, listing.name, listing.soc or "", listing.architecture or ""]
    return "\n".join(part for part in parts if part)


def _runtimes(listing: DeviceListing) -> str:
    installed = [f"{name} {version}" for name, version in listing.runtimes.items()]
    able = ", ".join(listing.precisions)
    return "\n".join([*installed, *([f"in {able}"] if able else []), *listing.missing.values()])
