"""Profiling a whole space: from nothing but a space and a device to a calibrated latency table.

Phase A times, in one shuffled batch, the probes of the channel grid, whole networks as they are
deployed (called in a loop, nothing evicted), and the blocks of the calibration networks at every
candidate eviction size. That decides how blocks are timed on this device. Phase B times all other
blocks that way. Everything is derived from the store again by `build_space_profile`, so a table
can be rebuilt at any time without the device.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from rich.progress import Progress

from ..devices.device import Device, ModelKey, Setup, TimingProtocol
from ..devices.errors import DeviceError
from ..devices.measurement import Measurement
from .blocks import Block
from .calibration import FEWEST_NETWORKS, BlockTerms, Calibration, block_terms, calibrate, is_timed
from .grid import DEFAULT_GRID, channel_grid, probe_blocks
from .network import Network
from .one_speed import at_one_speed
from .profile import profile
from .space_plan import EVICTION_CANDIDATES, Plan, timed_blocks
from .spaces import ProfilableSpace
from .store import Store
from .subject import Subject, subject_id
from .table import Entry, Estimate, EvictionTrial, LatencyTable

ALIKE = 0.1
"""Calibrations whose errors differ by less than this share are equally good."""

BIAS_TIE = 0.01
"""Plain sums whose biases differ by no more than this are alike; the smaller eviction is taken."""

NetworkTerms = list[BlockTerms]

Role = Literal["calibration", "interval", "held_out"]
"""What a measured network is for: the coefficients, the width of intervals, or a test of both."""


@dataclass(frozen=True, slots=True)
class NetworkCheck:
    """A measured network beside what the table says of it."""

    network: Network
    measured_ms: float
    verdict: str
    estimate: Estimate
    role: Role

    @property
    def held_out(self) -> bool:
        """Whether it took no part in what the table says."""
        return self.role == "held_out"

    @property
    def inside(self) -> bool:
        """Whether the measured latency lies inside the estimate's interval."""
        return self.estimate.low_ms <= self.measured_ms <= self.estimate.high_ms


@dataclass(frozen=True, slots=True)
class SpaceProfile:
    """A latency table and what it was made from.

    `canary_shift` is by what share the canary was slower in phase B than in phase A (`None` where
    one of them has no rounds of its own): how far the device drifted in between, which the table
    is corrected for (`one_speed`). `unstable` counts blocks and networks whose
    verdict is not `stable`, `failures` names the cause for each model that could not be timed.
    """

    table: LatencyTable
    checks: tuple[NetworkCheck, ...]
    canary_shift: float | None
    unstable: int
    failures: Mapping[ModelKey, str]


def profile_space(
    space: ProfilableSpace,
    device: Device,
    store: Store,
    protocol: TimingProtocol,
    progress: Progress | None = None,
    strict: bool = False,
    calibration_networks: int = 16,
    held_out_networks: int = 24,
    eviction_candidates: Sequence[int] = EVICTION_CANDIDATES,
    seed: int = 0,
    label: str = "",
) -> SpaceProfile:
    """Time what a table of `space` needs, as far as the store lacks it, and build the table.

    `label` begins the descriptions that `progress` shows.

    Raises `DeviceError` where the device is lost or too little could be timed, `UnstableError`
    with `strict` where a verdict is not stable, `UsageError` as `Plan.draw`.
    """
    plan = Plan.draw(space, calibration_networks, held_out_networks, eviction_candidates, seed)
    profile(
        device,
        plan.first_phase(),
        store,
        protocol,
        strict=strict,
        progress=progress,
        description=f"{label}networks, and how to time blocks",
    )
    chosen = _choice(store.all_measurements(device.setup), plan, device.setup, space)
    profile(
        device,
        plan.second_phase(space, chosen.eviction_bytes, chosen.grid),
        store,
        protocol,
        strict=strict,
        progress=progress,
        description=f"{label}blocks",
    )
    return build_space_profile(store, device.setup, space, plan)


def build_table(
    store: Store,
    setup: Setup,
    space: ProfilableSpace,
    calibration_networks: int = 16,
    held_out_networks: int = 24,
    eviction_candidates: Sequence[int] = EVICTION_CANDIDATES,
    seed: int = 0,
) -> LatencyTable:
    """The table that `profile_space` gave when called with the same numbers, from its store."""
    plan = Plan.draw(space, calibration_networks, held_out_networks, eviction_candidates, seed)
    return build_space_profile(store, setup, space, plan).table


