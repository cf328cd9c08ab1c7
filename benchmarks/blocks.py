"""How well is the latency of blocks predicted that were never measured?

Draws random blocks such as mobile networks are made of, measures them all (resuming from
`--store`), fits predictors to some of them and compares the others. `predictor` learns from random
blocks, `adaptive` from as many that it chose among the same ones, batch by batch, as
`latkit profile --adaptive` does; `gain` is adaptive minus random for the same seed. Beside it:
boosting on the same features, a random forest on the plain configuration, and FLOPs, fitted to the
same random blocks.

    python benchmarks/blocks.py --runtime onnxruntime --cores 1 --json blocks.json
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from latkit.devices.console import exit_with_code, progress_bar
from latkit.devices.device import Device, TimingProtocol
from latkit.devices.errors import DeviceError
from latkit.devices.measurement import Measurement
from latkit.devices.options import DeviceOptions
from latkit.devices.registry import open_device
from latkit.latency.adaptive import (
    FIRST,
    AdaptiveChoice,
    Candidates,
    batch_size,
    random_part,
)
from latkit.latency.blocks import BLOCK_KINDS, Block, ConvBlock, Depthwise, MBConv, Pointwise
from latkit.latency.calibration import fit_relative
from latkit.latency.counts import block_counts
from latkit.latency.features import describe
from latkit.latency.hybrid import Columns
from latkit.latency.predictor import COVERAGE, LatencyPredictor
from latkit.latency.profile import profile
from latkit.latency.store import Store
from latkit.latency.trees import boosted_trees
from numpy.typing import NDArray
from results import report
from sklearn.ensemble import RandomForestRegressor

PIXELS = (4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 56)
MOST_CHANNELS = 192
GRID = 8
KERNELS = (3, 5, 7)
ACTIVATIONS = {
    "relu": 0.22,
    "relu6": 0.22,
    "swish": 0.22,
    "hard_swish": 0.22,
    "none": 0.04,
    "sigmoid": 0.04,
    "hard_sigmoid": 0.04,
}
KINDS = {"MBConv": 0.8, "ConvBlock": 0.08, "Pointwise": 0.06, "Depthwise": 0.06}
LONGEST_MS = 5.0

Array = NDArray[np.float64]
Predict = Callable[[Sequence[Block]], Array]
Model = Callable[[Sequence[Block], Array, int], Predict]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=_Formatter)
    parser.add_argument("--runtime", default="onnxruntime", choices=("onnxruntime", "litert"))
    parser.add_argument("--test", type=int, default=300, help="blocks that are only predicted")
    parser.add_argument("--pool", type=int, default=1500, help="blocks to choose training from")
    parser.add_argument("--train", type=_numbers, default=(60, 100, 300), help="blocks to fit to")
    parser.add_argument(
        "--seeds", type=_numbers, default=(0, 1, 2, 3, 4), help="choices of those blocks"
    )
    parser.add_argument("--block-seed", type=int, default=0, help="draws the blocks")
    parser.add_argument("--store", type=Path, help="default: a temporary one")
    parser.add_argument("--eviction-bytes", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=TimingProtocol().rounds)
    parser.add_argument("--cores", type=_numbers, help="default: the runtime's own choice")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    exit_with_code(lambda: run(arguments))


class _Formatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Keeps the line breaks of the description, and shows defaults."""


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


def run(arguments: argparse.Namespace) -> None:
    blocks = draw(arguments.test + arguments.pool, arguments.block_seed)
    device = open_device("cpu", DeviceOptions(runtime=arguments.runtime, cores=arguments.cores))
    started = time.perf_counter()
    measured = measure(device, blocks, arguments)
    profiling_s = time.perf_counter() - started
    latency_ms = np.array([item.median_ms for item in measured])
    started = time.perf_counter()
    figures, rows = compare(blocks, latency_ms, arguments.test, arguments.train, arguments.seeds)
    report(
        {**figures, "profiling_s": profiling_s, "fitting_s": time.perf_counter() - started},
        rows,
        {
            "setup": asdict(device.setup),
            "info": device.info(),
            "protocol": asdict(TimingProtocol(rounds=arguments.rounds)),
            "eviction_bytes": arguments.eviction_bytes,
            "block_seed": arguments.block_seed,
            "blocks": Counter(type(block).__name__ for block in blocks),
            "test_blocks": arguments.test,
            "training_pool": arguments.pool,
            "interval_coverage_asked": COVERAGE,
            **_quality(measured),
        },
        arguments.json,
    )


def measure(
    device: Device, blocks: Sequence[Block], arguments: argparse.Namespace
) -> list[Measurement]:
    """Measurements of blocks, as far as `--store` lacks them; each must succeed."""
    with (
        tempfile.TemporaryDirectory() as folder,
        Store(arguments.store or Path(folder) / "store.db") as store,
        progress_bar() as progress,
    ):
        result = profile(
            device,
            [(block, arguments.eviction_bytes) for block in blocks],
            store,
            TimingProtocol(rounds=arguments.rounds),
            progress=progress,
        )
    if result.failures:
        (model, _), cause = next(iter(result.failures.items()))
        raise DeviceError(f"{len(result.failures)} blocks failed. The first, {model}: {cause}")
    return [result.measurements[block.key, arguments.eviction_bytes] for block in blocks]


