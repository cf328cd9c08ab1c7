"""Does elasticity-scaling land on its targets? TF-NAS's procedure and ours, beside an exact solver.

Random architectures, every second one with random widths, are scaled to four targets each, 20, 40,
60 and 80 % of the way from the smallest latency that their widths reach to that of all channels.
The tables are made up (smooth; a staircase of 64 channels; a sawtooth, where multiples of 64 are
faster than the widths before them), or given. The solver is a dynamic programme over the widths of
all blocks. It knows nothing of the scaling's code, and is exact to a millionth of the largest
latency for each block, where a block's latency depends on its own width alone; that it does is
checked on every result. Shares are of the targets that it reaches within 0.5 %; `beyond` counts
those that were reached although it says that they can't be, by less than it is exact to; `none`
those where scaling gave no state. The mean miss is over the shares' targets, and counts what is
above a target as much as what is below it. Milliseconds are the processor's, for one scaling.

    python benchmarks/elasticity.py --table mobile=table.json
    python benchmarks/elasticity.py --spaces "" --table tfnas=imported.json --fixed-ms 1.99 \\
        --without-squeeze-excite

The second is for TF-NAS's published table (`latkit table import`), which has neither stem nor head
but one number for both, and no squeeze-excite that is ours.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from latkit.devices.errors import LatkitError, UnreachableTargetError
from latkit.latency.blocks import Block, MBConv
from latkit.latency.counts import block_counts
from latkit.latency.spaces import load_space
from latkit.latency.table import LatencyTable
from latkit.search.elasticity import architecture_latency, scale
from latkit.search.space import Architecture, SearchSpace
from results import report
from scipy.stats import binomtest

WITHIN = 0.005
"""A target is reached by a latency of at most it, and at least 1 - `WITHIN` of it."""

SHARES = (0.2, 0.4, 0.6, 0.8)
UNITS = 1_000_000
"""The solver's latencies are multiples of the largest one, divided by this."""

TOOTH = 64
GRIDS = {"mobile": 16}
"""Grid of the middle channels, where a space has another than 8."""

WAYS = ("unscaled", "paper", "ours")

Price = Callable[[Block], float]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--architectures", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--spaces", default="mobile,proxylessnas", help="for the made-up tables")
    parser.add_argument("--table", action="append", default=[], metavar="SPACE=FILE")
    parser.add_argument("--fixed-ms", type=float, help="blocks without widths, in all, in --table")
    parser.add_argument("--grid", type=int, help="of middle channels; default: 8, mobile's 16")
    parser.add_argument("--without-squeeze-excite", action="store_true")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows = []
    for name in filter(None, arguments.spaces.split(",")):
        for table, price in (("smooth", smooth), ("staircase", staircase), ("sawtooth", sawtooth)):
            rows += compare(load_space(name), table, price, 0.0, arguments)
    for item in arguments.table:
        name, _, path = item.partition("=")
        table = LatencyTable.load(Path(path))
        price, constant = priced(table, arguments.fixed_ms)
        rows += compare(load_space(name), Path(path).stem, price, constant, arguments)
    scaled = [row for row in rows if row["way"] != "unscaled"]
    figures = {
        "over_target": sum(row["over"] for row in scaled),
        "reached_against_the_solver": sum(row["beyond"] for row in scaled),
        **{
            f"least_share_reached_by_{way}": min(row["share"] for row in rows if row["way"] == way)
            for way in WAYS
        },
    }
    report(figures, rows, {"within": WITHIN, **vars(arguments)}, arguments.json)


# --- tables ----------------------------------------------------------------------------------


def smooth(block: Block) -> float:
    """0.01 ms, and a millisecond for 1e8 operations."""
    return 0.01 + block_counts(block).flops / 1e8


def staircase(block: Block) -> float:
    """What the next multiple of `TOOTH` middle channels takes."""
    return smooth(_with(block, lambda middle: math.ceil(middle / TOOTH) * TOOTH))


def sawtooth(block: Block) -> float:
    """15 % less at multiples of `TOOTH` middle channels."""
    on_tooth = isinstance(block, MBConv) and block.expanded_channels % TOOTH == 0
    return smooth(block) * (0.85 if on_tooth else 1.0)


