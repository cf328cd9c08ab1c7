"""The verb `adapt`: a new device from few measurements and what other devices take."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from ..devices.console import exit_with_code, print_json, stdout
from ..devices.errors import UsageError
from .options import (
    AllowEmulatedOption,
    AnyAcceleratorOption,
    AnyBatchSizeOption,
    AnyDeviceOption,
    AnyPrecisionOption,
    AnyRuntimeOption,
    AnyThreadsOption,
    BlocksOption,
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
from .subject import read_block_list, subject_label, subject_to_json
from .table import LatencyTable
from .transfer.adapting import (
    choose_architectures,
    choose_blocks,
    measured_blocks,
    predict_architectures,
    read_measured,
)
from .transfer.data import read_latency_data
from .transfer.predictor import COVERAGE
from .transfer.table import adapt_tables


def register(app: typer.Typer) -> None:
    """Add the verb to the command."""
    app.command("adapt")(adapt_verb)


def adapt_verb(
    output_path: OutputOption,
    source_table: Annotated[
        list[Path] | None,
        typer.Option("--source-table", help="Another device's table. Several: repeat it."),
    ] = None,
    blocks: BlocksOption = None,
    data: Annotated[
        Path | None,
        typer.Option("--data", help="Architectures on other devices: an .npz file (see above)."),
    ] = None,
    sources: Annotated[
        str | None,
        typer.Option("--sources", help="Devices of --data to learn from: A,B,... Default: all."),
    ] = None,
    choose: Annotated[
        int | None,
        typer.Option("--choose", min=1, help="Choose this many to measure: the first step."),
    ] = None,
    measured: Annotated[
        Path | None,
        typer.Option("--measured", help="The CSV of --choose, with latency_ms filled in."),
    ] = None,
    store: StoreOption = DEFAULT_STORE,
    device: AnyDeviceOption = None,
    runtime: AnyRuntimeOption = None,
    threads: AnyThreadsOption = None,
    cores: CoresOption = None,
    precision: AnyPrecisionOption = None,
    accelerator: AnyAcceleratorOption = None,
    batch_size: AnyBatchSizeOption = None,
    eviction_bytes: EvictionOption = None,
    coverage: Annotated[
        float, typer.Option("--coverage", help="Probability that an interval holds its latency.")
    ] = COVERAGE,
    seed: SeedOption = 0,
    allow_emulated: AllowEmulatedOption = False,
    json: JsonOption = False,
) -> None:
    """Predict a new device from 10 to 20 measurements and what other devices take. Two steps.

    Blocks: --source-table A.json --choose 20 --output blocks.json; measure them by latkit profile
    --blocks blocks.json --device D --store S; then --source-table A.json --store S --output
    new.json. --blocks adds blocks to be predicted that no table holds.

    Architectures: --data F.npz --choose 20 --output measure.csv; fill in its column latency_ms;
    then --data F.npz --measured measure.csv --output predicted.csv. The file holds ops
    (architectures, positions), devices, and latency_ms (architectures, devices), NaN where not
    measured.
    """

    def of_data(path: Path) -> None:
        read = read_latency_data(path)
        names = read.devices if sources is None else tuple(sources.split(","))
        if choose is not None:
            indices = choose_architectures(read, names, choose, output_path, seed)
            if json:
                print_json({"indices": indices, "output": str(output_path)})
                return
            _say(f"Measure architectures {', '.join(map(str, indices))} on the new device.")
            _say(f"Fill in latency_ms in {output_path}, and give it back by --measured.")
            return
        if measured is None:
            raise UsageError("give --choose N for the first step, or --measured FILE.csv")
        found = predict_architectures(
            read, names, read_measured(measured), output_path, coverage=coverage, seed=seed
        )
        if json:
            print_json(
                {
                    "coverage": coverage,
                    "sources": list(names),
                    "estimates": found.to_dict("records"),
                    "output": str(output_path),
                }
            )
            return
        _summarise(found["source"].tolist(), coverage)

    def of_tables(paths: list[Path]) -> None:
        tables = [LatencyTable.load(path) for path in paths]
        more = [] if blocks is None else read_block_list(blocks)
        if choose is not None:
            chosen = choose_blocks(tables, choose, output_path, more, seed)
            if json:
                listed = [subject_to_json(block) for block in chosen]
                print_json({"blocks": listed, "output": str(output_path)})
                return
            for block in chosen:
                _say(subject_label(block))
            _say(f"Measure them: latkit profile --device DEVICE --blocks {output_path}")
            return
        choice = SetupChoice(device, runtime, threads, cores, precision, accelerator, batch_size)
        with Store(store, create=False) as kept:
            setup = choice.choose(kept)
            refuse_emulated(setup, allow_emulated)
            known = measured_blocks(kept, setup, eviction_bytes)
        table = adapt_tables(
            tables,
            setup,
            known.estimates,
            eviction_bytes=known.eviction_bytes,
            more=more,
            coverage=coverage,
            seed=seed,
        )
        table.save(output_path)
        if json:
            print_json(
                {
                    "setup": asdict(setup),
                    "eviction_bytes": table.eviction_bytes,
                    "coverage": coverage,
                    "sources": list(table.sources),
                    "estimates": [
                        {"model": subject_to_json(block), **asdict(entry)}
                        for block, entry in table.entries.items()
                    ],
                    "output": str(output_path),
                }
            )
            return
        _say(setup.key)
        _summarise([entry.source for entry in table.entries.values()], coverage)

    def _summarise(origins: list[str], probability: float) -> None:
        counts = Counter(origins)
        _say(
            f"{counts['measured']} measured, {counts['predicted']} predicted, with intervals that "
            f"hold a latency with probability {probability:g}"
        )
        _say(f"written to {output_path}")

    def run() -> None:
        if (data is None) == (not source_table):
            raise UsageError("give --source-table FILE, once or more, or --data FILE.npz")
        if choose is not None and measured is not None:
            raise UsageError("--choose is the first step, --measured the second: give one of them")
        if data is not None:
            if blocks is not None:
                raise UsageError("--blocks goes with --source-table, not with --data")
            of_data(data)
        elif source_table:
            if measured is not None or sources is not None:
                raise UsageError("--measured and --sources go with --data, not --source-table")
            of_tables(source_table)

    exit_with_code(run)


def _say(text: str) -> None:
    stdout.print(text, markup=False, highlight=False, soft_wrap=True)
