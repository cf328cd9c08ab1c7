"""The verbs `profile`, `table`, `fit` and `predict` of the command."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from ..devices.console import exit_with_code, print_json, progress_bar, stdout
from ..devices.device import Device, TimingProtocol
from ..devices.errors import DeviceError, UnstableError, UsageError
from ..devices.per_op import OperationTimes, operation_times
from . import output
from .options import (
    AnyDeviceOption,
    AnyPrecisionOption,
    AnyRuntimeOption,
    AnyThreadsOption,
    BlocksOption,
    CalibrationNetworksOption,
    ClassesOption,
    CoresOption,
    DeviceOption,
    EvictionOption,
    HeldOutNetworksOption,
    JsonOption,
    OutputOption,
    PrecisionOption,
    RuntimeOption,
    SeedOption,
    SpaceOption,
    StoreOption,
    ThreadsOption,
    check_setup,
    choose_setup,
    open_chosen,
    parse_numbers,
)
from .predicting import load_estimator
from .profile import Request, profile
from .space_plan import Plan
from .space_profile import build_space_profile, profile_space
from .spaces import load_space, network_of
from .store import Store
from .subject import ModelFile, Subject, read_block_list, subject_id, subject_label, subject_to_json

DEFAULT_STORE = "latkit.sqlite"
PROTOCOL = TimingProtocol()


def register(app: typer.Typer) -> None:
    """Add the verbs of this folder to the command."""
    app.command("profile")(profile_verb)
    app.command("table")(table_verb)
    app.command("fit")(fit_verb)
    app.command("predict")(predict_verb)


def profile_verb(
    models: Annotated[
        list[Path] | None, typer.Argument(help="Model files: .onnx, .tflite.")
    ] = None,
    space: SpaceOption = None,
    classes: ClassesOption = None,
    blocks: BlocksOption = None,
    device: DeviceOption = "cpu",
    runtime: RuntimeOption = "onnxruntime",
    threads: ThreadsOption = 1,
    cores: CoresOption = None,
    precision: PrecisionOption = "float32",
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
    json: JsonOption = False,
) -> None:
    """Time a space, blocks or model files on a device, as far as the store lacks them.

    A run that was cut off goes on where it was when it is started again.
    """

    def run() -> None:
        protocol = TimingProtocol(rounds, processes, runs)
        given = [space is not None, blocks is not None, bool(models)]
        if sum(given) != 1:
            raise UsageError("give one of --space NAME, --blocks FILE.json, or model files")
        if per_op and not models:
            raise UsageError("--per-op is for model files")
        if space is not None and (eviction_bytes is not None or retry_failed):
            raise UsageError("--eviction-bytes and --retry-failed do not go with --space")
        if models and eviction_bytes:
            raise UsageError("model files are timed as they are called: without --eviction-bytes")
        requests: list[Request] = []
        if blocks is not None:
            requests = [(block, eviction_bytes or 0) for block in read_block_list(blocks)]
        elif models:
            requests = [(ModelFile.read(path), 0) for path in models]
        chosen = None if space is None else load_space(space, classes)
        opened = open_chosen(device, runtime, threads, cores, precision)
        with Store(store) as kept:
            if chosen is None:
                _profile_models(
                    opened, requests, kept, protocol, strict, retry_failed, per_op, json
                )
                return
            with progress_bar() as progress:
                result = profile_space(
                    chosen,
                    opened,
                    kept,
                    protocol,
                    progress,
                    strict=strict,
                    calibration_networks=calibration_networks,
                    held_out_networks=held_out_networks,
                    seed=seed,
                )
            if json:
                print_json(output.space_json(result))
            else:
                output.print_space(result)

    exit_with_code(run)


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
    calibration_networks: CalibrationNetworksOption = 16,
    held_out_networks: HeldOutNetworksOption = 24,
    seed: SeedOption = 0,
    json: JsonOption = False,
) -> None:
    """Build a latency table from the store, and print how well it predicts networks."""

    def run() -> None:
        chosen = load_space(space, classes)
        with Store(store, create=False) as kept:
            setup = choose_setup(kept, device, runtime, threads, cores, precision)
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
    eviction_bytes: EvictionOption = None,
    seed: SeedOption = 0,
    json: JsonOption = False,
) -> None:
    """Fit a predictor to all measured blocks, and print its cross-validated error."""

    def run() -> None:
        from .predicting import fit_predictor

        with Store(store, create=False) as kept:
            setup = choose_setup(kept, device, runtime, threads, cores, precision)
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
    json: JsonOption = False,
) -> None:
    """Predict the latency of blocks, or of an architecture of a space, without the device.

    With --device, or another of its options, a table of any other setup is refused.
    """

    def run() -> None:
        estimator = load_estimator(table, predictor)
        check_setup(estimator.setup, estimator.name, device, runtime, threads, cores, precision)
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


def _profile_models(
    device: Device,
    requests: list[Request],
    store: Store,
    protocol: TimingProtocol,
    strict: bool,
    retry_failed: bool,
    per_op: bool,
    json: bool,
) -> None:
    """Time blocks or files and print what came; only then raise what must end the command."""
    unstable: UnstableError | None = None
    with progress_bar() as progress:
        try:
            result = profile(
                device,
                requests,
                store,
                protocol,
                strict=strict,
                retry_failed=retry_failed,
                progress=progress,
            )
        except UnstableError as error:
            unstable = error
            result = profile(device, requests, store, protocol)  # All is stored: times nothing.
    subjects = {(subject_id(subject), size): subject for subject, size in requests}
    operations: dict[str, OperationTimes] = {}
    if per_op:
        operations = {
            str(subject.path): operation_times(subject.path, device.setup)
            for key, subject in subjects.items()
            if isinstance(subject, ModelFile) and key in result.measurements
        }
    if json:
        data: dict[str, Any] = output.profile_json(device.setup, result, subjects)
        if per_op:
            data["per_op"] = {
                path: {**asdict(times), "sum_ms": times.sum_ms, "remainder_ms": times.remainder_ms}
                for path, times in operations.items()
            }
        print_json(data)
    else:
        output.print_profile(device.setup, result, subjects)
        for path, times in operations.items():
            output.print_operations(path, times)
    if result.failures:
        (model, _), cause = next(iter(result.failures.items()))
        raise DeviceError(
            f"{len(result.failures)} of {len(subjects)} models failed. The first, {model}: {cause}"
        )
    if unstable is not None:
        raise unstable