def priced(table: LatencyTable, fixed_ms: float | None) -> tuple[Price, float]:
    """A table's price of a block and constant; with `fixed_ms`, of blocks with widths alone."""
    if fixed_ms is None:
        return table.block_cost_ms, table.calibration.constant_ms

    def price(block: Block) -> float:
        return table.block_cost_ms(block) if _has_width(block) else 0.0

    return price, fixed_ms


def _has_width(block: Block) -> bool:
    """Whether there are middle channels, those of a convolution that comes first."""
    return isinstance(block, MBConv) and block.expanded_channels != block.in_channels


def _with(block: Block, change: Callable[[int], int]) -> Block:
    if not isinstance(block, MBConv):
        return block
    return replace(block, expanded_channels=change(block.expanded_channels))


# --- the exact solver ------------------------------------------------------------------------


@dataclass(frozen=True)
class Reachable:
    """Every sum of one cost of each group, rounded up for each group to multiples of `unit_ms`."""

    unit_ms: float
    fixed_ms: float
    groups: int
    sums: int
    """A set of integers: bit n is set where n units are reached."""

    @classmethod
    def of(cls, costs_ms: Sequence[Sequence[float]], fixed_ms: float) -> Reachable:
        """All sums of `fixed_ms` and one of each group of `costs_ms`."""
        largest = fixed_ms + sum(max(group) for group in costs_ms)
        unit_ms = largest / UNITS
        sums = 1
        for group in costs_ms:
            shifts = {math.ceil(cost / unit_ms) for cost in group}
            extended = 0
            for shift in shifts:
                extended |= sums << shift
            sums = extended
        return cls(unit_ms, fixed_ms, len(costs_ms), sums)

    def best_ms(self, target_ms: float) -> float | None:
        """The largest sum within the target, or less than it by at most a unit for each group."""
        units = math.floor((target_ms - self.fixed_ms) / self.unit_ms)
        within = self.sums & ((1 << units + 1) - 1) if units >= 0 else 0
        if not within:
            return None
        # A sum that was rounded up is at most so many units too large.
        return self.fixed_ms + (within.bit_length() - 1 - self.groups) * self.unit_ms


def widths_of(block: Block, grid: int) -> list[int]:
    """The middle channels that a block may have: multiples of the grid from half to all."""
    if not isinstance(block, MBConv) or not _has_width(block):
        return []
    most = block.expanded_channels
    widths = [width for width in range(grid, most + 1, grid) if 2 * width >= most]
    if most > block.in_channels:
        widths = [width for width in widths if width > block.in_channels]
    return widths


# --- the comparison --------------------------------------------------------------------------


def compare(
    space: Any, table: str, price: Price, constant: float, arguments: argparse.Namespace
) -> list[dict[str, Any]]:
    """Scale the architectures both ways; a row for each of what came of it."""
    assert isinstance(space, SearchSpace)
    grid = arguments.grid or GRIDS.get(space.name, 8)
    random = np.random.default_rng(arguments.seed)
    price = cache(price)
    latency_of = architecture_latency(space, price, constant)
    ways: dict[str, list[Landing]] = {way: [] for way in WAYS}
    solved = []
    for number in range(arguments.architectures):
        whole = draw(space, random, arguments.without_squeeze_excite)
        blocks = space.layers(whole)
        options = [widths_of(block, grid) for block in blocks]
        start = random_widths(whole, options, blocks, random) if number % 2 else whole
        moving = [(block, widths) for block, widths in zip(blocks, options, strict=True) if widths]
        costs = [
            [price(_with(block, lambda _, width=width: width)) for width in widths]
            for block, widths in moving
        ]
        fixed = latency_of(whole) - sum(price(block) for block, _ in moving)
        reachable = Reachable.of(costs, fixed)
        lowest = fixed + sum(map(min, costs))
        highest = fixed + sum(group[-1] for group in costs)
        if highest <= lowest:
            continue
        for share in SHARES:
            target_ms = lowest + share * (highest - lowest)
            best = reachable.best_ms(target_ms)
            solved.append(best is not None and best >= (1 - WITHIN) * target_ms)
            left = 1 - latency_of(start) / target_ms
            ways["unscaled"].append(Landing(start, latency_of(start), left, 0.0))
            for way in WAYS[1:]:
                landing = land(start, space, latency_of, target_ms, grid, way == "ours")
                if landing.architecture is not None:
                    _check_sum(landing, space, price, fixed, options)
                ways[way].append(landing)
    about = {"space": space.name, "table": table}
    return [{**about, "way": way, **summary(found, solved)} for way, found in ways.items()]


