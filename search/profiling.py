"""The latency table of a search that is given none: the store's, once it has all that it needs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.progress import Progress

from ..devices.device import Device, TimingProtocol
from ..devices.errors import DeviceError
from ..latency.calibration import is_timed
from ..latency.limits import Limit, require_feasible
from ..latency.pricing import cost_model
from ..latency.space_plan import Plan
from ..latency.space_profile import build_space_profile, profile_space
from ..latency.store import Store
from ..latency.table import LatencyTable
from .aim import Aim
from .filled_table import without_gaps
from .space import SearchSpace

PREDICTOR = "predictor.json"


def table_of(
    space: SearchSpace,
    device: Device,
    store: Store,
    protocol: TimingProtocol,
    aims: Sequence[Aim],
    path: Path,
    progress: Progress | None = None,
    also: Sequence[Limit] = (),
) -> LatencyTable:
    """The space's table on `device`: what the store lacks is profiled, then it is calibrated.

    It is written to `path`, and read from there by a search that goes on. Blocks that the space
    does not list are predicted, by a predictor that is fitted to the store and kept beside it.
    Raises `UnreachableTargetError` where no architecture is fast enough for one of `aims`, or none
    such keeps the limits `also`: before anything is timed where the store has all blocks;
    `UsageError` where `path` holds another setup's, `DeviceError` where the device fails.
    """
    predictor = path.with_name(PREDICTOR)
    if path.exists():
        table = LatencyTable.load(path)
        table.check_setup(device.setup)
        return without_gaps(table, space, store, predictor)
    known = _stored(space, device, store)
    if known is not None:
        require_reachable(space, known, aims, also)
    table = profile_space(space, device, store, protocol, progress).table
    filled = without_gaps(table, space, store, predictor)
    require_reachable(space, filled, aims, also)
    path.parent.mkdir(parents=True, exist_ok=True)
    table.save(path)
    return filled


def require_reachable(
    space: SearchSpace, table: LatencyTable, aims: Sequence[Aim], also: Sequence[Limit] = ()
) -> None:
    """Raise `UnreachableTargetError` where, for one of the aims, no architecture is fast enough.

    Or where none is that keeps the limits `also`.
    """
    if aims:
        cost = cost_model(space, table.block_cost_ms, table.calibration.constant_ms)
        for aim in aims:
            require_feasible([Limit(cost, aim.target_ms, "latency"), *also])


def _stored(space: SearchSpace, device: Device, store: Store) -> LatencyTable | None:
    """The table that the store gives as it is, `None` where it lacks networks or blocks."""
    try:
        table = build_space_profile(store, device.setup, space, Plan.draw(space)).table
    except DeviceError:
        return None  # too few of the networks that the calibration needs
    has_all = all(block in table.entries for block in space.blocks() if is_timed(block))
    return table if has_all else None
