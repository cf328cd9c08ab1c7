"""How many architectures a second are priced, on one core: table, predictor, and a Python dict.

Without `--table` the prices are made from each block's operation counts: what they are makes no
difference to the speed.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

if hasattr(os, "sched_setaffinity"):  # before numpy starts its threads
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})

import numpy as np
from latkit.latency.blocks import Block
from latkit.latency.calibration import is_timed
from latkit.latency.cost import lay_out
from latkit.latency.counts import block_counts
from latkit.latency.predictor import LatencyPredictor
from latkit.latency.table import LatencyTable
from latkit.search.spaces.mobile import MobileSpace, mobile_space
from numpy.typing import NDArray
from results import report

REPEATS = 9
DICT_COUNT = 20_000
PREDICTOR_COUNT = 2_000

Score = Callable[[], NDArray[np.float64]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--count", type=int, default=1 << 20, help="architectures a repeat")
    parser.add_argument("--table", type=Path, help="a table that `latkit table` wrote")
    arguments = parser.parse_args()
    space = mobile_space()
    if arguments.table is None:
        prices, constant = _made_up_ms, 0.0
    else:
        table = LatencyTable.load(arguments.table)
        prices, constant = table.block_cost_ms, table.calibration.constant_ms
    figures, rows = run(space, prices, constant, arguments.count)
    context = {
        "space": space.name,
        "architectures_of_the_space": space.size(),
        "choices": len(space.choices),
        "cores": 1,
        "repeats": REPEATS,
        "prices": str(arguments.table or "made up from operation counts, not measured"),
        "table": "CostModel.latency_ms on (N, L) uint8, column-major",
        "dict": "for each architecture a loop over its blocks, one dict look-up each",
        "dict of options": "a loop over the pieces, looked up by piece and option indices",
        "predictor": "one predict() on the blocks of all architectures, then sums",
        "predictor laid out": "each block of the space predicted once, then as the table",
    }
    report(figures, rows, context, arguments.json)


def run(
    space: MobileSpace, price: Callable[[Block], float], constant: float, count: int
) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """Time every way of pricing; return figures and rows."""
    encoded = space.sample_choices(count, np.random.default_rng(0))
    few = space.decode(encoded[:DICT_COUNT])
    networks = [space.network(item) for item in few]
    blocks = [[block for block in network.blocks if is_timed(block)] for network in networks]
    options = [architecture.choices for architecture in few]

    model = lay_out(space, price, constant)
    of_block = {block: price(block) for block in space.blocks()}
    of_options = _priced_options(space, price)

    listed = [block for block in space.blocks() if is_timed(block)]
    predictor = LatencyPredictor()
    predictor.fit(listed, np.array([max(price(block), 1e-6) for block in listed]))
    predicted = dict(zip(listed, predictor.predict(listed).tolist(), strict=True))
    predicted_model = lay_out(space, lambda block: predicted.get(block, 0.0), constant)
    batch = blocks[:PREDICTOR_COUNT]

    ways: dict[str, tuple[int, Score]] = {
        "table": (count, lambda: model.latency_ms(encoded)),
        "dict": (len(blocks), lambda: _sums_by_block(blocks, of_block, constant)),
        "dict_of_options": (
            len(options),
            lambda: _sums_by_options(space, options, of_options, constant),
        ),
        "predictor": (len(batch), lambda: _sums_by_predictor(batch, predictor, constant)),
        "predictor_laid_out": (count, lambda: predicted_model.latency_ms(encoded)),
    }
    figures, rows, scores = {}, [], {}
    for name, (size, score) in ways.items():
        scores[name], seconds = _timed(score)
        rates = [size / second for second in seconds]
        figures[f"{name}_archs_per_s"] = statistics.median(rates)
        rows.append(
            {
                "way": name,
                "architectures": size,
                "archs_per_s": statistics.median(rates),
                "slowest": min(rates),
                "fastest": max(rates),
                "spread": (max(rates) - min(rates)) / statistics.median(rates),
            }
        )
    figures["table_over_dict"] = figures["table_archs_per_s"] / figures["dict_archs_per_s"]
    figures["dict_largest_difference"] = _largest(scores["dict"], scores["table"])
    figures["dict_of_options_largest_difference"] = _largest(
        scores["dict_of_options"], scores["table"]
    )
    figures["predictor_laid_out_largest_difference"] = _largest(
        scores["predictor"], scores["predictor_laid_out"]
    )
    shared = len(scores["predictor"])
    figures["predictor_median_difference"] = float(
        np.median(np.abs(scores["predictor"] / scores["table"][:shared] - 1))
    )
    return figures, rows


def _made_up_ms(block: Block) -> float:
    counts = block_counts(block)
    return 1e-7 * counts.flops + 1e-6 * counts.moved_bytes + 1e-3


def _priced_options(
    space: MobileSpace, price: Callable[[Block], float]
) -> dict[tuple[int, tuple[int, ...]], float]:
    prices = {}
    for index, factor in enumerate(space.factors()):
        counts = [space.option_counts[position] for position in factor.positions]
        for combination, block in zip(np.ndindex(*counts), factor.blocks, strict=True):
            prices[index, combination] = 0.0 if block is None else price(block)
    return prices


def _sums_by_block(
    blocks: Sequence[Sequence[Block]], prices: dict[Block, float], constant: float
) -> NDArray[np.float64]:
    sums = []
    for listed in blocks:
        total = constant
        for block in listed:
            total += prices[block]
        sums.append(total)
    return np.array(sums)


def _sums_by_options(
    space: MobileSpace,
    options: Sequence[tuple[int, ...]],
    prices: dict[tuple[int, tuple[int, ...]], float],
    constant: float,
) -> NDArray[np.float64]:
    pieces = [(index, factor.positions) for index, factor in enumerate(space.factors())]
    sums = []
    for choices in options:
        total = constant
        for index, positions in pieces:
            total += prices[index, tuple([choices[position] for position in positions])]
        sums.append(total)
    return np.array(sums)


def _sums_by_predictor(
    blocks: Sequence[Sequence[Block]], predictor: LatencyPredictor, constant: float
) -> NDArray[np.float64]:
    flat = [block for listed in blocks for block in listed]
    ends = np.cumsum([len(listed) for listed in blocks])
    latency_ms = predictor.predict(flat)
    return np.asarray(constant + np.add.reduceat(latency_ms, ends - [len(b) for b in blocks]))


def _timed(score: Score) -> tuple[NDArray[np.float64], list[float]]:
    """What `score` gives, and the seconds of each repeat after one that is not counted."""
    result = score()
    seconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        score()
        seconds.append(time.perf_counter() - start)
    return result, seconds


def _largest(scores: NDArray[np.float64], reference: NDArray[np.float64]) -> float:
    """Largest relative difference over the architectures that both priced."""
    shared = min(len(scores), len(reference))
    return float(np.max(np.abs(scores[:shared] / reference[:shared] - 1)))


if __name__ == "__main__":
    main()
