"""Landing on a target: scale widths by the table, measure, correct, and scale again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from rich.progress import Progress

from ..devices.device import Device, TimingProtocol
from ..devices.errors import DeviceError, UnreachableTargetError
from ..latency.blocks import Block
from ..latency.calibration import is_timed
from ..latency.one_speed import at_one_speed
from ..latency.profile import Request, profile
from ..latency.store import Store
from ..latency.subject import subject_id
from ..latency.table import LatencyTable
from .elasticity import architecture_latency, is_scalable, scale
from .space import Architecture, SearchSpace

TOLERANCE = 0.02
"""A measured latency within this share of the target needs no correction."""

CORRECTIONS = 3
"""At most this many times the model is corrected by a measurement and widths are scaled again."""


@dataclass(frozen=True, slots=True)
class Landing:
    """An architecture scaled to a target.

    `correction` is the factor between the table's prediction and the measurement that the last
    scaling used, `measured_ms` the latency of the network with random weights on the device.
    """

    architecture: Architecture
    correction: float
    corrections: int
    measured_ms: float


def scale_by_table(
    architecture: Architecture,
    space: SearchSpace,
    table: LatencyTable,
    target_ms: float,
    correction: float = 1.0,
) -> Architecture:
    """Elasticity-scaling with `correction` times the table's latency as its cost."""
    latency_of = architecture_latency(space, table.block_cost_ms, table.calibration.constant_ms)
    return scale(
        architecture,
        space,
        lambda candidate: correction * latency_of(candidate),
        target_ms,
        table.channel_grid,
    )


def land(
    architectures: Mapping[str, Architecture],
    space: SearchSpace,
    table: LatencyTable,
    device: Device,
    store: Store,
    protocol: TimingProtocol,
    target_ms: float,
    progress: Progress | None = None,
) -> tuple[dict[str, Landing], LatencyTable]:
    """Scale each architecture to `target_ms`, as measured on the device.

    The scaled networks are timed together, in the same rounds, and with them the blocks that the
    table only interpolates, which it then holds. Where a network misses the target by more than
    `TOLERANCE` its scaling is repeated with the table corrected by what was measured, at most
    `CORRECTIONS` times; the state closest to the target is returned. Also returns the table with
    the added blocks. In a space without layers to scale, architectures are measured as they are.
    """
    if not is_scalable(space):
        table, measured = _measure(architectures, space, table, device, store, protocol, progress)
        landings = {
            name: Landing(architecture, 1.0, 0, measured[name])
            for name, architecture in architectures.items()
        }
        return landings, table
    factors = dict.fromkeys(architectures, 1.0)
    best: dict[str, Landing] = {}
    pending = dict(architectures)
    for attempt in range(CORRECTIONS + 1):
        scaled = {}
        for name, architecture in pending.items():
            try:
                scaled[name] = scale_by_table(architecture, space, table, target_ms, factors[name])
            except UnreachableTargetError:
                # A correction asks for more than widths can give: what was measured before stands.
                if name not in best:
                    raise
        if not scaled:
            break
        table, measured = _measure(scaled, space, table, device, store, protocol, progress)
        for name, architecture in scaled.items():
            landing = Landing(architecture, factors[name], attempt, measured[name])
            if name not in best or _miss(landing, target_ms) < _miss(best[name], target_ms):
                best[name] = landing
            predicted_ms = table.network(space.network(architecture)).latency_ms
            factors[name] = measured[name] / predicted_ms
        pending = {
            name: architectures[name]
            for name, landing in best.items()
            if _miss(landing, target_ms) > TOLERANCE
        }
        if not pending:
            break
    return best, table


def _miss(landing: Landing, target_ms: float) -> float:
    return abs(landing.measured_ms / target_ms - 1)


def _measure(
    scaled: Mapping[str, Architecture],
    space: SearchSpace,
    table: LatencyTable,
    device: Device,
    store: Store,
    protocol: TimingProtocol,
    progress: Progress | None,
) -> tuple[LatencyTable, dict[str, float]]:
    """Time the scaled networks and their blocks that the table lacks."""
    networks = {name: space.network(architecture) for name, architecture in scaled.items()}
    missing = _unmeasured(
        [block for network in networks.values() for block in network.blocks], table
    )
    requests: list[Request] = [(network, 0) for network in networks.values()]
    requests += [(block, table.eviction_bytes) for block in missing]
    found = profile(
        device, requests, store, protocol, progress=progress, description="scaled networks"
    )
    for (model, _), cause in found.failures.items():
        raise DeviceError(f"{model} could not be timed: {cause}")
    timed = at_one_speed(found.measurements)
    entries = dict(table.entries)
    for block in missing:
        entries[block] = timed[subject_id(block), table.eviction_bytes]
    measured = {name: timed[subject_id(network), 0].median_ms for name, network in networks.items()}
    return replace(table, entries=entries), measured


def _unmeasured(blocks: Sequence[Block], table: LatencyTable) -> list[Block]:
    return [
        block for block in dict.fromkeys(blocks) if is_timed(block) and block not in table.entries
    ]
