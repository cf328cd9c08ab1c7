"""The verbs `table`, `fit` and `predict` of the command, and those of `profile_cli`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from ..devices.console import exit_with_code, print_json, stdout
from ..devices.device import TimingProtocol
from ..devices.errors import UsageError
from . import output, profile_cli
from .options import (
    AllowEmulatedOption,
    AnyAcceleratorOption,
    AnyBatchSizeOption,
    AnyDeviceOption,
    AnyPrecisionOption,
    AnyRuntimeOption,
    AnyThreadsOption,
    BlocksOption,
    CalibrationNetworksOption,
    ClassesOption,
    CoresOption,
    EvictionOption,
    HeldOutNetworksOption,
    JsonOption,
    OutputOption,
    SeedOption,
    SetupChoice,
    SpaceOption,
    StoreOption,
    parse_numbers,
    refuse_emulated,
)
from .predicting import load_estimator
from .space_plan import Plan
from .space_profile import build_space_profile
from .spaces import load_space, network_of
from .store import Store
from .subject import Subject, read_block_list, subject_label, subject_to_json

DEFAULT_STORE = "latkit.sqlite"
PROTOCOL = TimingProtocol()


def register(app: typer.Typer) -> None:
    """Add the verbs of this folder to the command."""
    profile_cli.register(app)
    app.command("table")(table_verb)
    app.command("fit")(fit_verb)
    app.command("predict")(predict_verb)


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


def fit_verb(
    output_path: OutputOption,
    store: StoreOption = DEFAULT_STORE,
    device: AnyDeviceOption = None,
    runtime: AnyRuntimeOption = None,
    threads: AnyThreadsOption = None,
    cores: CoresOption = None,
    precision: AnyPrecisionOption = None,
    accelerator: AnyAcceleratorOption = None,
    batch_size: AnyBatchSizeOption = None,
    eviction_bytes: EvictionOption = None,
    seed: SeedOption = 0,
    allow_emulated: AllowEmulatedOption = False,
    json: JsonOption = False,
) -> None:
    """Fit a predictor to all measured blocks, and print its cross-validated error."""

    choice = SetupChoice(device, runtime, threads, cores, precision, accelerator, batch_size)

    def run() -> None:
        from .predicting import fit_predictor

        with Store(store, create=False) as kept:
            setup = choice.choose(kept)
            refuse_emulated(setup, allow_emulated)
            fitted = fit_predictor(kept, setup, eviction_bytes, seed)
        fitted.predictor.save(output_path)
        if json:
            print_json(
                {
                    "setup": asdict(setup),
                    "eviction_bytes": fitted.eviction_bytes,
                    "blocks": fitted.blocks,
                    "cross_validated": asdict(fitted.error),
                    "output": str(output_path),
                }
            )
            return
        stdout.print(
            f"{setup.key}\n{fitted.blocks} blocks, {fitted.eviction_bytes} bytes evicted",
            markup=False,
            highlight=False,
        )
        output.print_errors({"predictor, cross-validated": fitted.error})
        stdout.print(f"written to {output_path}", markup=False, highlight=False)

    exit_with_code(run)


def predict_verb(
    table: Annotated[
        Path | None, typer.Option("--table", help="A table that `latkit table` wrote.")
    ] = None,
    predictor: Annotated[
        Path | None, typer.Option("--predictor", help="A predictor that `latkit fit` wrote.")
    ] = None,
    blocks: BlocksOption = None,
    space: SpaceOption = None,
    classes: ClassesOption = None,
    architecture: Annotated[
        str | None,
        typer.Option("--architecture", help="Option index of each choice of the space: 0,1,2,..."),
    ] = None,
    device: AnyDeviceOption = None,
    runtime: AnyRuntimeOption = None,
    threads: AnyThreadsOption = None,
    cores: CoresOption = None,
    precision: AnyPrecisionOption = None,
    accelerator: AnyAcceleratorOption = None,
    batch_size: AnyBatchSizeOption = None,
    json: JsonOption = False,
) -> None:
    """Predict the latency of blocks, or of an architecture of a space, without the device.

    With --device, or another of its options, a table of any other setup is refused.
    """

    choice = SetupChoice(device, runtime, threads, cores, precision, accelerator, batch_size)

    def run() -> None:
        estimator = load_estimator(table, predictor)
        choice.check(estimator.setup, estimator.name)
        subjects: list[Subject]
        if blocks is not None and space is None and architecture is None:
            subjects = [*read_block_list(blocks)]
        elif blocks is None and space is not None and architecture is not None:
            choices = parse_numbers("--architecture", architecture)
            subjects = [network_of(load_space(space, classes), choices)]
        else:
            raise UsageError("give --blocks FILE.json, or --space NAME and --architecture 0,1,2")
        estimates = [(subject, estimator.estimate(subject)) for subject in subjects]
        if json:
            print_json(
                {
                    "setup": asdict(estimator.setup),
                    "estimates": [
                        {"model": subject_to_json(subject), **asdict(estimate)}
                        for subject, estimate in estimates
                    ],
                }
            )
        else:
            labelled = ((subject_label(subject), estimate) for subject, estimate in estimates)
            output.print_estimates(estimator.setup.key, labelled)

    exit_with_code(run)
