"""The cost of an architecture: a sum of small tensors, each over the few choices it depends on."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..devices.errors import LatkitError, UnreachableTargetError, UsageError
from .blocks import Block

CHUNK = 1 << 15
"""Architectures gathered at a time, so that indices and sums stay in the cache."""

MERGED_ENTRIES = 1 << 14
"""Factors are merged into one flat table while it has at most this many entries (128 KiB)."""

LARGEST_TABLE = 1 << 26
"""Most entries that `minimum` may lay out at once."""


@dataclass(frozen=True, slots=True, eq=False)
class Factor:
    """One addend of a cost: `values[options at positions]`, an axis for each position."""

    positions: tuple[int, ...]
    values: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class BlockFactor:
    """One additive piece of a space: the block there for each combination of options.

    `blocks` lists the combinations of `positions` with the last one moving fastest; `None` is a
    skipped block, which costs nothing. No positions: one block that is always there.
    """

    positions: tuple[int, ...]
    blocks: tuple[Block | None, ...]


class AdditiveSpace(Protocol):
    """A space whose networks are sums of blocks, as far as a cost model needs to know it."""

    @property
    def option_counts(self) -> tuple[int, ...]:
        """Number of options of each choice."""

    def factors(self) -> Sequence[BlockFactor]:
        """The pieces of its networks."""

    def describe(self, choices: Sequence[int]) -> str:
        """An architecture in words, for messages."""


class CostModel:
    """A cost of every architecture of a space: latency in milliseconds, or another, in `unit`.

    An architecture is one option index for each choice. Sums are in float64: they differ from any
    other order of summation by a few units in the last place, 1e-15 of the value. `describe` puts
    an architecture into words for error messages, `certainty` how far its cost is to be trusted.
    Most costs are latencies, and methods and arguments are called so: where `unit` is another,
    they are in that. Raises `UsageError` for a factor with an entry that is no finite number.
    """

    rows_at_once = 4096
    """Random architectures that are worth pricing in one call, where few of them may be used."""

    is_additive = True
    """Whether the cost is `constant` and the sum of `factors`."""

    def __init__(
        self,
        option_counts: Sequence[int],
        factors: Sequence[Factor],
        constant: float = 0.0,
        describe: Callable[[Sequence[int]], str] = str,
        *,
        unit: str = "ms",
        certainty: Callable[[tuple[int, ...]], str] | None = None,
    ) -> None:
        self.option_counts = tuple(option_counts)
        self.factors = tuple(factors)
        self.constant = float(constant)
        self.describe = describe
        self.unit = unit
        self._certainty = certainty
        if not math.isfinite(self.constant):
            raise UsageError(f"the constant part of a cost is {self.constant}, no finite number")
        for factor in self.factors:
            shape = tuple(self.option_counts[position] for position in factor.positions)
            if factor.values.shape != shape or len(set(factor.positions)) != len(shape):
                raise UsageError(
                    f"a factor over choices {factor.positions} must have shape {shape}; "
                    f"it has {factor.values.shape}"
                )
            if not np.isfinite(factor.values).all():
                options = tuple(np.argwhere(~np.isfinite(factor.values))[0].tolist())
                raise UsageError(
                    f"a factor over choices {factor.positions} is {factor.values[options]} for "
                    f"their options {options}: every cost must be a finite number"
                )
        self._merged = tuple(_merge(self.option_counts, self.factors))

    def latency_ms(self, architectures: NDArray[np.integer[Any]]) -> NDArray[np.float64]:
        """Cost of each row of an (N, L) integer array, in `unit`; (N,) float64.

        Fastest on column-major uint8, as `SearchSpace.encode` gives. Raises `UsageError` where an
        index names no option.
        """
        rows = np.asarray(architectures)
        if (
            rows.ndim != 2
            or rows.shape[1] != len(self.option_counts)
            or rows.dtype.kind not in "iu"
        ):
            raise UsageError(
                f"architectures must be an (N, {len(self.option_counts)}) array of integers; "
                f"this one is {rows.dtype} of shape {rows.shape}"
            )
        result = np.full(len(rows), self.constant)
        columns = np.empty((rows.shape[1], CHUNK), dtype=np.uint16)
        index = np.empty(CHUNK, dtype=np.intp)
        for start in range(0, len(rows), CHUNK):
            chunk = rows[start : start + CHUNK].T
            size = chunk.shape[1]
            self._check(chunk)
            columns[:, :size] = chunk
            for factor in self._merged:
                flat = index[:size]
                np.copyto(flat, _flat_index(factor, self.option_counts, columns[:, :size]))
                result[start : start + size] += factor.values.ravel().take(flat, mode="clip")
        return result

    def of(self, choices: Sequence[int]) -> float:
        """Cost of one architecture."""
        return float(self.latency_ms(np.array([choices], dtype=np.int64))[0])

    def expected(self, probabilities: Sequence[NDArray[np.floating[Any]]]) -> float:
        """Mean cost when choice i takes its options with `probabilities[i]`, independently."""
        shapes = tuple(np.shape(vector) for vector in probabilities)
        if shapes != tuple((count,) for count in self.option_counts):
            raise UsageError(
                f"expected() needs one probability for each of {self.option_counts} options; "
                f"it was given arrays of shapes {shapes}"
            )
        total = self.constant
        for factor in self.factors:
            value: Any = factor.values
            for position in reversed(factor.positions):
                value = value @ probabilities[position]
            total += float(value)
        return total

    def minimum(self) -> tuple[float, tuple[int, ...]]:
        """The smallest cost of all architectures, and one that has it. Exact."""
        choices = minimise(self.option_counts, self.factors)
        return self.of(choices), choices

    def maximum(self) -> tuple[float, tuple[int, ...]]:
        """The largest cost of all architectures, and one that has it. Exact."""
        negated = [Factor(factor.positions, -factor.values) for factor in self.factors]
        choices = minimise(self.option_counts, negated)
        return self.of(choices), choices

    def scaled(self, factor: float) -> CostModel:
        """This cost times a positive number, without a unit."""
        factors = [Factor(item.positions, factor * item.values) for item in self.factors]
        constant = factor * self.constant
        return CostModel(self.option_counts, factors, constant, self.describe, unit="")

    def certainty(self, choices: tuple[int, ...]) -> str:
        """How far the minimum, that of `choices`, can be trusted; empty where it is exact."""
        return "" if self._certainty is None else self._certainty(choices)

    def require_reachable(self, target_ms: float) -> None:
        """Raise `UnreachableTargetError` where no architecture costs at most `target_ms`."""
        if not (math.isfinite(target_ms) and target_ms > 0):
            raise UsageError(
                f"a target must be a positive number of {self._unit_in_words}, not {target_ms}"
            )
        smallest, choices = self.minimum()
        if smallest > target_ms:
            timed = self.unit == "ms"
            raise UnreachableTargetError(
                f"no architecture of the space {'is as fast' if timed else 'costs as little'} as "
                f"{target_ms:g} {self.unit}. The smallest reachable "
                f"{'latency' if timed else 'cost'} is {smallest:.6g} {self.unit}, of "
                f"{self.describe(choices)}. {self.certainty(choices)}Choose a target above it."
            )

    @property
    def _unit_in_words(self) -> str:
        return "milliseconds" if self.unit == "ms" else self.unit

    def _check(self, columns: NDArray[np.integer[Any]]) -> None:
        least, most = columns.min(axis=1), columns.max(axis=1)
        wrong = (least < 0) | (most >= np.array(self.option_counts))
        if wrong.any():
            position = int(wrong.argmax())
            raise UsageError(
                f"choice {position} has options 0 to {self.option_counts[position] - 1}; the "
                f"architectures name others, between {least[position]} and {most[position]}"
            )


def lay_out(
    space: AdditiveSpace,
    block_cost_ms: Callable[[Block], float],
    constant: float = 0.0,
    *,
    unit: str = "ms",
) -> CostModel:
    """Price every block of every piece of `space` once, and lay the prices out as a cost model.

    Prices are in `unit`. Raises `LatkitError` naming the block whose cost is no finite number.
    """
    costs: dict[Block | None, float] = {None: 0.0}
    factors = []
    for piece in space.factors():
        for block in piece.blocks:
            if block is not None and block not in costs:
                costs[block] = float(block_cost_ms(block))
                if not math.isfinite(costs[block]):
                    raise LatkitError(f"the cost of {block} is {costs[block]}, no finite number")
        shape = tuple(space.option_counts[position] for position in piece.positions)
        values = np.array([costs[block] for block in piece.blocks], dtype=np.float64)
        if piece.positions:
            factors.append(Factor(piece.positions, values.reshape(shape)))
        else:
            constant += float(values.sum())
    return CostModel(space.option_counts, factors, constant, space.describe, unit=unit)


def minimise(option_counts: Sequence[int], factors: Sequence[Factor]) -> tuple[int, ...]:
    """The options that minimise the sum of `factors`, by variable elimination. Exact.

    Of equally good options the one with the smaller index is taken. Raises `UsageError` where the
    factors overlap so much that a table would exceed `LARGEST_TABLE`.
    """
    pending = list(factors)
    decisions: list[tuple[int, tuple[int, ...], NDArray[np.intp]]] = []
    for position in elimination_order(option_counts, [factor.positions for factor in factors]):
        touching = [factor for factor in pending if position in factor.positions]
        pending = [factor for factor in pending if position not in factor.positions]
        scope = tuple(sorted({p for factor in touching for p in factor.positions} - {position}))
        joined = sum(
            (spread(factor.values, factor.positions, (*scope, position)) for factor in touching),
            start=np.zeros([option_counts[p] for p in (*scope, position)]),
        )
        decisions.append((position, scope, joined.argmin(axis=-1)))
        pending.append(Factor(scope, joined.min(axis=-1)))
    choices = [0] * len(option_counts)
    for position, scope, best in reversed(decisions):
        choices[position] = int(best[tuple(choices[p] for p in scope)])
    return tuple(choices)


def elimination_order(
    option_counts: Sequence[int], scopes: Iterable[tuple[int, ...]]
) -> Iterator[int]:
    """Positions in the order that greedily keeps the joined tables small."""
    pending = [frozenset(scope) for scope in scopes]
    left = set(range(len(option_counts)))
    while left:
        joined = {
            position: frozenset({position}).union(*(s for s in pending if position in s))
            for position in left
        }
        size, position = min(
            (math.prod(option_counts[p] for p in joined[position]), position) for position in left
        )
        if size > LARGEST_TABLE:
            raise UsageError(
                f"the factors of this space depend on too many choices at once: a table of {size} "
                f"entries would be needed, and {LARGEST_TABLE} is the limit"
            )
        yield position
        left.remove(position)
        pending = [scope for scope in pending if position not in scope]
        pending.append(joined[position] - {position})


def spread(
    values: NDArray[Any], positions: tuple[int, ...], scope: tuple[int, ...]
) -> NDArray[Any]:
    """`values` with an axis for each position of `scope`, of length 1 where it has none."""
    present = [position for position in scope if position in positions]
    ordered = values.transpose([positions.index(position) for position in present])
    lengths = dict(zip(present, ordered.shape, strict=True))
    return ordered.reshape([lengths.get(position, 1) for position in scope])


def _merge(option_counts: tuple[int, ...], factors: tuple[Factor, ...]) -> Iterator[Factor]:
    """Sum neighbouring factors into larger tables: fewer gathers for an architecture."""
    scope: tuple[int, ...] = ()
    group: list[Factor] = []
    for factor in factors:
        wider = tuple(sorted({*scope, *factor.positions}))
        if group and math.prod(option_counts[p] for p in wider) > MERGED_ENTRIES:
            yield _sum_over(scope, group, option_counts)
            wider, group = tuple(sorted(factor.positions)), []
        scope = wider
        group.append(factor)
    if group:
        yield _sum_over(scope, group, option_counts)


def _sum_over(
    scope: tuple[int, ...], factors: list[Factor], option_counts: tuple[int, ...]
) -> Factor:
    values = np.zeros([option_counts[position] for position in scope])
    for factor in factors:
        values += spread(factor.values, factor.positions, scope)
    return Factor(scope, values)


def _flat_index(
    factor: Factor, option_counts: tuple[int, ...], columns: NDArray[np.uint16]
) -> NDArray[np.integer[Any]]:
    """Index into the flattened values for each column of options."""
    small = factor.values.size <= 1 << 16
    index: NDArray[np.integer[Any]] = np.zeros(
        columns.shape[1], dtype=np.uint16 if small else np.intp
    )
    for order, position in enumerate(factor.positions):
        if order:
            np.multiply(index, index.dtype.type(option_counts[position]), out=index)
        np.add(index, columns[position], out=index, casting="unsafe")
    return index
