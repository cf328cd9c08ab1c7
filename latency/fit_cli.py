"""The verb `fit`: fits a predictor to all measured blocks, or to the kernels of networks."""

from __future__ import annotations

from dataclasses import asdict

import typer

from ..devices.console import exit_with_code, print_json, stdout
from ..devices.errors import UsageError
from . import output
from .kernel_cli import KernelsOption, fit_kernels
from .options import (
    AllowEmulatedOption,
    AnyAcceleratorOption,
    AnyBatchSizeOption,
    AnyDeviceOption,
    AnyPrecisionOption,
    AnyRuntimeOption,
    AnyThreadsOption,
    CoresOption,
    EvictionOption,
    JsonOption,
    OutputOption,
    SeedOption,
    SetupChoice,
    StoreOption,
    refuse_emulated,
)
from .store import DEFAULT_STORE, Store


def register(app: typer.Typer) -> None:
    """Add the verb to the command."""
    app.command("fit")(fit_verb)


def fit_verb(
    output_path: OutputOption,
    kernels: KernelsOption = False,
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
    """Fit a predictor to all measured blocks, and print its cross-validated error.

    With --kernels: a predictor of whole model files, to what `latkit profile --kernels` timed.
    """

    choice = SetupChoice(device, runtime, threads, cores, precision, accelerator, batch_size)

    def run() -> None:
        from .predicting import fit_predictor
        from .predictor import COVERAGE

        with Store(store, create=False) as kept:
            setup = choice.choose(kept)
            refuse_emulated(setup, allow_emulated)
            if kernels:
                if eviction_bytes is not None:
                    raise UsageError("--eviction-bytes does not go with --kernels")
                fit_kernels(kept, setup, output_path, seed, json)
                return
            fitted = fit_predictor(kept, setup, eviction_bytes, seed)
        fitted.predictor.save(output_path)
        if json:
            print_json(
                {
                    "setup": asdict(setup),
                    "eviction_bytes": fitted.eviction_bytes,
                    "blocks": fitted.blocks,
                    "at_random": fitted.at_random,
                    "parts": fitted.parts,
                    "cross_validated": asdict(fitted.error),
                    "output": str(output_path),
                }
            )
            return
        stdout.print(
            f"{setup.key}\n{fitted.blocks} blocks, {fitted.at_random} of them drawn at random; "
            f"{fitted.eviction_bytes} bytes evicted\n{', '.join(fitted.parts)}",
            markup=False,
            highlight=False,
        )
        output.print_errors({"predictor, cross-validated": fitted.error})
        if fitted.error.inside is not None:
            stdout.print(
                f"{fitted.error.inside:.0%} lie in intervals of {COVERAGE:.0%}", highlight=False
            )
        stdout.print(f"written to {output_path}", markup=False, highlight=False)

    exit_with_code(run)
