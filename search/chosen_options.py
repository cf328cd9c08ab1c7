"""Which options a search came to prefer: the share of each, early in the search and late."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from ..devices.errors import UsageError
from .space import SearchSpace

PARTS = 3
"""A search is told by its first and its last third."""


def option_shares(
    space: SearchSpace,
    evaluated: Sequence[tuple[int, ...]],
    chosen: tuple[int, ...] | None = None,
) -> pd.DataFrame:
    """How often each option was evaluated in the first and in the last third of a search.

    `evaluated` are option indices in the order of evaluation, `chosen` those of what the search
    ended with. The frame has a row for each option of each choice that has several: choice,
    option, first_third and last_third (shares of 1 of the architectures in which the choice is
    on, NaN where it never was), chosen. Raises `UsageError` for indices that are none of the
    space's.
    """
    for choices in (*evaluated, *(() if chosen is None else (chosen,))):
        if len(choices) != len(space.choices):
            raise UsageError(
                f"space {space.name} has {len(space.choices)} choices; an architecture has "
                f"{len(choices)}"
            )
    size = -(-len(evaluated) // PARTS)
    first = _shares(space, evaluated[:size])
    last = _shares(space, evaluated[len(evaluated) - size :])
    on = (False,) * len(space.choices) if chosen is None else space.active(chosen)
    rows = [
        {
            "choice": choice.name,
            "option": str(option),
            "first_third": first[position][index],
            "last_third": last[position][index],
            "chosen": chosen is not None and on[position] and chosen[position] == index,
        }
        for position, choice in enumerate(space.choices)
        if len(choice.options) > 1
        for index, option in enumerate(choice.options)
    ]
    return pd.DataFrame(rows, columns=["choice", "option", "first_third", "last_third", "chosen"])


def _shares(space: SearchSpace, evaluated: Sequence[tuple[int, ...]]) -> list[np.ndarray]:
    """For each choice the share of each option among the architectures in which it is on."""
    chosen = np.array(evaluated, dtype=int).reshape(len(evaluated), len(space.choices))
    active = np.array([space.active(choices) for choices in evaluated], dtype=bool)
    active = active.reshape(chosen.shape)
    found = []
    for position, choice in enumerate(space.choices):
        options = chosen[active[:, position], position]
        counts = np.bincount(options, minlength=len(choice.options)).astype(float)
        total = counts.sum()
        found.append(counts / total if total else np.full(len(choice.options), np.nan))
    return found
