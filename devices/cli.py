"""The verb `devices`: what can be measured here."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer
from rich.table import Table

from . import console
from .registry import DeviceListing, list_devices


def register(app: typer.Typer) -> None:
    """Add the verbs of this folder to the command."""
    app.command()(devices)


def devices(
    json: Annotated[bool, typer.Option("--json", help="Write JSON to stdout.")] = False,
) -> None:
    """List the devices that are there, with their runtimes, cores and precisions."""
    listings = list_devices()
    if json:
        console.print_json([asdict(listing) for listing in listings])
        return
    table = Table("address", "name", "runtimes", "cores", "precision")
    for listing in listings:
        table.add_row(
            listing.address,
            listing.name,
            _runtimes(listing),
            ", ".join(map(str, listing.cores)) + ("" if listing.can_pin else " (no pinning)"),
            ", ".join(listing.precisions),
        )
    console.stdout.print(table)


def _runtimes(listing: DeviceListing) -> str:
    installed = [f"{name} {version}" for name, version in listing.runtimes.items()]
    return "\n".join(installed + list(listing.missing.values()))
