"""Adaptive profiling: the next blocks to measure are those that teach a predictor the most.

A block is worth measuring for how much it lowers the variance of all that is needed: the sum over
candidates of need times variance, given what was measured (active learning by Cohn; Gaussian
process: Seo et al. 2000; Gramacy & Lee 2009). Blocks of a batch are chosen one after the other, as
if those before were measured, so that they differ. A share of each batch is drawn at random:
intervals are calibrated on those alone, and they find what the model does not know to be unsure of.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..devices.errors import UsageError
from .additive import prior_covariance
from .blocks import Block
from .calibration import is_timed
from .predictor import FEWEST_SAMPLES, LatencyPredictor
from .spaces import ProfilableSpace

FIRST = 30
"""Blocks drawn at random before anything is predicted."""

RANDOM_SHARE = 0.3
"""Share of the later blocks that is drawn at random too."""

SMALLEST_BATCH = 15
BATCH_SHARE = 1 / 3
"""A batch is this share of what was measured, so that fitting never takes most of the time."""

COMPARED = 1000
"""Candidates that a batch is chosen from, drawn by need; memory grows with its square."""

SPACE_NETWORKS = 500
"""Random networks that tell how often a space needs each block."""

UNSEEN_COUNT = 0.5
"""How often a block counts that none of them has."""


@dataclass(frozen=True)
class Candidates:
    """Blocks that may be measured, and how often each is needed (N,).

    With `by_cost` an error counts by what it adds to a network, else by its share of the block.
    """

    blocks: tuple[Block, ...]
    frequency: NDArray[np.float64]
    by_cost: bool = False

    @classmethod
    def of_blocks(cls, blocks: Sequence[Block]) -> Candidates:
        """Blocks that are needed alike; those without an operation are left out."""
        found = tuple(block for block in dict.fromkeys(blocks) if is_timed(block))
        if len(found) < FEWEST_SAMPLES:
            raise UsageError(
                f"{len(found)} blocks to choose from are too few: a predictor needs at least "
                f"{FEWEST_SAMPLES}"
            )
        return cls(found, np.ones(len(found)))

    @classmethod
    def of_space(cls, space: ProfilableSpace, seed: int = 0) -> Candidates:
        """The blocks of a space, needed as often as random networks of it have them."""
        counts: Counter[Block] = Counter()
        for network in space.sample_networks(SPACE_NETWORKS, seed):
            counts.update(network.blocks)
        found = cls.of_blocks([*space.blocks(), *counts])
        needed = [max(counts[block], UNSEEN_COUNT) for block in found.blocks]
        return cls(found.blocks, np.array(needed, dtype=np.float64), by_cost=True)


class AdaptiveChoice:
    """Which of the candidates to measure next, the same for a seed and what was picked before.

    `picked` tells of each block whether it was drawn at random. A block that was first picked
    because the model was unsure, and is drawn at random later, counts as drawn from then on.
    """

    def __init__(
        self, candidates: Candidates, seed: int = 0, picked: Mapping[Block, bool] | None = None
    ) -> None:
        self._candidates = candidates
        random = np.random.default_rng(seed)
        # Without replacement, by frequency (Efraimidis & Spirakis 2006).
        keys = np.log(random.random(len(candidates.blocks))) / candidates.frequency
        self._order = [candidates.blocks[index] for index in np.argsort(-keys)]
        self._seed = seed
        self.picked: dict[Block, bool] = dict(picked or {})

    @property
    def is_exhausted(self) -> bool:
        """Whether every candidate was picked."""
        return all(block in self.picked for block in self._order)

    def at_random(self, count: int) -> list[Block]:
        """Draw until `count` blocks are new; returns all that were drawn, known ones too."""
        drawn: list[Block] = []
        for block in self._order:
            if count <= 0:
                break
            if not self.picked.get(block, False):
                count -= block not in self.picked
                drawn.append(block)
                self.picked[block] = True
        return drawn

    def unsure(
        self, predictor: LatencyPredictor, measured: Sequence[Block], count: int
    ) -> list[Block]:
        """The `count` new blocks that teach the predictor the most, beside what was measured."""
        left = [
            index for index, block in enumerate(self._candidates.blocks) if block not in self.picked
        ]
        frequency = self._candidates.frequency[left]
        if len(left) > COMPARED:
            random = np.random.default_rng([self._seed, len(self.picked)])
            share = frequency / frequency.sum()
            kept = np.sort(random.choice(len(left), COMPARED, replace=False, p=share))
            left, frequency = [left[index] for index in kept], np.ones(len(kept))
        blocks = [self._candidates.blocks[index] for index in left]
        if not blocks or count <= 0:
            return []
        need = frequency * predictor.predict(blocks) if self._candidates.by_cost else frequency
        chosen = most_informative(predictor, measured, blocks, need, min(count, len(blocks)))
        self.picked.update({blocks[index]: False for index in chosen})
        return [blocks[index] for index in chosen]


def batch_size(measured: int) -> int:
    """How many blocks to measure next."""
    return max(SMALLEST_BATCH, math.floor(BATCH_SHARE * measured))


def random_part(count: int) -> int:
    """How many of a batch are drawn at random."""
    return round(RANDOM_SHARE * count)


def most_informative(
    predictor: LatencyPredictor,
    measured: Sequence[Block],
    candidates: Sequence[Block],
    need: NDArray[np.float64],
    count: int,
) -> list[int]:
    """Numbers of the candidates that lower the needed variance the most, the best first."""
    model = predictor.model_
    if model.process is None:
        raise UsageError("this predictor is of an older version; fit it again to choose with it")
    terms = predictor.prepare([*measured, *candidates]).terms
    covariance = prior_covariance(terms, model.physical.predict(terms.work), model.process)
    known, noise = len(measured), model.process.noise**2
    inner = covariance[:known, :known] + noise * np.eye(known)
    across = covariance[:known, known:]
    left = covariance[known:, known:] - across.T @ np.linalg.solve(inner, across)
    chosen: list[int] = []
    for _ in range(count):
        variance = np.diag(left) + noise
        gain = need @ left**2 / variance
        gain[chosen] = -1.0
        best = int(np.argmax(gain))
        chosen.append(best)
        left = left - np.outer(left[:, best], left[best]) / variance[best]
    return chosen