def summary(found: Sequence[Landing], solved: Sequence[bool]) -> dict[str, Any]:
    """What came of the targets, and of those among them that can be reached."""
    counted = np.array(solved)
    misses = np.array([landing.miss for landing in found])
    reached = (misses >= 0) & (misses <= WITHIN)
    count, of = int((reached & counted).sum()), int(counted.sum())
    interval = binomtest(count, of).proportion_ci()
    landed = misses[counted & np.isfinite(misses)]
    seconds = [landing.seconds for landing in found]
    return {
        "targets": len(found),
        "reachable": of,
        "reached": count,
        "share": count / of,
        "low": float(interval.low),
        "high": float(interval.high),
        "mean_miss": float(np.abs(landed).mean()),
        "over": int((misses < 0).sum()),
        "none": int(np.isinf(misses).sum()),
        "beyond": int((reached & ~counted).sum()),
        "median_ms": 1e3 * float(np.median(seconds)),
        "longest_ms": 1e3 * max(seconds),
    }


@dataclass(frozen=True)
class Landing:
    """What scaling gave, if anything; `miss` is the share of the target that is left."""

    architecture: Architecture | None
    latency_ms: float
    miss: float
    seconds: float


def land(
    start: Architecture,
    space: SearchSpace,
    latency_of: Callable[[Architecture], float],
    target_ms: float,
    grid: int,
    repair: bool,
) -> Landing:
    """Scale, and time it; where there is no state within the target, the miss is infinite."""
    begun = time.process_time()
    try:
        found = scale(start, space, latency_of, target_ms, grid, repair=repair)
    except UnreachableTargetError:
        return Landing(None, math.inf, math.inf, time.process_time() - begun)
    seconds = time.process_time() - begun
    latency_ms = latency_of(found)
    return Landing(found, latency_ms, 1 - latency_ms / target_ms, seconds)


def draw(space: SearchSpace, random: np.random.Generator, without_excite: bool) -> Architecture:
    """A random architecture; where asked for, its operations without squeeze-excite."""
    choices = list(space.sample(random).choices)
    if without_excite:
        for position, choice in enumerate(space.choices):
            option = str(choice.options[choices[position]])
            if option.endswith(" se"):
                choices[position] = choice.options.index(option.removesuffix(" se"))
    return space.architecture(choices)


def random_widths(
    architecture: Architecture,
    options: Sequence[Sequence[int]],
    blocks: Sequence[Block | None],
    random: np.random.Generator,
) -> Architecture:
    """The architecture with random middle channels of those that each block may have."""
    widths = [
        int(random.choice(group)) if group else getattr(block, "expanded_channels", 0)
        for group, block in zip(options, blocks, strict=True)
    ]
    return replace(architecture, expanded_channels=tuple(widths))


def _check_sum(
    landing: Landing,
    space: SearchSpace,
    price: Price,
    fixed: float,
    options: Sequence[Sequence[int]],
) -> None:
    """Raise where a result's widths are not allowed, or its latency is not the solver's sum."""
    assert landing.architecture is not None
    total = fixed
    for block, group in zip(space.layers(landing.architecture), options, strict=True):
        if group:
            assert isinstance(block, MBConv)
            if block.expanded_channels not in group:
                raise LatkitError(f"{landing.architecture} has widths that are not allowed")
            total += price(block)
    if not math.isclose(total, landing.latency_ms, rel_tol=1e-9):
        raise LatkitError(f"the latency of {landing.architecture} is no sum over its widths")


if __name__ == "__main__":
    main()
