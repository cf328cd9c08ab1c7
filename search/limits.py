"""Limits that a search keeps besides its latency, from the words of a command."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from ..devices.errors import UsageError
from ..latency.costs import COSTS
from ..latency.limits import Limit
from ..latency.pricing import cost_model
from ..latency.table import LatencyTable
from .space import SearchSpace


def limits_of(space: SearchSpace, assignments: Sequence[str]) -> tuple[Limit, ...]:
    """Limits from `NAME=MOST`: a cost of `COSTS`, or a table's file, whose latency is in ms.

    Raises `UsageError` for anything else.
    """
    return tuple(_limit(space, assignment) for assignment in assignments)


def _limit(space: SearchSpace, assignment: str) -> Limit:
    name, _, text = assignment.rpartition("=")
    try:
        most = float(text)
    except ValueError:
        most = math.nan
    if not (name and math.isfinite(most) and most > 0):
        raise UsageError(f"--limit {assignment}: NAME=MOST is needed, as parameters=3e6")
    if name in COSTS:
        return Limit(COSTS[name](space), most, name)
    path = Path(name)
    if not path.exists():
        raise UsageError(
            f"--limit {assignment}: {name} is neither a file of a table nor one of "
            f"{', '.join(COSTS)}"
        )
    table = LatencyTable.load(path)
    cost = cost_model(space, table.block_cost_ms, table.calibration.constant_ms)
    return Limit(cost, most, f"latency on {table.setup.device}")
