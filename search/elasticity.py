"""Elasticity-scaling: widths that land on a latency target (TF-NAS, Hu et al. 2020, section 3.3).

Only the middle (expanded) channels of an architecture's inverted residual blocks change. This
module decides how many; which ones a trained block keeps is decided at extraction.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from ..devices.errors import UnreachableTargetError, UsageError
from ..latency.blocks import Block, MBConv
from .space import Architecture, SearchSpace, grid_ceil, grid_floor
from .spaces.mobile import WIDTH_GRID

EXCHANGED_STEPS = 4
"""Exchanges widen one block and narrow another by at most this many steps of the grid."""

CLOSE_ENOUGH = 0.002
"""No exchange is tried where the gap to the target is at most this share of it."""

Widths = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Layer:
    """The range of a layer's middle channels and its stage's step, both on the grid."""

    index: int
    stage: int
    lower: int
    upper: int
    step: int


def scale(
    architecture: Architecture,
    space: SearchSpace,
    latency_of: Callable[[Architecture], float],
    target_ms: float,
    grid: int = WIDTH_GRID,
) -> Architecture:
    """The architecture with middle channels scaled to come close to `target_ms` from below.

    TF-NAS's procedure: above the target, all stages shrink together until it is met; below, they
    grow together to the last state within it. Then the stages k to the last grow together, for
    k = 2, 3, ... A step changes a stage's layers by `round(its width / the smallest width)` times
    `grid`. Ours: the rest of the gap is closed block by block, by single steps of `grid` and by
    exchanges of a few steps between two blocks, always the ones that come closest to the target.

    Middle channels are multiples of `grid` within [half, all] of the channels that the operation
    asks for (those for which a block has no such multiple stay as they are), and every state that
    is kept has `latency_of` at most `target_ms`, which need not rise with width. Raises
    `UnreachableTargetError` where the bounds hold no state within the target that was found;
    `UsageError` for a `target_ms` or `grid` that is not positive.
    """
    if not (math.isfinite(target_ms) and target_ms > 0) or grid < 1:
        raise UsageError(f"target {target_ms} ms and grid {grid} must be positive")
    search = _Scaling(architecture, space, latency_of, target_ms, grid)
    return search.state(search.run())


def is_scalable(space: SearchSpace) -> bool:
    """Whether the space has layers whose middle channels can be scaled at all."""
    if not space.layer_stages:
        return False  # candidates need not be listed, of which there may be too many
    return any(
        isinstance(block, MBConv)
        for piece, blocks in zip(space.pieces, space.candidates(), strict=True)
        if piece.stage is not None
        for block in blocks
    )


def architecture_latency(
    space: SearchSpace, block_cost_ms: Callable[[Block], float], constant: float = 0.0
) -> Callable[[Architecture], float]:
    """A `latency_of` for `scale`: the costs of an architecture's blocks, each priced once."""
    costs: dict[Block, float] = {}

    def latency_of(architecture: Architecture) -> float:
        total = constant
        for block in space.network(architecture).blocks:
            if block not in costs:
                costs[block] = block_cost_ms(block)
            total += costs[block]
        return total

    return latency_of


