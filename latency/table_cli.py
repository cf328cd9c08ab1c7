"""The verb `table`: builds a latency table from the store, exports and imports tables."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text
from typer.core import TyperGroup

from ..devices.console import exit_with_code, print_json, stdout
from ..devices.device import Setup
from ..devices.errors import UsageError
from . import output
from .options import (
    AllowEmulatedOption,
    AnyAcceleratorOption,
    AnyBatchSizeOption,
    AnyDeviceOption,
    AnyPrecisionOption,
    AnyRuntimeOption,
    AnyThreadsOption,
    CalibrationNetworksOption,
    ClassesOption,
    CoresOption,
    HeldOutNetworksOption,
    JsonOption,
    OutputOption,
    SeedOption,
    SetupChoice,
    StoreOption,
    parse_precision,
    refuse_emulated,
)
from .sharing import ImportedTable, export_table, import_table
from .space_plan import Plan
from .space_profile import build_space_profile
from .spaces import load_space
from .store import DEFAULT_STORE, Store
from .table import LatencyTable
from .table_rows import REFUSED_SHOWN, counted

UNKNOWN = "unknown"


class BuildUnlessNamed(TyperGroup):
    """`latkit table --space ...` is `latkit table build --space ...`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put `build` before options that are not the group's own."""
        if args and args[0] not in (*self.commands, *self.get_help_option_names(ctx)):
            args = ["build", *args]
        return super().parse_args(ctx, args)


def register(app: typer.Typer) -> None:
    """Add the verb to the command."""
    verbs = typer.Typer(cls=BuildUnlessNamed, no_args_is_help=True)
    verbs.command("build")(build_verb)
    verbs.command("export")(export_verb)
    verbs.command("import")(import_verb)
    app.add_typer(
        verbs,
        name="table",
        help="Build a latency table from the store (build may be left out); export and import.",
    )


def build_verb(
    space: Annotated[
        str, typer.Option("--space", help="The space that was profiled, as it was named then.")
    ],
    output_path: OutputOption,
    classes: ClassesOption = None,
    store: StoreOption = DEFAULT_STORE,
    device: AnyDeviceOption = None,
    runtime: AnyRuntimeOption = None,
    threads: AnyThreadsOption = None,
    cores: CoresOption = None,
    precision: AnyPrecisionOption = None,
    accelerator: AnyAcceleratorOption = None,
    batch_size: AnyBatchSizeOption = None,
    calibration_networks: CalibrationNetworksOption = 16,
    held_out_networks: HeldOutNetworksOption = 24,
    seed: SeedOption = 0,
    allow_emulated: AllowEmulatedOption = False,
    json: JsonOption = False,
) -> None:
    """Build a latency table from the store, and print how well it predicts networks."""

    choice = SetupChoice(device, runtime, threads, cores, precision, accelerator, batch_size)

    def run() -> None:
        chosen = load_space(space, classes)
        with Store(store, create=False) as kept:
            setup = choice.choose(kept)
            refuse_emulated(setup, allow_emulated)
            plan = Plan.draw(chosen, calibration_networks, held_out_networks, seed=seed)
            result = build_space_profile(kept, setup, chosen, plan)
        result.table.save(output_path)
        if json:
            print_json({**output.space_json(result), "output": str(output_path)})
        else:
            output.print_space(result)
            _print_written(output_path)

    exit_with_code(run)


def export_verb(
    table: Annotated[Path, typer.Argument(help="A table that `latkit table` wrote.")],
    output_path: Annotated[
        Path, typer.Option("--output", help="The file to write: .csv for spreadsheets, or .json.")
    ],
    json: JsonOption = False,
) -> None:
    """Write a latency table as CSV or JSON records, from which `import` makes the same again."""

    def run() -> None:
        loaded = LatencyTable.load(table)
        export_table(loaded, output_path)
        if json:
            print_json({"blocks": len(loaded.entries), "output": str(output_path)})
        else:
            stdout.print(f"{len(loaded.entries)} blocks of {loaded.setup.key}", markup=False)
            _print_written(output_path)

    exit_with_code(run)


