"""What profiling a space times: networks to calibrate and to check with, probes, blocks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..devices.errors import UsageError
from .blocks import Block, MBConv
from .calibration import FEWEST_NETWORKS, is_timed
from .counts import block_counts
from .grid import probe_blocks
from .network import Network
from .spaces import ProfilableSpace
from .subject import Subject, subject_id

MIB = 2**20
EVICTION_CANDIDATES = (0, 1 * MIB, 2 * MIB, 4 * MIB, 8 * MIB)
"""Bytes that may be evicted before a block is timed: from none to more than a small network's."""

INTERVAL_NETWORKS = 40
"""Random networks that the width of the table's intervals is taken from, where a space has them:
those of the calibration are chosen, and what was chosen by them, so that they would flatter it."""

POOL_FACTOR = 8
"""Networks drawn for each calibration network, to choose those that span the space from."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The networks of a profile and what phase A times: the same for a space and a seed."""

    calibration: tuple[Network, ...]
    interval: tuple[Network, ...]
    held_out: tuple[Network, ...]
    eviction_candidates: tuple[int, ...]
    seed: int

    @classmethod
    def draw(
        cls,
        space: ProfilableSpace,
        calibration_networks: int = 16,
        held_out_networks: int = 24,
        eviction_candidates: Sequence[int] = EVICTION_CANDIDATES,
        seed: int = 0,
    ) -> Plan:
        """Draw distinct networks, no network serving two ends.

        The held-out ones and those of the interval are plain random samples; a small space gives
        fewer of the latter, or none. The calibration networks are those of a larger sample that
        lie evenly between the fewest and the most FLOPs, so that scale and constant can be told
        apart. Raises `UsageError` where the space has too few networks.
        """
        if calibration_networks < FEWEST_NETWORKS:
            raise UsageError(
                f"{calibration_networks} calibration networks are too few; {FEWEST_NETWORKS} are "
                "needed, and 16 are the default"
            )
        wanted = INTERVAL_NETWORKS + POOL_FACTOR * calibration_networks
        drawn = _distinct_networks(space, held_out_networks, wanted, seed)
        held_out, rest = drawn[:held_out_networks], drawn[held_out_networks:]
        spare = max(0, len(rest) - calibration_networks)
        interval_networks = min(INTERVAL_NETWORKS, spare // 2)
        interval, pool = rest[:interval_networks], rest[interval_networks:]
        if len(pool) < calibration_networks:
            raise UsageError(
                f"{calibration_networks} calibration and {held_out_networks} held-out networks "
                f"were asked for; space {space.name} gave {len(drawn)} distinct ones. Ask for "
                "fewer."
            )
        pool.sort(key=_flops)
        picked = np.linspace(0, len(pool) - 1, calibration_networks).round().astype(int)
        return cls(
            tuple(pool[index] for index in picked),
            tuple(interval),
            tuple(held_out),
            tuple(sorted(set(eviction_candidates))),
            seed,
        )

    @property
    def networks(self) -> tuple[Network, ...]:
        """All networks that are timed."""
        return (*self.calibration, *self.interval, *self.held_out)

    def first_phase(self) -> list[tuple[Subject, int]]:
        """Probes, networks, and calibration blocks at every candidate size, shuffled.

        Shuffled because a long list is timed in several batches: what the device drifts between
        them must not look like the effect of an eviction size.
        """
        requests: list[tuple[Subject, int]] = [(block, 0) for block in probe_blocks()]
        requests += [(network, 0) for network in self.networks]
        requests += [
            (block, size)
            for block in timed_blocks(self.calibration)
            for size in self.eviction_candidates
        ]
        distinct = {(subject_id(subject), size): (subject, size) for subject, size in requests}
        listed = list(distinct.values())
        order = np.random.default_rng(self.seed).permutation(len(listed))
        return [listed[index] for index in order]

    def second_phase(
        self, space: ProfilableSpace, eviction_bytes: int, grid: int
    ) -> list[tuple[Block, int]]:
        """All blocks of the space and of the networks that it drew, at the chosen size."""
        blocks = [block for block in space.blocks() if is_timed(block)]
        blocks += timed_blocks((*self.interval, *self.held_out))
        blocks += narrow_blocks(blocks, grid)
        return [(block, eviction_bytes) for block in dict.fromkeys(blocks)]


def timed_blocks(networks: Iterable[Network]) -> list[Block]:
    """The distinct blocks of these networks that take time."""
    blocks = (block for network in networks for block in network.blocks if is_timed(block))
    return list(dict.fromkeys(blocks))


def narrow_blocks(blocks: Iterable[Block], grid: int) -> list[Block]:
    """Half as wide a version of each MBConv that has no narrower relative, on the channel grid.

    With them, blocks can be interpolated down to half of any width that the space has, which is
    how far elasticity scaling goes (TF-NAS, Hu et al. 2020).
    """
    narrowest: dict[MBConv, int] = {}
    for block in blocks:
        if isinstance(block, MBConv):
            relative = replace(block, expanded_channels=1)
            known = narrowest.get(relative, block.expanded_channels)
            narrowest[relative] = min(known, block.expanded_channels)
    narrow: list[Block] = []
    for relative, channels in narrowest.items():
        half = -(-channels // (2 * grid)) * grid
        if half == relative.in_channels:
            half += grid  # at that width the first convolution would be left out
        if half < channels:
            narrow.append(replace(relative, expanded_channels=half))
    return narrow


def _distinct_networks(
    space: ProfilableSpace, needed: int, wanted: int, seed: int
) -> list[Network]:
    """Up to `needed` + `wanted` distinct networks; as many as there are in a small space."""
    count = needed + wanted
    while True:
        try:
            drawn = space.sample_networks(count, seed)
        except UsageError:
            # A small space: fewer to choose from will do.
            if count <= needed:
                raise
            count = max(needed, count // 2)
            continue
        return list({network.key: network for network in drawn}.values())


def _flops(network: Network) -> int:
    return sum(block_counts(block).flops for block in network.blocks)
