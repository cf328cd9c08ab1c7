"""What may stand at each place of a network while some choices are left open."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from itertools import product

import numpy as np

from ..devices.errors import UsageError
from ..latency.blocks import Block
from .space import Architecture, SearchSpace

Shares = dict[Block | None, float]
"""Blocks, `None` being left out, and for each its share of all combinations of open choices."""


def candidates(
    space: SearchSpace, architecture: Architecture, open_choices: Collection[int]
) -> list[Shares]:
    """For each piece of a chain its blocks with every option of the choices at these positions.

    The other choices are the architecture's. Blocks that several combinations give have as many
    shares: a layer that chooses first whether it is kept and then its kernel is left out half of
    the time. Raises `UsageError` where the pieces are no chain.
    """
    if any(sources != (index - 1,) for index, sources in enumerate(space.sources)):
        raise UsageError(f"space {space.name}: choices can be left open in a chain of pieces only")
    found = []
    for factor in space.factors():
        counts = [space.option_counts[position] for position in factor.positions]
        options = [
            range(count) if position in open_choices else (architecture.choices[position],)
            for position, count in zip(factor.positions, counts, strict=True)
        ]
        blocks = Counter(
            factor.blocks[int(np.ravel_multi_index(chosen, counts)) if chosen else 0]
            for chosen in product(*options)
        )
        found.append({block: count / blocks.total() for block, count in blocks.items()})
    return found