def import_verb(
    source: Annotated[
        Path,
        typer.Argument(
            help="A table as .csv or .json (or .gz of these): one of `latkit table export`, "
            "Once-for-All's or TF-NAS's block table, or rows with a block's kind, its fields and "
            "median_ms."
        ),
    ],
    output_path: OutputOption,
    where: Annotated[
        list[str] | None,
        typer.Option("--where", help="Only rows with COLUMN=VALUE. May be given several times."),
    ] = None,
    skip_bad_rows: Annotated[
        bool,
        typer.Option("--skip-bad-rows", help="Import the other rows; bad ones are listed still."),
    ] = False,
    device_name: Annotated[
        str | None,
        typer.Option("--device-name", help="What was measured on, where the file doesn't say it."),
    ] = None,
    runtime: Annotated[str, typer.Option("--runtime", help="With --device-name.")] = UNKNOWN,
    runtime_version: Annotated[
        str, typer.Option("--runtime-version", help="With --device-name.")
    ] = UNKNOWN,
    accelerator: Annotated[
        str, typer.Option("--accelerator", help="With --device-name.")
    ] = UNKNOWN,
    threads: Annotated[int, typer.Option("--threads", min=1, help="With --device-name.")] = 1,
    precision: Annotated[str, typer.Option("--precision", help="With --device-name.")] = "float32",
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="With --device-name.")] = 1,
    channel_grid: Annotated[
        int,
        typer.Option(
            "--channel-grid",
            min=1,
            help="With --device-name: widths at multiples of this may be interpolated between.",
        ),
    ] = 8,
    json: JsonOption = False,
) -> None:
    """Make a latency table of a shared one. Rows that can't be used are refused, and listed."""

    def run() -> None:
        setup = None
        if device_name is not None:
            setup = Setup(
                device_name,
                runtime,
                runtime_version,
                accelerator,
                threads,
                precision=parse_precision(precision),
                batch_size=batch_size,
            )
        imported = import_table(
            source, setup, channel_grid=channel_grid, where=_conditions(where or [])
        )
        usable = imported.is_usable(skip_bad_rows)
        if usable:
            imported.table.save(output_path)
        if json:
            print_json(_json(imported, output_path if usable else None))
        elif usable:
            _print_imported(imported)
            _print_written(output_path)
        imported.accept(skip_bad_rows)

    exit_with_code(run)


def _conditions(texts: list[str]) -> dict[str, str]:
    found = {}
    for text in texts:
        column, equals, value = text.partition("=")
        if not equals:
            raise UsageError(f"--where {text}: COLUMN=VALUE is needed, such as resolution=224")
        found[column] = value
    return found


def _json(imported: ImportedTable, written: Path | None) -> dict[str, Any]:
    table = imported.table
    return {
        "form": imported.form,
        "setup": asdict(table.setup),
        "blocks": len(table.entries),
        "calibration_networks": table.calibration.networks,
        "refused": [asdict(row) for row in imported.refused],
        "output": None if written is None else str(written),
    }


def _print_imported(imported: ImportedTable) -> None:
    table = imported.table
    kinds = Counter(type(block).__name__ for block in table.entries)
    listed = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
    lines = [table.setup.key, f"{len(table.entries)} blocks ({imported.form}): {listed}"]
    if table.calibration.networks == 0:
        lines.append("no networks were measured: theirs are plain sums of blocks, not calibrated")
    stdout.print("\n".join(lines), markup=False, highlight=False)
    if not imported.refused:
        return
    shown = Table(
        "row", "key", "value", "refused because", title=f"refused: {counted(imported.refused)}"
    )
    for row in imported.refused[:REFUSED_SHOWN]:
        shown.add_row(
            str(row.row), Text(row.key), Text(row.value), Text(f"{row.problem}: {row.cause}")
        )
    stdout.print(shown)
    if len(imported.refused) > REFUSED_SHOWN:
        left = len(imported.refused) - REFUSED_SHOWN
        stdout.print(f"... and {left} more rows refused; --json lists them all")


def _print_written(path: Path) -> None:
    stdout.print(f"written to {path}", markup=False, highlight=False)
