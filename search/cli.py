"""The command `latkit`: the verbs of all folders, and `search` and `report` of this one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from ..devices import cli as devices_cli
from ..devices.console import exit_with_code, print_json, progress_bar, stderr, stdout
from ..devices.device import TimingProtocol
from ..devices.errors import UsageError
from ..devices.registry import open_device
from ..latency import cli as latency_cli
from ..latency.calibration import Calibration
from ..latency.options import (
    AcceleratorOption,
    AdbOption,
    AllowFallbackOption,
    BatchSizeOption,
    BenchmarkModelOption,
    CoresOption,
    DeviceOption,
    JsonOption,
    PrecisionOption,
    RuntimeLibraryOption,
    RuntimeOption,
    StoreOption,
    ThreadsOption,
    device_options,
)
from ..latency.spaces import load_space
from ..latency.store import DEFAULT_STORE, Store
from ..latency.table import LatencyTable
from .settings import RETRAINING_SETTINGS, SUPERNET_SETTINGS, TrainingSettings

app = typer.Typer(
    name="latkit",
    help="Measure and model latency on a device, and search for networks within a latency.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
devices_cli.register(app)
latency_cli.register(app)


def main() -> None:
    """Run the command."""
    app()


@app.command("search")
def search_verb(
    table: Annotated[Path, typer.Option("--table", help="A table that `latkit table` wrote.")],
    space: Annotated[
        str, typer.Option("--space", help="A space by name, or path/file.py:NAME (it is run).")
    ] = "mobile",
    target_latency_ms: Annotated[
        float | None,
        typer.Option(
            "--target-latency-ms", help="Latency to land on. Default: the middle of the space."
        ),
    ] = None,
    strategy: Annotated[str, typer.Option(help="evolution or reinforce.")] = "evolution",
    population: Annotated[int, typer.Option(min=2, help="Evaluations in a round.")] = 20,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of evaluations.")] = 6,
    data: Annotated[
        Path | None,
        typer.Option("--data", help="A folder of class folders, or an .npz. Default: digits."),
    ] = None,
    resize: Annotated[
        bool,
        typer.Option("--resize", help="Scale the middle of images of other sizes to the space's."),
    ] = False,
    supernet_epochs: Annotated[
        int | None, typer.Option(min=1, help="Epochs of supernet training. Default: 40.")
    ] = None,
    retraining_epochs: Annotated[
        int | None, typer.Option(min=1, help="Epochs of a finalist's own training. Default: 20.")
    ] = None,
    flip: Annotated[
        bool, typer.Option("--flip", help="Mirror training images (not digits or text).")
    ] = False,
    crop: Annotated[
        float,
        typer.Option(
            "--crop",
            help="Train on random parts of images, of at least this share (ImageNet: 0.08).",
        ),
    ] = 1.0,
    seed: Annotated[int, typer.Option(help="Seed of the split, training and search.")] = 0,
    training_threads: Annotated[
        int | None, typer.Option(min=1, help="Torch's threads. Default: one a processor.")
    ] = None,
    workers: Annotated[
        int, typer.Option(min=1, help="Threads that read and augment training images.")
    ] = 1,
    device: DeviceOption = "cpu",
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
    output: Annotated[
        Path, typer.Option("--output", help="Folder of the search; it resumes from there.")
    ] = Path("search"),
    json: JsonOption = False,
) -> None:
    """Search a space for its best network at a latency; train, export and measure it.

    Random search gets as many evaluations and the same training, to compare with. A search that
    was cut off goes on where it was when it is started again.
    """

    def run() -> None:
        if strategy not in ("evolution", "reinforce"):
            raise UsageError(f"--strategy {strategy}: it is evolution or reinforce")
        with _needing_the_search_extra():
            from .data import load_data
            from .pipeline import Search, SearchSettings, default_target_ms
            from .results_shown import print_result, result_json
            from .space import SearchSpace

        loaded = LatencyTable.load(table)
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
        opened = open_device(device, options)
        loaded.check_setup(opened.setup)
        if loaded.calibration == Calibration():
            stderr.print(
                "The table has no calibration to whole networks: predictions are plain sums of "
                "blocks until networks are measured.",
                soft_wrap=True,
            )
        # How large its images are is asked first, for how many classes there are is not known yet.
        chosen = load_space(space, classes=2)
        if not isinstance(chosen, SearchSpace):
            raise UsageError(f"{space} can be profiled, but is no SearchSpace to be searched")
        images = load_data(data, chosen.image_size, seed, resize=resize)
        chosen = load_space(space, classes=len(images.classes))
        assert isinstance(chosen, SearchSpace)
        settings = SearchSettings(
            target_ms=target_latency_ms or default_target_ms(chosen, loaded),
            strategy="evolution" if strategy == "evolution" else "reinforce",
            population=population,
            rounds=rounds,
            seed=seed,
            threads=training_threads or os.cpu_count() or 1,
            supernet=_training(SUPERNET_SETTINGS, supernet_epochs, seed, flip, crop),
            retraining=_training(RETRAINING_SETTINGS, retraining_epochs, seed, flip, crop),
        )
        target = f"target: {settings.target_ms:g} ms on {opened.setup.key}"
        stderr.print(target, markup=False, highlight=False, soft_wrap=True)
        with Store(store) as kept, progress_bar() as progress:
            result = Search(
                space=chosen,
                space_address=space,
                table=loaded,
                table_file=table,
                device=opened,
                store=kept,
                protocol=TimingProtocol(),
                data=images,
                workers=workers,
                settings=settings,
                folder=output,
                progress=progress,
            ).run()
        if json:
            print_json(result_json(result))
        else:
            print_result(result)

    exit_with_code(run)


@contextmanager
def _needing_the_search_extra() -> Iterator[None]:
    """Import what the extra `search` installs; `UsageError` where it is not installed."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise UsageError(
            f"{error.name} is not installed, and searching needs it: pip install 'latkit[search]'"
        ) from error


def _training(
    defaults: TrainingSettings, epochs: int | None, seed: int, flip: bool, crop: float
) -> TrainingSettings:
    """Training settings with what the command's options say; random parts are not also shifted."""
    shift = defaults.shift if crop == 1 else 0
    epochs = epochs or defaults.epochs
    return replace(defaults, epochs=epochs, seed=seed, flip=flip, crop=crop, shift=shift)


@app.command("report")
def report_verb(
    search: Annotated[
        Path, typer.Option("--search", help="Folder that `latkit search` wrote.")
    ] = Path("search"),
    output: Annotated[
        Path | None, typer.Option("--output", help="Folder to write to. Default: the search's.")
    ] = None,
    tensorboard: Annotated[
        Path | None,
        typer.Option("--tensorboard", help="Folder to write the evaluations to, for TensorBoard."),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Write the report of a search: one HTML file that needs no network, and its figures.

    Of a search that still runs, or was cut off, it shows what was evaluated so far.
    """

    def run() -> None:
        with _needing_the_search_extra():
            from .report import write_report
            from .search_report import report_input
            from .tensorboard import write_tensorboard

        data = report_input(search)
        written = {"report": str(write_report(data, output or search))}
        if tensorboard is not None:
            write_tensorboard(data.trajectory, tensorboard)
            written["tensorboard"] = str(tensorboard)
        if json:
            print_json(written)
        else:
            for path in written.values():
                stdout.print(f"written to {path}", markup=False, highlight=False, soft_wrap=True)

    exit_with_code(run)
