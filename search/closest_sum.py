"""One option of each group, so that their costs add up to little less than what is allowed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

LARGEST_SET = 4096
"""Partial sums that are kept from one group to the next; where there are more, they are thinned."""

Numbers = NDArray[np.float64]


def closest_sum(
    costs: Sequence[Numbers], changes: Sequence[Numbers], least: float, most: float
) -> tuple[int, ...] | None:
    """The index of an option in each group, or `None` where all sums are above `most`.

    Of the sums of `costs` from `least` to `most` it is the one whose `changes` add up to the least;
    where there are none, it is the largest sum below. A dynamic programme over the groups: exact
    while at most `LARGEST_SET` partial sums are kept; beyond, of those that differ by less than a
    share of `1 / LARGEST_SET` of their range, the one with the least change stands for the others.
    """
    rest = np.cumsum([0.0, *(group.min() for group in reversed(costs))])[::-1]
    sums, changed = np.zeros(1), np.zeros(1)
    steps: list[tuple[NDArray[np.intp], int]] = []
    for number, (group, change) in enumerate(zip(costs, changes, strict=True)):
        totals = (sums[:, None] + group).ravel()
        totals_changed = (changed[:, None] + change).ravel()
        kept = np.flatnonzero(totals + rest[number + 1] <= most)
        if number + 1 < len(costs):
            kept = kept[_thinned(totals[kept], totals_changed[kept])]
        if not len(kept):
            return None
        sums, changed = totals[kept], totals_changed[kept]
        steps.append((kept, len(group)))
    near = np.flatnonzero(sums >= least)
    best = int(near[changed[near].argmin()]) if len(near) else int(sums.argmax())
    options = []
    for kept, count in reversed(steps):
        best, option = divmod(int(kept[best]), count)
        options.append(option)
    return tuple(reversed(options))


def _thinned(sums: Numbers, changed: Numbers) -> NDArray[np.intp]:
    """Indices of at most `LARGEST_SET` sums, those with the least change among their neighbours."""
    if len(sums) <= LARGEST_SET:
        return np.arange(len(sums))
    width = (sums.max() - sums.min()) / LARGEST_SET
    bins = np.zeros(len(sums)) if width == 0 else np.floor((sums - sums.min()) / width)
    order = np.lexsort((changed, bins))
    first = np.flatnonzero(np.diff(bins[order], prepend=-1.0))
    return order[first]