class _Scaling:
    """One run of `scale`."""

    def __init__(
        self,
        architecture: Architecture,
        space: SearchSpace,
        latency_of: Callable[[Architecture], float],
        target_ms: float,
        grid: int,
    ) -> None:
        space.validate(architecture)
        self._architecture = architecture
        self._latency_of = latency_of
        self._target_ms = target_ms
        self._grid = grid
        self._known: dict[Widths, float] = {}
        self._layers = _layers(space, architecture, grid)
        self._start = tuple(
            block.expanded_channels if isinstance(block, MBConv) else 0
            for block in space.layers(architecture)
        )

    def state(self, widths: Widths) -> Architecture:
        return replace(self._architecture, expanded_channels=widths)

    def run(self) -> Widths:
        """Widths within the target, found as `scale` says."""
        widths = self._onto_grid(self._start)
        widths = self._grow(widths, self._layers) if self._fits(widths) else self._shrink(widths)
        stages = sorted({layer.stage for layer in self._layers})
        for first in stages[1:]:
            widths = self._grow(widths, [layer for layer in self._layers if layer.stage >= first])
        return self._repair(widths)

    def _latency(self, widths: Widths) -> float:
        if widths not in self._known:
            self._known[widths] = self._latency_of(self.state(widths))
        return self._known[widths]

    def _fits(self, widths: Widths) -> bool:
        return self._latency(widths) <= self._target_ms

    def _onto_grid(self, widths: Widths) -> Widths:
        changed = list(widths)
        for layer in self._layers:
            on_grid = grid_floor(widths[layer.index], self._grid)
            changed[layer.index] = min(max(on_grid, layer.lower), layer.upper)
        return tuple(changed)

    def _moved(self, widths: Widths, layers: Iterable[_Layer], direction: int) -> Widths:
        """`layers` one step of their stage wider or narrower, within their bounds."""
        changed = list(widths)
        for layer in layers:
            width = widths[layer.index] + direction * layer.step
            changed[layer.index] = min(max(width, layer.lower), layer.upper)
        return tuple(changed)

    def _shrink(self, widths: Widths) -> Widths:
        while not self._fits(widths):
            narrower = self._moved(widths, self._layers, -1)
            if narrower == widths:
                return self._fastest(widths)
            widths = narrower
        return widths

    def _grow(self, widths: Widths, layers: list[_Layer]) -> Widths:
        while True:
            wider = self._moved(widths, layers, 1)
            if wider == widths or not self._fits(wider):
                return widths
            widths = wider

    def _fastest(self, widths: Widths) -> Widths:
        """The fastest width of each block in turn: exact where blocks add up."""
        for layer in self._layers:
            options = range(layer.lower, layer.upper + 1, self._grid)
            candidates = (_with(widths, {layer.index: width}) for width in options)
            widths = min(candidates, key=lambda item: (self._latency(item), item))
        if not self._fits(widths):
            raise UnreachableTargetError(
                f"no middle channels within half and all of architecture "
                f"{self._architecture.key}'s bring it to {self._target_ms:g} ms. The smallest "
                f"latency that they reach is {self._latency(widths):.6g} ms: choose a target "
                "above it, or a smaller architecture."
            )
        return widths

    def _repair(self, widths: Widths) -> Widths:
        """Close the gap by single steps, then by exchanges, then by the steps that those allow."""
        return self._raise(self._exchange(self._raise(widths)))

    def _raise(self, widths: Widths) -> Widths:
        """Widen single blocks for as long as one fits, always to the slowest state that does."""
        while True:
            wider = (
                _with(widths, {layer.index: widths[layer.index] + self._grid})
                for layer in self._layers
                if widths[layer.index] + self._grid <= layer.upper
            )
            fitting = [state for state in wider if self._fits(state)]
            if not fitting:
                return widths
            widths = max(fitting, key=self._latency)

    def _exchange(self, widths: Widths) -> Widths:
        """Widen one block and narrow another for as long as that comes closer to the target."""
        while self._latency(widths) < (1 - CLOSE_ENOUGH) * self._target_ms:
            fitting = [state for state in self._exchanges(widths) if self._fits(state)]
            closest = max(fitting, key=self._latency, default=widths)
            if self._latency(closest) <= self._latency(widths):
                break
            widths = closest
        return widths

    def _exchanges(self, widths: Widths) -> Iterator[Widths]:
        steps = range(self._grid, EXCHANGED_STEPS * self._grid + 1, self._grid)
        for up, down in itertools.permutations(self._layers, 2):
            for more, less in itertools.product(steps, steps):
                wider, narrower = widths[up.index] + more, widths[down.index] - less
                if wider <= up.upper and narrower >= down.lower:
                    yield _with(widths, {up.index: wider, down.index: narrower})


def _layers(space: SearchSpace, architecture: Architecture, grid: int) -> list[_Layer]:
    """The layers whose middle channels can change."""
    blocks = space.layers(Architecture(architecture.choices))
    stages = space.layer_stages
    found = [
        (index, stage, block)
        for index, (stage, block) in enumerate(zip(stages, blocks, strict=True))
        if isinstance(block, MBConv)
    ]
    # A stage's width is that of its blocks' outputs.
    smallest = min((block.out_channels for _, _, block in found), default=1)
    layers = []
    for index, stage, block in found:
        largest = block.expanded_channels
        upper = grid_floor(largest, grid)
        lower = grid_ceil(largest / 2, grid)
        if largest > block.in_channels:
            # With as many middle channels as inputs, the block would lose its first convolution.
            lower = max(lower, grid_ceil(block.in_channels + 1, grid))
        if lower <= upper and largest != block.in_channels:
            step = max(1, round(block.out_channels / smallest)) * grid
            layers.append(_Layer(index, stage, lower, upper, step))
    return layers


def _with(widths: Widths, changes: dict[int, int]) -> Widths:
    changed = list(widths)
    for index, width in changes.items():
        changed[index] = width
    return tuple(changed)