def build_space_profile(
    store: Store, setup: Setup, space: ProfilableSpace, plan: Plan
) -> SpaceProfile:
    """Choose the eviction size, calibrate, size intervals, evaluate on held-out networks.

    Takes from the store what `plan` has measured and nothing else, so that what was measured
    since, for a search say, does not change the table.
    """
    found = store.all_measurements(setup)
    chosen = _choice(found, plan, setup, space)
    used: dict[ModelKey, Subject] = {
        (subject_id(subject), size): subject
        for subject, size in (
            *plan.first_phase(),
            *plan.second_phase(space, chosen.eviction_bytes, chosen.grid),
        )
    }
    measured = _at_one_speed(found, plan)
    entries = {
        subject: measured[key]
        for key, subject in used.items()
        if key in measured and key[1] == chosen.eviction_bytes and isinstance(subject, Block)
    }
    table = LatencyTable(
        setup, chosen.eviction_bytes, chosen.grid, entries, chosen.calibration, chosen.trials
    )
    interval = list(_measured(plan.interval, table, measured))
    table = replace(table, calibration=table.calibration.with_interval(*_terms(interval, table)))
    held_out = list(_measured(plan.held_out, table, measured))
    if held_out:
        table = replace(table, calibration=table.calibration.evaluate(*_terms(held_out, table)))
    return SpaceProfile(
        table,
        tuple(_checks(table, plan, measured)),
        _canary_shift(store, setup, plan),
        sum(found[key].verdict.kind != "stable" for key in used if key in found),
        {key: cause for key, cause in store.failures(setup).items() if key in used},
    )


@dataclass(frozen=True, slots=True)
class _Choice:
    """What phase A decided."""

    eviction_bytes: int
    calibration: Calibration
    trials: tuple[EvictionTrial, ...]
    grid: int


def choose_eviction(calibrations: Mapping[int, Calibration]) -> int:
    """The eviction size to time blocks with, given the calibration that each size leads to.

    What counts is how well networks are predicted, so the size with the lowest leave-one-out
    error leads. With some 16 networks, though, several sizes are as good: those whose error is
    larger by less than `ALIKE`, or whose mean squared error by less than one standard error of
    the difference, network by network (the one-standard-error rule, Breiman et al. 1984). Among
    them the one whose *plain* sums are least biased is taken: its calibration corrects least, so
    it is the one to trust with unlike networks, and its isolated blocks mean what they say.
    Biases within `BIAS_TIE` of the least are ties, which go to the smaller size: it is the
    quicker to time.
    """
    squares = {
        size: np.array(calibration.residuals) ** 2 for size, calibration in calibrations.items()
    }
    best = squares[min(squares, key=lambda size: (squares[size].mean(), size))]
    biases = {}
    for size, calibration in calibrations.items():
        standard_error = (squares[size] - best).std(ddof=1) / np.sqrt(len(best))
        largest = max((1 + ALIKE) ** 2 * best.mean(), best.mean() + standard_error)
        if squares[size].mean() <= largest:
            assert calibration.plain is not None
            biases[size] = abs(calibration.plain.bias)
    least = min(biases.values())
    return min(size for size, bias in biases.items() if bias <= least + BIAS_TIE)


def _choice(
    found: Mapping[ModelKey, Measurement], plan: Plan, setup: Setup, space: ProfilableSpace
) -> _Choice:
    """Decide eviction size, calibration and channel grid on what phase A measured.

    Where the whole space was measured at some size, that decision stands: rounds that were added
    since must not move it to a size at which most blocks are missing.
    """
    grid = _probed_grid(found)
    entries = _at_one_speed(found, plan)
    covered = _covered_sizes(found, plan, space, grid)
    # The networks that each size can be judged by; only sizes with the most are compared.
    usable = {
        size: [
            network
            for network in plan.calibration
            if (network.key, 0) in entries and _measured_terms(network, size, entries) is not None
        ]
        for size in plan.eviction_candidates
    }
    networks = max(usable.values(), key=len, default=[])
    calibrations: dict[int, Calibration] = {}
    for size, listed in usable.items():
        if listed == networks and len(networks) >= FEWEST_NETWORKS:
            terms = [_measured_terms(network, size, entries) or [] for network in networks]
            measured = [entries[network.key, 0].median_ms for network in networks]
            calibrations[size] = calibrate(terms, measured)
    if not calibrations:
        raise DeviceError(
            f"the store has {len(networks)} of {len(plan.calibration)} calibration networks of "
            f"{setup.key} with all of their blocks; {FEWEST_NETWORKS} are needed. Profile the "
            "space on that device, with the same numbers of networks and the same seed."
        )
    standing = {size: item for size, item in calibrations.items() if size in covered}
    chosen = choose_eviction(standing or calibrations)
    trials = tuple(
        EvictionTrial(size, item.plain.bias, item.leave_one_out.rmspe, size == chosen)
        for size, item in calibrations.items()
        if item.plain is not None and item.leave_one_out is not None
    )
    return _Choice(chosen, calibrations[chosen], trials, grid)


