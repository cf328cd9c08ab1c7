"""The verb `profile`: times a space, blocks, model files or kernels, on devices at once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..devices.console import exit_with_code, progress_bar
from ..devices.device import Device, TimingProtocol
from ..devices.errors import UsageError
from .adaptive import Candidates
from .adaptive_profile import profile_adaptively
from .blocks import Block
from .kernel_cli import (
    KernelsOption,
    MinutesOption,
    NetworksOption,
    check_kernel_options,
    profile_kernels_on,
)
from .options import (
    AcceleratorOption,
    AdbOption,
    AllowFallbackOption,
    BatchSizeOption,
    BenchmarkModelOption,
    BlocksOption,
    CalibrationNetworksOption,
    ClassesOption,
    CoresOption,
    DevicesOption,
    EvictionOption,
    HeldOutNetworksOption,
    JsonOption,
    PrecisionOption,
    RuntimeLibraryOption,
    RuntimeOption,
    SeedOption,
    SpaceOption,
    StoreOption,
    ThreadsOption,
    device_options,
)
from .outcome import Outcome, SpaceOutcome, show, time_models, with_operations
from .profile import Request
from .several import on_each
from .space_profile import profile_space
from .spaces import load_space
from .store import DEFAULT_STORE, Store
from .subject import ModelFile, read_block_list

PROTOCOL = TimingProtocol()
WANTED_ERROR = 0.1
BUDGET = 300


def register(app: typer.Typer) -> None:
    """Add the verb to the command."""
    app.command("profile")(profile_verb)


def profile_verb(
    models: Annotated[
        list[Path] | None, typer.Argument(help="Model files: .onnx, .tflite.")
    ] = None,
    space: SpaceOption = None,
    classes: ClassesOption = None,
    blocks: BlocksOption = None,
    kernels: KernelsOption = False,
    networks: NetworksOption = None,
    minutes: MinutesOption = None,
    device: DevicesOption = ["cpu"],  # noqa: B006 (typer reads it, no one writes it)
    runtime: RuntimeOption = None,
    threads: ThreadsOption = 1,
    cores: CoresOption = None,
    precision: PrecisionOption = "float32",
    accelerator: AcceleratorOption = None,
    allow_fallback: AllowFallbackOption = False,
    batch_size: BatchSizeOption = 1,
    runtime_library: RuntimeLibraryOption = None,
    benchmark_model: BenchmarkModelOption = None,
    adb: AdbOption = None,
    store: StoreOption = DEFAULT_STORE,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds for each model.")] = PROTOCOL.rounds,
    processes: Annotated[
        int, typer.Option(min=1, help="Fresh processes that the rounds are spread over.")
    ] = PROTOCOL.processes,
    runs: Annotated[
        int, typer.Option(min=1, help="Timed runs of each model in a round.")
    ] = PROTOCOL.runs,
    eviction_bytes: EvictionOption = None,
    calibration_networks: CalibrationNetworksOption = 16,
    held_out_networks: HeldOutNetworksOption = 24,
    seed: SeedOption = 0,
    strict: Annotated[
        bool, typer.Option("--strict", help="End with exit code 4 unless all are stable.")
    ] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Try models again that failed before.")
    ] = False,
    per_op: Annotated[
        bool, typer.Option("--per-op", help="Also the time of each operation of model files.")
    ] = False,
    adaptive: Annotated[
        bool,
        typer.Option(
            "--adaptive", help="Of a space or a list, the blocks that a predictor needs most."
        ),
    ] = False,
    wanted_error: Annotated[
        float | None,
        typer.Option(
            "--wanted-error",
            min=0.001,
            help=f"With --adaptive: stop when 90 % are predicted within it (else {WANTED_ERROR}).",
        ),
    ] = None,
    budget: Annotated[
        int | None,
        typer.Option("--budget", min=10, help=f"With --adaptive: most blocks (else {BUDGET})."),
    ] = None,
    budget_minutes: Annotated[
        float | None, typer.Option("--budget-minutes", min=0, help="With --adaptive: most time.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Time a space, blocks, model files or kernels on a device, as far as the store lacks them.

    A run that was cut off goes on where it was when it is started again.
    """

    def run() -> None:
        protocol = TimingProtocol(rounds, processes, runs)
        given = [space is not None, blocks is not None, bool(models), kernels]
        if sum(given) != 1:
            raise UsageError(
                "give one of --space NAME, --blocks FILE.json, --kernels, or model files"
            )
        check_kernel_options(kernels, networks, minutes)
        if per_op and not models:
            raise UsageError("--per-op is for model files")
        if adaptive and space is None and blocks is None:
            raise UsageError("--adaptive needs blocks to choose from: --space or --blocks")
        if adaptive and (strict or retry_failed):
            raise UsageError("--strict and --retry-failed do not go with --adaptive")
        if not adaptive and not (wanted_error is budget is budget_minutes is None):
            raise UsageError("--wanted-error, --budget and --budget-minutes go with --adaptive")
        whole_space = space is not None and not adaptive
        if whole_space and (eviction_bytes is not None or retry_failed):
            raise UsageError("--eviction-bytes and --retry-failed do not go with --space")
        if models and eviction_bytes:
            raise UsageError("model files are timed as they are called: without --eviction-bytes")
        requests: list[Request] = []
        if blocks is not None:
            requests = [(block, eviction_bytes or 0) for block in read_block_list(blocks)]
        elif models:
            requests = [(ModelFile.read(path), 0) for path in models]
        chosen = None if space is None else load_space(space, classes)
        candidates: Candidates | None = None
        if adaptive:
            candidates = (
                Candidates.of_blocks([block for block, _ in requests if isinstance(block, Block)])
                if chosen is None
                else Candidates.of_space(chosen, seed)
            )
        options = device_options(
            runtime,
            threads,
            cores,
            precision,
            accelerator,
            allow_fallback,
            batch_size,
            runtime_library,
            benchmark_model,
            adb,
        )
        with Store(store) as kept, progress_bar() as progress:

            def timed(opened: Device, label: str) -> Outcome:
                if kernels:
                    return profile_kernels_on(opened, kept, networks, minutes, progress, label)
                if candidates is not None:
                    return profile_adaptively(
                        candidates,
                        opened,
                        kept,
                        protocol,
                        progress,
                        wanted_error=wanted_error or WANTED_ERROR,
                        budget=budget or BUDGET,
                        budget_minutes=budget_minutes,
                        eviction_bytes=eviction_bytes or 0,
                        seed=seed,
                        label=label,
                    )
                if chosen is None:
                    outcome = time_models(
                        opened, requests, kept, protocol, strict, retry_failed, progress, label
                    )
                    return with_operations(outcome, opened) if per_op else outcome
                return SpaceOutcome(
                    profile_space(
                        chosen,
                        opened,
                        kept,
                        protocol,
                        progress,
                        strict=strict,
                        calibration_networks=calibration_networks,
                        held_out_networks=held_out_networks,
                        seed=seed,
                        label=label,
                    )
                )

            outcomes, failures = on_each(device, options, timed)
        show(device, outcomes, failures, json)

    exit_with_code(run)
