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
    AllowEmulatedOption,
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
    refuse_emulated,
)
from ..latency.store import DEFAULT_STORE, Store
from ..latency.table import LatencyTable
from .settings import RETRAINING_SETTINGS, TrainingSettings

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
    recipe: Annotated[
        str,
        typer.Option(
            "--recipe",
            help="quick, or a paper's: spos, tunas, bignas, tfnas, darts, oneshot, ...",
        ),
    ] = "quick",
    max_latency_ms: Annotated[
        list[float] | None,
        typer.Option(
            "--max-latency-ms",
            help="The most accurate network within it. Repeat it for several budgets.",
        ),
    ] = None,
    target_latency_ms: Annotated[
        list[float] | None,
        typer.Option(
            "--target-latency-ms",
            help="Land on it. Default, where neither is given: the middle of the space.",
        ),
    ] = None,
    limits: Annotated[
        list[str] | None,
        typer.Option(
            "--limit",
            metavar="NAME=MOST",
            help="Keep this too: flops, multiply_adds, parameters, bit_operations, "
            "peak_memory_bytes, or another device's table, as phone.json=12 (ms).",
        ),
    ] = None,
    table: Annotated[
        Path | None,
        typer.Option(
            "--table", help="A table that `latkit table` wrote. Default: what is missing is timed."
        ),
    ] = None,
    space: Annotated[
        str | None,
        typer.Option(
            "--space",
            help="A space by name, or path/file.py:NAME (it is run). Default: the recipe's.",
        ),
    ] = None,
    strategy: Annotated[
        str | None,
        typer.Option("--strategy", help="How to choose, in place of the recipe's own way."),
    ] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="Override a constant: settings.epochs=5, strategy.budget=60, train.*, "
            "retraining.*, scale.width=0.25. May be given several times.",
        ),
    ] = None,
    random_search: Annotated[
        bool | None,
        typer.Option(
            "--random-search/--no-random-search",
            help="Random search with as many evaluations beside it, to compare with. Default: "
            "yes, unless each architecture is trained on its own.",
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option("--data", help="A folder of class folders, or an .npz. Default: digits."),
    ] = None,
    resize: Annotated[
        bool,
        typer.Option("--resize", help="Scale the middle of images of other sizes to the space's."),
    ] = False,
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
    training_device: Annotated[
        str, typer.Option("--training-device", help="Where to train: cpu, cuda, cuda:1.")
    ] = "cpu",
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
    allow_emulated: AllowEmulatedOption = False,
    store: StoreOption = DEFAULT_STORE,
    output: Annotated[
        Path, typer.Option("--output", help="Folder of the search; it resumes from there.")
    ] = Path("search"),
    json: JsonOption = False,
) -> None:
    """Search for the best network at a latency; profile first, then train, export, measure it.

    The best are timed on the device and correct the cost, and the search goes on where they miss.
    What was cut off goes on where it was when it is started again. Exit code 6: nothing reaches
    the latency, or nothing that was timed did.
    """

    def run() -> None:
        with _needing_the_search_extra():
            from .aim import aims_of
            from .data import load_data
            from .filled_table import without_gaps
            from .limits import limits_of
            from .pipeline import Search, SearchSettings, default_aim
            from .profiling import PREDICTOR, table_of
            from .recipes import override, recipe_named
            from .recipes.spaces import space_of
            from .recipes.strategies import with_strategy
            from .results_shown import print_result, require_met, result_json

        aims = aims_of(max_latency_ms or [], target_latency_ms or [])
        named = with_strategy(recipe_named(recipe), strategy)
        chosen = override(named, RETRAINING_SETTINGS, assignments or [])
        searched = replace(
            chosen.recipe, settings=_training(chosen.recipe.settings, seed, flip, crop)
        )
        loaded = None if table is None else LatencyTable.load(table)
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
        if loaded is not None:
            loaded.check_setup(opened.setup)
        else:
            refuse_emulated(opened.setup, allow_emulated)
        # How large its images are is asked first, for how many classes there are is not known yet.
        address = space or ""
        image_size = space_of(searched, address, 2, chosen.scale).image_size
        images = load_data(data, image_size, seed, resize=resize)
        found = space_of(searched, address, len(images.classes), chosen.scale)
        with Store(store) as kept, progress_bar() as progress:
            table_file = table or output / "table.json"
            if loaded is None:
                loaded = table_of(
                    found,
                    opened,
                    kept,
                    TimingProtocol(),
                    aims,
                    table_file,
                    progress,
                    limits_of(found, limits or []),
                )
            else:
                loaded = without_gaps(loaded, found, kept, output / PREDICTOR)
            if loaded.calibration == Calibration():
                stderr.print(
                    "The table has no calibration to whole networks: predictions are plain sums of "
                    "blocks until networks are measured.",
                    soft_wrap=True,
                )
            aims = aims or (default_aim(found, loaded),)
            for aim in aims:
                told = f"target: {aim.kind} {aim.target_ms:g} ms on {opened.setup.key}"
                stderr.print(told, markup=False, highlight=False, soft_wrap=True)
            result = Search(
                recipe=searched,
                space=found,
                space_address=address,
                scale=chosen.scale,
                table=loaded,
                table_file=table_file,
                device=opened,
                store=kept,
                protocol=TimingProtocol(),
                data=images,
                settings=SearchSettings(
                    aims,
                    searched.train is not None if random_search is None else random_search,
                    seed,
                    training_threads or os.cpu_count() or 1,
                    _training(chosen.retraining, seed, flip, crop),
                    tuple(limits or ()),
                ),
                folder=output,
                progress=progress,
                workers=workers,
                training_device=training_device,
            ).run()
        if json:
            print_json(result_json(result))
        else:
            print_result(result)
        require_met(result)

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


def _training(settings: TrainingSettings, seed: int, flip: bool, crop: float) -> TrainingSettings:
    """Training settings with what the command's options say; random parts are not also shifted."""
    settings = replace(settings, seed=seed, flip=flip or settings.flip)
    return settings if crop == 1 else replace(settings, crop=crop, shift=0)


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
