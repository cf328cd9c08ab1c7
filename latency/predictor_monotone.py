"""Monotone predictions: where probes confirm it, a wider block on the channel grid is not faster.

The work of a block grows with its width by construction; what is learned of its error need not.
So a block is given the greatest prediction of itself and its narrower relatives on the grid. That
holds for the width that the probes vary, the expanded channels of an `MBConv` (latency/grid.py),
and on the grid alone: between its multiples latency is a sawtooth.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from .blocks import MBConv
from .features import Sample


def narrower(sample: Sample, grid: int) -> list[Sample]:
    """The relatives of an `MBConv` on the grid that are not wider, itself included."""
    if not isinstance(sample, MBConv) or sample.expanded_channels % grid:
        return [sample]
    # At its input's width a block has no first convolution: it is another sort of block.
    alike = range(grid, sample.expanded_channels + 1, grid)
    if sample.expanded_channels == sample.in_channels:
        return [sample]
    return [
        replace(sample, expanded_channels=width) for width in alike if width != sample.in_channels
    ]


def raised(
    samples: Sequence[Sample], latency_ms: Mapping[Sample, float], grid: int
) -> dict[Sample, float]:
    """Each sample's greatest prediction among those of `narrower`."""
    return {
        sample: max(latency_ms[relative] for relative in narrower(sample, grid))
        for sample in samples
    }
