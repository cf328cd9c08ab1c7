"""The verb `table`: builds a latency table from the store."""

from __future__ import annotations

from typing import Annotated

import typer

from ..devices.console import exit_with_code, print_json, stdout
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
    refuse_emulated,
)
from .space_plan import Plan
from .space_profile import build_space_profile
from .spaces import load_space
from .store import DEFAULT_STORE, Store


def register(app: typer.Typer) -> None:
    """Add the verb to the command."""
    app.command("table")(table_verb)


def table_verb(
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
            stdout.print(f"written to {output_path}", markup=False, highlight=False)

    exit_with_code(run)
