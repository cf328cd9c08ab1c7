"""Inputs that the ranges of a quantized model are found with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from ..runtimes import numbered_input

BATCHES = 4
"""Latency does not depend on the ranges; a few inputs give every value one that is not degenerate.
A model that must be accurate is quantized by its owner, with data of its own."""

FIRST = 1000
"""Numbers its inputs differently from those that are timed."""


def calibration_inputs(
    inputs: Sequence[tuple[str, Sequence[int], Any]],
) -> Iterator[Mapping[str, NDArray[Any]]]:
    """`BATCHES` fixed sets of values for inputs given as name, shape and dtype."""
    for batch in range(1, BATCHES + 1):
        yield {
            name: numbered_input(batch * FIRST + number, name, shape, dtype)
            for number, (name, shape, dtype) in enumerate(inputs)
        }
