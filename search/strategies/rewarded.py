"""What strategies have in common that move a policy by the rewards of what it sampled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ...devices.errors import UsageError
from ..space import SearchSpace
from .reward import RewardKind, reward_of
from .strategy import Evaluation, Strategy


class Sampler(Protocol):
    """A policy, as far as asking it goes."""

    step: int

    def sample(self, count: int, random: np.random.Generator) -> list[tuple[int, ...]]:
        """`count` rows of option indices."""


class RewardedStrategy(Strategy):
    """A step asks for `per_step` architectures; when all are told about, the policy moves once."""

    policy: Sampler

    def __init__(
        self,
        space: SearchSpace,
        target_ms: float,
        *,
        steps: int,
        per_step: int,
        reward: RewardKind,
        strength: float,
        seed: int,
    ) -> None:
        super().__init__(space, seed)
        if steps < 1 or per_step < 1:
            raise UsageError("a search needs at least one step, and one architecture in each")
        self.target_ms = target_ms
        self.steps = steps
        self.per_step = per_step
        self.reward = reward
        self.strength = strength
        self._rewards([])

    @property
    def step(self) -> int:
        """Steps made so far."""
        return self.policy.step

    @property
    def done(self) -> bool:
        """Whether all steps were made."""
        return self.step >= self.steps

    def _propose(self, count: int) -> list[tuple[int, ...]]:
        told = len(self.evaluations) - self.step * self.per_step
        left = self.per_step - told - len(self._pending) - len(self._queue)
        if self.done or left <= 0:
            return []
        return self.policy.sample(min(count, left), self._random)

    def _rewards(self, batch: Sequence[Evaluation]) -> NDArray[np.float64]:
        return reward_of(
            self.reward,
            [item.accuracy for item in batch],
            [item.latency_ms for item in batch],
            self.target_ms,
            self.strength,
        )
