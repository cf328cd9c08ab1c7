"""TuNAS's REINFORCE search (Bender et al. 2020): a factorised policy, trained by its rewards."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...devices.errors import UsageError
from ..space import Architecture, SearchSpace
from .policy import Policy
from .reward import RewardKind, front_slope, reward_of
from .strategy import Evaluation, Strategy


class Reinforce(Strategy):
    """Samples every choice from its own softmax, and raises what was rewarded above average.

    A step asks for `per_step` architectures; when all are told about, the `Policy` is updated once
    with their mean gradient, summed over active choices. It rests for the first `delay` of the
    `steps`.

    3e-4 is the paper's base rate for its batch of 128, to be scaled with the batch and, as one
    step moves a logit by about the rate, to be raised where there are few steps.

    `choices` of an evaluation are what was sampled; its architecture is their canonical form.
    """

    name = "reinforce"

    def __init__(
        self,
        space: SearchSpace,
        target_ms: float,
        *,
        steps: int,
        per_step: int = 1,
        reward: RewardKind = "absolute",
        strength: float = -0.10,
        learning_rate: float = 3e-4,
        delay: float = 0.25,
        seed: int = 0,
    ) -> None:
        super().__init__(space, seed)
        if steps < 1 or per_step < 1:
            raise UsageError("a search needs at least one step, and one architecture in each")
        self.target_ms = target_ms
        self.steps = steps
        self.per_step = per_step
        self.reward = reward
        self.strength = strength
        self.policy = Policy(space.option_counts, learning_rate=learning_rate, delay=delay)
        self._rewards([])

    @property
    def step(self) -> int:
        """Steps made so far."""
        return self.policy.step

    @property
    def logits(self) -> list[NDArray[np.float64]]:
        """The policy's, for each choice."""
        return self.policy.logits

    @property
    def done(self) -> bool:
        """Whether all steps were made."""
        return self.step >= self.steps

    def best(self) -> Architecture:
        """The most probable option of every choice, made canonical."""
        return self.space.architecture(self.policy.mode())

    def probabilities(self) -> list[NDArray[np.float64]]:
        """The policy: for each choice the probability of every option."""
        return self.policy.probabilities()

    def figures(self) -> dict[str, float]:
        """The policy's entropy in nats, and the strength b of the reward."""
        return {"policy_entropy": self.policy.entropy(), "strength": self.strength}

    def rate(self) -> float:
        """Learning rate of the coming update."""
        return self.policy.rate(self.step / self.steps)

    def warning(self) -> str | None:
        """What is wrong with the reward, judged by the evaluations since the policy's delay.

        The absolute reward holds the search at its target only while |b| exceeds the slope of the
        front there.
        """
        recent = self.evaluations[int(self.policy.delay * self.steps) * self.per_step :]
        if self.reward != "absolute" or len({item.latency_ms for item in recent}) < 2:
            return None
        slope = front_slope(
            [item.accuracy for item in recent],
            [item.latency_ms for item in recent],
            self.target_ms,
        )
        if slope <= -self.strength:
            return None
        return (
            f"accuracy rises by {slope:.3g} for each target's worth of latency, more than the "
            f"reward's strength of {-self.strength:g} takes away: the search may end above "
            f"{self.target_ms:g} ms. Use a strength below {-slope:.3g}."
        )

    def change_strength(self, strength: float) -> None:
        """Use another b from now on; the baseline is recomputed from all earlier evaluations."""
        self.strength = strength
        self.policy.average = 0.0
        for start in range(0, self.step * self.per_step, self.per_step):
            rewards = self._rewards(self.evaluations[start : start + self.per_step])
            self.policy.follow(float(rewards.mean()))

    def _propose(self, count: int) -> list[tuple[int, ...]]:
        told = len(self.evaluations) - self.step * self.per_step
        left = self.per_step - told - len(self._pending) - len(self._queue)
        if self.done or left <= 0:
            return []
        return self.policy.sample(min(count, left), self._random)

    def _learn(self, told: list[Evaluation]) -> None:
        super()._learn(told)
        batch = self.evaluations[self.step * self.per_step :]
        if len(batch) == self.per_step:
            sampled = [item.choices for item in batch]
            active = [self.space.active(choices) for choices in sampled]
            self.policy.update(sampled, active, self._rewards(batch), self.step / self.steps)

    def _rewards(self, batch: Sequence[Evaluation]) -> NDArray[np.float64]:
        return reward_of(
            self.reward,
            [item.accuracy for item in batch],
            [item.latency_ms for item in batch],
            self.target_ms,
            self.strength,
        )

    def _own_state(self) -> dict[str, Any]:
        return {"strength": self.strength, **self.policy.state()}

    def _load_own_state(self, state: dict[str, Any]) -> None:
        self.policy.load_state(state)
        self.strength = float(state["strength"])
