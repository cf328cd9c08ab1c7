"""The verb `predict`: latencies without the device, of blocks, architectures and model files."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from ..devices.console import exit_with_code, print_json
from ..devices.errors import UsageError
from . import output
from .models.predictor import ModelPredictor, predict_model
from .options import (
    AnyAcceleratorOption,
    AnyBatchSizeOption,
    AnyDeviceOption,
    AnyPrecisionOption,
    AnyRuntimeOption,
    AnyThreadsOption,
    BlocksOption,
    ClassesOption,
    CoresOption,
    JsonOption,
    SetupChoice,
    SpaceOption,
    parse_numbers,
)
from .predicting import load_estimator
from .spaces import load_space, network_of
from .subject import Subject, read_block_list, subject_label, subject_to_json


def register(app: typer.Typer) -> None:
    """Add the verb to the command."""
    app.command("predict")(predict_verb)


def predict_verb(
    models: Annotated[
        list[Path] | None, typer.Argument(help="Model files: .onnx, .tflite.")
    ] = None,
    table: Annotated[
        Path | None,
        typer.Option("--table", help="A table that `latkit table` or `latkit adapt` wrote."),
    ] = None,
    predictor: Annotated[
        Path | None,
        typer.Option(
            "--predictor",
            help="A predictor that `latkit fit` wrote; for model files `latkit fit --kernels`.",
        ),
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
    """Predict the latency of blocks, an architecture of a space, or model files.

    Model files are split into the kernels that the runtime makes of them, with a line for each.
    With --device, or another of its options, a table of any other setup is refused.
    """

    choice = SetupChoice(device, runtime, threads, cores, precision, accelerator, batch_size)

    def run() -> None:
        if models:
            if blocks is not None or space is not None or architecture is not None:
                raise UsageError("give model files, or --blocks, or --space; one of them")
            _predict_files(models, table, predictor, choice, json)
            return
        estimator = load_estimator(table, predictor)
        choice.check(estimator.setup, estimator.name)
        subjects: list[Subject]
        if blocks is not None and space is None and architecture is None:
            subjects = [*read_block_list(blocks)]
        elif blocks is None and space is not None and architecture is not None:
            choices = parse_numbers("--architecture", architecture)
            subjects = [network_of(load_space(space, classes), choices)]
        else:
            raise UsageError(
                "give model files, --blocks FILE.json, or --space NAME and --architecture 0,1,2"
            )
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


def _predict_files(
    models: list[Path],
    table: Path | None,
    predictor: Path | None,
    choice: SetupChoice,
    json: bool,
) -> None:
    """Predict model files, and print each kernel by kernel."""
    if predictor is None or table is not None:
        raise UsageError("model files are predicted by --predictor, of `latkit fit --kernels`")
    fitted = ModelPredictor.load(predictor)
    assert fitted.setup is not None
    choice.check(fitted.setup, f"the model predictor {predictor}")
    predictions = [(path, predict_model(path, fitted)) for path in models]
    if json:
        print_json(
            {
                "setup": asdict(fitted.setup),
                "models": [
                    {"path": str(path), **prediction.to_json()} for path, prediction in predictions
                ],
            }
        )
        return
    for path, prediction in predictions:
        output.print_model_prediction(path.name, prediction)