def _covered_sizes(
    found: Mapping[ModelKey, Measurement], plan: Plan, space: ProfilableSpace, grid: int
) -> list[int]:
    """The candidate sizes at which all of phase B was measured."""
    needed = [block.key for block, _ in plan.second_phase(space, 0, grid)]
    return [
        size for size in plan.eviction_candidates if all((key, size) in found for key in needed)
    ]


def _probed_grid(found: Mapping[ModelKey, Measurement]) -> int:
    """The channel grid, by the quickest runs: it is a runtime's, however busy the device was."""
    probes = [
        (block.expanded_channels, (item.p5_ns or item.median_ns) / 1e6)
        for block in probe_blocks()
        if (item := found.get((block.key, 0))) is not None
    ]
    if not probes:
        return DEFAULT_GRID
    channels, latency_ms = zip(*probes, strict=True)
    return channel_grid(channels, latency_ms)


def _at_one_speed(found: Mapping[ModelKey, Measurement], plan: Plan) -> Mapping[ModelKey, Entry]:
    """What was measured, at the speed that the device had when it ran the plan's networks."""
    return at_one_speed(found, ((network.key, 0) for network in plan.networks))


def _measured_terms(
    network: Network, size: int, entries: Mapping[ModelKey, Entry]
) -> NetworkTerms | None:
    """The network's timed blocks, `None` where one of them was not measured."""
    blocks = [block for block in network.blocks if is_timed(block)]
    if any((block.key, size) not in entries for block in blocks):
        return None
    return [block_terms(block, entries[block.key, size].median_ms) for block in blocks]


def _measured(
    networks: Iterable[Network], table: LatencyTable, entries: Mapping[ModelKey, Entry]
) -> Iterable[tuple[Network, Entry]]:
    """The networks that were measured, all of whose blocks were measured too."""
    for network in networks:
        entry = entries.get((network.key, 0))
        if entry is not None and table.entries.keys() >= set(timed_blocks([network])):
            yield network, entry


def _terms(
    measured: Iterable[tuple[Network, Entry]], table: LatencyTable
) -> tuple[list[NetworkTerms], list[float]]:
    """The timed blocks of measured networks, and the networks' latencies in ms."""
    terms: list[NetworkTerms] = []
    latency_ms: list[float] = []
    for network, entry in measured:
        timed = [block for block in network.blocks if is_timed(block)]
        terms.append([block_terms(block, table.estimate(block).latency_ms) for block in timed])
        latency_ms.append(entry.median_ms)
    return terms, latency_ms


def _checks(
    table: LatencyTable, plan: Plan, entries: Mapping[ModelKey, Entry]
) -> Iterable[NetworkCheck]:
    """Every network of the plan that can be checked."""
    roles: dict[Role, tuple[Network, ...]] = {
        "calibration": plan.calibration,
        "interval": plan.interval,
        "held_out": plan.held_out,
    }
    for role, networks in roles.items():
        for network, entry in _measured(networks, table, entries):
            yield NetworkCheck(
                network, entry.median_ms, entry.verdict, table.network(network), role
            )


def _canary_shift(store: Store, setup: Setup, plan: Plan) -> float | None:
    """The canary's median over phase B's rounds relative to phase A's, less 1."""
    first = {(subject_id(subject), size) for subject, size in plan.first_phase()}
    medians: dict[bool, list[float]] = {True: [], False: []}
    for item in store.rounds(setup):
        if item.accepted and item.canary_ns and item.visits:
            # A round of phase B has none of phase A's models: those were finished before.
            medians[first.isdisjoint(item.visits)].append(statistics.median(item.canary_ns))
    if not medians[True] or not medians[False]:
        return None
    return statistics.median(medians[True]) / statistics.median(medians[False]) - 1
