"""Elasticity-scaling: widths that land on a latency target (TF-NAS, Hu et al. 2020, section 3.3).

Only the middle (expanded) channels of an architecture's inverted residual blocks change. This
module decides how many; which ones a trained block keeps is decided at extraction.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ..devices.errors import UnreachableTargetError, UsageError
from ..latency.blocks import Block, MBConv
from .closest_sum import closest_sum
from .space import Architecture, SearchSpace, grid_ceil, grid_floor
from .spaces.mobile import WIDTH_GRID

NEAR_STEPS = 4
"""The repair tries widths at most so many steps of the grid away first, then all."""

CLOSE_ENOUGH = 0.001
"""No better widths are looked for where the gap to the target is at most this share of it."""

TRIES = 8
"""At most so many states are proposed by the sums of what single blocks change."""

ROUNDING = 1e-12
"""A share of the target that sums may differ by where blocks do add up."""

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
    *,
    repair: bool = True,
) -> Architecture:
    """The architecture with middle channels scaled to come close to `target_ms` from below.

    TF-NAS's procedure: above the target, all stages shrink together until it is met; below, they
    grow together to the last state within it. Then the stages k to the last grow together, for
    k = 2, 3, ... A step changes a stage's layers by `round(its width / the smallest width)` times
    `grid`, a stage's width being its output channels.

    Ours is the `repair` of what gap is left, block by block. What each width of a block changes is
    asked for, and those changes are chosen that add up to the gap, less `CLOSE_ENOUGH` of the
    target at most, and move as few channels as possible: among near widths first, then among all.
    Where `latency_of` is no sum over blocks, what it says of the result counts, and the changes
    are chosen again. In the end a block one step wider would be above the target, or faster:
    latency need not rise with width. Widths that a wider one undercuts are only used where there
    is no other way. The repair also finds states where the procedure has none, and keeps all
    channels where they fit.

    Middle channels are multiples of `grid` within [half, all] of the channels that the operation
    asks for (those for which a block has no such multiple stay as they are), and every state that
    is kept has `latency_of` at most `target_ms`. Raises `UnreachableTargetError` where the bounds
    hold no state within the target that was found; `UsageError` for a `target_ms` or `grid` that
    is not positive.
    """
    if not (math.isfinite(target_ms) and target_ms > 0) or grid < 1:
        raise UsageError(f"target {target_ms} ms and grid {grid} must be positive")
    search = _Scaling(architecture, space, latency_of, target_ms, grid)
    return search.state(search.repaired() if repair else search.procedure())


def is_scalable(space: SearchSpace) -> bool:
    """Whether the space has layers whose middle channels can be scaled at all.

    Only those of inverted residual blocks (`MBConv`) in a stage can be: not the middle channels of
    a shuffle unit, which are a choice, nor the channels of cells.
    """
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

    def procedure(self) -> Widths:
        """Widths within the target, found as TF-NAS does."""
        widths = self._procedure()
        if not self._fits(widths):
            raise self._unreachable(widths, "with all stages at their fewest")
        return widths

    def repaired(self) -> Widths:
        """Widths within the target: all channels, or as close to it as blocks' widths come."""
        widest = _with(self._start, {layer.index: layer.upper for layer in self._layers})
        if self._fits(widest):
            return widest
        widths = self._procedure()
        if not self._fits(widths):
            widths = self._fastest(widths)
        for steps in (NEAR_STEPS, None):
            if self._latency(widths) < (1 - CLOSE_ENOUGH) * self._target_ms:
                widths = self._closest(widths, steps)
        return self._raise(widths)

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

    def _procedure(self) -> Widths:
        """What TF-NAS's steps end with: all stages at their fewest where nothing fits."""
        widths = self._onto_grid(self._start)
        together = self._grow(widths, self._layers) if self._fits(widths) else self._shrink(widths)
        return self._grow_suffixes(together) if self._fits(together) else together

    def _shrink(self, widths: Widths) -> Widths:
        """The first state within the target, or all stages at their fewest channels."""
        while not self._fits(widths):
            narrower = self._moved(widths, self._layers, -1)
            if narrower == widths:
                break
            widths = narrower
        return widths

    def _grow_suffixes(self, widths: Widths) -> Widths:
        stages = sorted({layer.stage for layer in self._layers})
        for first in stages[1:]:
            widths = self._grow(widths, [layer for layer in self._layers if layer.stage >= first])
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
            candidates = [_with(widths, {layer.index: width}) for width in self._options(layer)]
            widths = min(candidates, key=lambda item: (self._latency(item), item))
        if not self._fits(widths):
            raise self._unreachable(widths, "within half and all")
        return widths

    def _unreachable(self, widths: Widths, where: str) -> UnreachableTargetError:
        return UnreachableTargetError(
            f"no middle channels {where} of architecture {self._architecture.key}'s bring it to "
            f"{self._target_ms:g} ms. The smallest latency that they reach is "
            f"{self._latency(widths):.6g} ms: choose a target above it, or a smaller architecture."
        )

    def _options(self, layer: _Layer) -> range:
        return range(layer.lower, layer.upper + 1, self._grid)

    def _closest(self, widths: Widths, steps: int | None) -> Widths:
        """The best state found whose blocks are `steps` of the grid away at most, each by itself.

        It is chosen by the sum of what its blocks change alone, which `latency_of` may belie.
        """
        if not self._layers:
            return widths
        now = self._latency(widths)
        reach = math.inf if steps is None else steps * self._grid
        options = [
            [width for width in self._options(layer) if abs(width - widths[layer.index]) <= reach]
            for layer in self._layers
        ]
        costs = [
            np.array([self._latency(_with(widths, {layer.index: width})) - now for width in group])
            for layer, group in zip(self._layers, options, strict=True)
        ]
        # A width that a wider one undercuts counts as much as a change of a whole block.
        changes = [
            np.abs(np.array(group) - widths[layer.index]) / layer.upper + _undercut(cost)
            for layer, group, cost in zip(self._layers, options, costs, strict=True)
        ]
        most = self._target_ms - now
        for _ in range(TRIES):
            least = most - CLOSE_ENOUGH * self._target_ms
            chosen = closest_sum(costs, changes, least, most)
            if chosen is None:
                break
            found = _with(
                widths,
                {
                    layer.index: group[option]
                    for layer, group, option in zip(self._layers, options, chosen, strict=True)
                },
            )
            if self._fits(found):
                return max(widths, found, key=self._latency)
            # By as much as the sum was wrong, and no less than rounding can make it.
            most -= max(self._latency(found) - self._target_ms, ROUNDING * self._target_ms)
        return widths

    def _raise(self, widths: Widths) -> Widths:
        """Widen single blocks while one fits and is no faster, to the slowest state that does."""
        while True:
            wider = (
                _with(widths, {layer.index: widths[layer.index] + self._grid})
                for layer in self._layers
                if widths[layer.index] + self._grid <= layer.upper
            )
            least = self._latency(widths)
            fitting = [state for state in wider if least <= self._latency(state) <= self._target_ms]
            if not fitting:
                return widths
            widths = max(fitting, key=self._latency)


def _undercut(costs: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which costs, in the order of their widths, are above that of a wider one."""
    cheapest = np.minimum.accumulate(costs[::-1])[::-1]
    return costs > cheapest


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