def _quality(measured: Sequence[Measurement]) -> dict[str, Any]:
    verdicts = Counter(item.verdict.kind for item in measured)
    shares = {kind: count / len(measured) for kind, count in sorted(verdicts.items())}
    print("verdicts: " + ", ".join(f"{kind} {share:.1%}" for kind, share in shares.items()))
    percentiles = (5, 25, 50, 75, 95)
    return {
        "verdict_shares": shares,
        "spread_percentiles": _percentiles([item.spread for item in measured], percentiles),
        "latency_ms_percentiles": _percentiles([item.median_ms for item in measured], percentiles),
    }


def _percentiles(values: Sequence[float], percentiles: Sequence[int]) -> dict[str, float]:
    found = np.percentile(values, percentiles)
    return {f"{rank}": float(value) for rank, value in zip(percentiles, found, strict=True)}


def draw(count: int, seed: int) -> list[Block]:
    """Different random blocks, none of which should take longer than `LONGEST_MS`."""
    random = np.random.default_rng(seed)
    found: dict[Block, None] = {}
    while len(found) < count:
        block = _random_block(random)
        if _rough_ms(block) < LONGEST_MS:
            found[block] = None
    return list(found)


def _random_block(random: np.random.Generator) -> Block:
    pixels = int(random.choice(PIXELS))
    channels = GRID * int(random.integers(1, MOST_CHANNELS // GRID + 1))
    other = GRID * int(random.integers(1, MOST_CHANNELS // GRID + 1))
    shape: dict[str, Any] = {
        "in_channels": channels,
        "height": pixels,
        "width": pixels,
        "activation": str(random.choice(list(ACTIVATIONS), p=list(ACTIVATIONS.values()))),
    }
    out_channels = channels if random.random() < 0.5 else other
    kernel, stride = int(random.choice(KERNELS)), int(random.choice((1, 1, 2)))
    match str(random.choice(list(KINDS), p=list(KINDS.values()))):
        case "MBConv":
            return MBConv(
                **shape,
                out_channels=out_channels,
                expanded_channels=max(GRID, round(channels * _expansion(random) / GRID) * GRID),
                kernel=kernel,
                stride=stride,
                squeeze_excite=bool(random.random() < 0.35),
            )
        case "ConvBlock":
            if random.random() < 0.5:  # a network's first layer
                shape["in_channels"] = 3
            kernel = int(random.choice(KERNELS, p=(0.6, 0.2, 0.2)))
            return ConvBlock(**shape, out_channels=out_channels, kernel=kernel, stride=stride)
        case "Pointwise":
            return Pointwise(**shape, out_channels=out_channels)
        case _:
            return Depthwise(**shape, kernel=kernel, stride=stride)


def _expansion(random: np.random.Generator) -> float:
    """A ratio that spaces use, or, half of the time, any between them."""
    if random.random() < 0.5:
        return float(random.choice((1, 2, 3, 4, 6)))
    return float(random.uniform(1, 6))


def _rough_ms(block: Block) -> float:
    """A pessimistic guess; a depthwise 7x7 is slow on some runtimes."""
    seconds = 0.0
    for kernel in block_counts(block).kernels:
        flops_a_second = 1e9
        if kernel.kind in ("conv", "pointwise"):
            flops_a_second = 50e9
        elif kernel.kind == "depthwise" and max(kernel.kernel) <= 5:
            flops_a_second = 8e9
        seconds += kernel.flops / flops_a_second + kernel.moved_bytes / 10e9
    return 1e3 * seconds


def compare(
    blocks: Sequence[Block],
    latency_ms: Array,
    test: int,
    train: Sequence[int],
    seeds: Sequence[int],
) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """Figures, averaged over seeds, and rows; the first `test` blocks are only predicted."""
    rows = []
    held_out, held_out_ms = blocks[:test], latency_ms[:test]
    for name, model in MODELS.items():
        for count in train:
            for seed in seeds:
                random = np.random.default_rng(seed)
                chosen = test + random.permutation(len(blocks) - test)[:count]
                predict = model([blocks[index] for index in chosen], latency_ms[chosen], seed)
                rows.append(_row(name, count, seed, predict, held_out, held_out_ms))
    for seed in seeds:
        for count, predict in adaptive(blocks[test:], latency_ms[test:], train, seed):
            rows.append(_row("adaptive", count, seed, predict, held_out, held_out_ms))
    figures = {}
    for name in (*MODELS, "adaptive"):
        prefix = "" if name == "predictor" else f"{name}_"
        for count in train:
            of_model = [row for row in rows if (row["model"], row["train"]) == (name, count)]
            for figure in ("rmspe", "within_5", "within_10", "coverage", "width"):
                if of_model[0][figure] != "":
                    mean = float(np.mean([row[figure] for row in of_model]))
                    figures[f"{prefix}{figure}_{count}"] = mean
    return figures | gains(rows, train), rows


def adaptive(
    blocks: Sequence[Block], latency_ms: Array, counts: Sequence[int], seed: int
) -> Iterator[tuple[int, Predict]]:
    """Predictors of ever more blocks, chosen among all of these as they would be measured."""
    known = dict(zip(blocks, latency_ms.tolist(), strict=True))
    choice = AdaptiveChoice(Candidates.of_blocks(blocks), seed)
    choice.at_random(min(FIRST, *counts))
    for count in sorted(counts):
        while True:
            measured = list(choice.picked)
            predictor = LatencyPredictor().fit(
                measured,
                [known[block] for block in measured],
                seed,
                at_random=list(choice.picked.values()),
            )
            batch = min(batch_size(len(measured)), count - len(measured))
            if not batch:
                break
            choice.at_random(random_part(batch))
            choice.unsure(predictor, measured, len(measured) + batch - len(choice.picked))
        yield count, predictor.predict


def gains(rows: Sequence[dict[str, Any]], counts: Sequence[int]) -> dict[str, float]:
    """Adaptive minus random for the same seed: mean and standard deviation over the seeds."""
    figures = {}
    for count in counts:
        within = {
            (row["model"], row["seed"]): row["within_10"] for row in rows if row["train"] == count
        }
        found = [
            within["adaptive", seed] - value
            for (name, seed), value in within.items()
            if name == "predictor"
        ]
        figures[f"gain_within_10_{count}"] = float(np.mean(found))
        figures[f"gain_within_10_sd_{count}"] = float(np.std(found, ddof=min(1, len(found) - 1)))
    return figures


def _row(
    model: str, count: int, seed: int, predict: Predict, blocks: Sequence[Block], latency_ms: Array
) -> dict[str, Any]:
    error = predict(blocks) / latency_ms - 1
    return {
        "model": model,
        "train": count,
        "seed": seed,
        "rmspe": float(np.sqrt(np.mean(error**2))),
        "within_5": float(np.mean(np.abs(error) <= 0.05)),
        "within_10": float(np.mean(np.abs(error) <= 0.1)),
        **_interval(predict, blocks, latency_ms),
    }


def _interval(predict: Predict, blocks: Sequence[Block], latency_ms: Array) -> dict[str, Any]:
    """Share of blocks inside of their interval, and the median of its relative width."""
    predictor = getattr(predict, "__self__", None)
    if not isinstance(predictor, LatencyPredictor):
        return {"coverage": "", "width": "", "outside": ""}
    low, high = predictor.predict_interval(blocks)
    return {
        "coverage": float(np.mean((low <= latency_ms) & (latency_ms <= high))),
        "width": float(np.median((high - low) / predictor.predict(blocks))),
        "outside": float(np.mean([bool(predictor.outside(block)) for block in blocks])),
    }


def fit_predictor(blocks: Sequence[Block], latency_ms: Array, seed: int) -> Predict:
    return LatencyPredictor().fit(blocks, latency_ms, seed).predict


def fit_boosting(blocks: Sequence[Block], latency_ms: Array, seed: int) -> Predict:
    """The predictor's features and trees, without its physical model."""
    columns = Columns.of([describe(block, GRID) for block in blocks])

    def features(items: Sequence[Block]) -> Array:
        return columns.prepare([describe(block, GRID) for block in items]).features

    trees = boosted_trees(
        features(blocks), np.log(latency_ms), trees=300, learning_rate=0.05, seed=seed
    )
    return lambda items: np.exp(trees.predict(features(items)))


def fit_forest(blocks: Sequence[Block], latency_ms: Array, seed: int) -> Predict:
    """A random forest on the fields of the blocks as they are."""
    forest = RandomForestRegressor(n_estimators=300, random_state=seed)
    forest.fit([configuration(block) for block in blocks], latency_ms)
    return lambda items: np.asarray(forest.predict([configuration(block) for block in items]))


def configuration(block: Block) -> list[float]:
    """The fields of any block as numbers, in one order; categories by their position."""
    values: dict[str, Any] = {
        item.name: getattr(block, item.name) for item in dataclasses.fields(block)
    }
    names = ("in_channels", "out_channels", "expanded_channels", "height", "kernel", "stride")
    return [
        float(list(BLOCK_KINDS).index(type(block).__name__)),
        float(list(ACTIVATIONS).index(values["activation"])),
        float(values.get("squeeze_excite", False)),
        *(float(values.get(name, 0)) for name in names),
    ]


def fit_flops(blocks: Sequence[Block], latency_ms: Array, seed: int) -> Predict:
    """Affine in FLOPs, by relative error."""

    def columns(items: Sequence[Block]) -> Array:
        return np.array([[block_counts(block).flops, 1.0] for block in items])

    coefficients = fit_relative(columns(blocks), latency_ms)
    return lambda items: np.asarray(columns(items) @ coefficients)


MODELS: dict[str, Model] = {
    "predictor": fit_predictor,
    "boosting": fit_boosting,
    "forest": fit_forest,
    "flops": fit_flops,
}


if __name__ == "__main__":
    main()
