"""TuNAS's REINFORCE search (Bender et al. 2020): a factorised policy, trained by its rewards."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..devices.errors import UsageError
from .reward import REWARDS, RewardKind, front_slope
from .space import Architecture, SearchSpace
from .strategy import Evaluation, Strategy

BASELINE_MOMENTUM = 0.95
ADAM_DECAY = 0.999
ADAM_EPSILON = 1e-8


class Reinforce(Strategy):
    """Samples every choice from its own softmax, and raises what was rewarded above average.

    A step asks for `per_step` architectures; when all are told about, the policy is updated once
    with their mean gradient of `-(reward - baseline) * log p`, summed over active choices. The
    baseline is a bias-corrected moving average (momentum .95) that takes in the step's mean reward
    before it is subtracted. Logits start at 0; Adam with beta1 = 0, beta2 = .999 and no entropy
    bonus. The rate is 0 for the first `delay` of the `steps`, then
    `learning_rate * 10^progress`, progress running from 0 to 1 over the rest.

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
        if not 0 <= delay < 1:
            raise UsageError(f"the policy's delay is a share of the steps, not {delay}")
        self.target_ms = target_ms
        self.steps = steps
        self.per_step = per_step
        self.reward = reward
        self.strength = strength
        self.learning_rate = learning_rate
        self.delay = delay
        self.step = 0
        self.logits = [np.zeros(count) for count in space.option_counts]
        self._squares = [np.zeros(count) for count in space.option_counts]
        self._average = 0.0
        self._rewards([])

    @property
    def done(self) -> bool:
        """Whether all steps were made."""
        return self.step >= self.steps

    def best(self) -> Architecture:
        """The most probable option of every choice, made canonical."""
        return self.space.architecture([int(logits.argmax()) for logits in self.logits])

    def probabilities(self) -> list[NDArray[np.float64]]:
        """The policy: for each choice the probability of every option."""
        return [_softmax(logits) for logits in self.logits]

    def rate(self) -> float:
        """Learning rate of the coming update."""
        progress = self.step / self.steps
        if progress < self.delay:
            return 0.0
        return float(self.learning_rate * 10 ** ((progress - self.delay) / (1 - self.delay)))

    def warning(self) -> str | None:
        """What is wrong with the reward, judged by the evaluations since the policy's delay.

        The absolute reward holds the search at its target only while |b| exceeds the slope of the
        front there.
        """
        recent = self.evaluations[int(self.delay * self.steps) * self.per_step :]
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
        self._average = 0.0
        for start in range(0, self.step * self.per_step, self.per_step):
            rewards = self._rewards(self.evaluations[start : start + self.per_step])
            self._average += (1 - BASELINE_MOMENTUM) * (float(rewards.mean()) - self._average)

    def _propose(self, count: int) -> list[tuple[int, ...]]:
        told = len(self.evaluations) - self.step * self.per_step
        left = self.per_step - told - len(self._pending) - len(self._queue)
        if self.done or left <= 0:
            return []
        cumulative = [np.cumsum(vector) for vector in self.probabilities()]
        drawn = self._random.random((min(count, left), len(cumulative)))
        return [
            tuple(
                min(int(np.searchsorted(sums, value * sums[-1], side="right")), len(sums) - 1)
                for sums, value in zip(cumulative, row, strict=True)
            )
            for row in drawn
        ]

    def _learn(self, told: list[Evaluation]) -> None:
        super()._learn(told)
        batch = self.evaluations[self.step * self.per_step :]
        if len(batch) == self.per_step:
            self._update(batch)

    def _update(self, batch: list[Evaluation]) -> None:
        rewards = self._rewards(batch)
        rate = self.rate()
        self._average += (1 - BASELINE_MOMENTUM) * (float(rewards.mean()) - self._average)
        self.step += 1
        baseline = self._average / (1 - BASELINE_MOMENTUM**self.step)
        advantages = rewards - baseline
        active = np.array([self.space.active(item.choices) for item in batch], dtype=bool)
        for position, probability in enumerate(self.probabilities()):
            sampled = np.eye(len(probability))[[item.choices[position] for item in batch]]
            weights = advantages * active[:, position]
            gradient = -(weights[:, None] * (sampled - probability)).mean(axis=0)
            squares = self._squares[position]
            squares += (1 - ADAM_DECAY) * (gradient**2 - squares)
            size = np.sqrt(squares / (1 - ADAM_DECAY**self.step)) + ADAM_EPSILON
            self.logits[position] -= rate * gradient / size

    def _rewards(self, batch: Sequence[Evaluation]) -> NDArray[np.float64]:
        if self.reward not in REWARDS:
            raise UsageError(f"there is no reward {self.reward}; choose one of {[*REWARDS]}")
        return REWARDS[self.reward](
            [item.accuracy for item in batch],
            [item.latency_ms for item in batch],
            self.target_ms,
            self.strength,
        )

    def _own_state(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "strength": self.strength,
            "average": self._average,
            "logits": [logits.tolist() for logits in self.logits],
            "squares": [squares.tolist() for squares in self._squares],
        }

    def _load_own_state(self, state: dict[str, Any]) -> None:
        counts = [len(logits) for logits in state["logits"]]
        if tuple(counts) != self.space.option_counts or not math.isfinite(state["average"]):
            raise UsageError("the saved search is of a space with other options")
        self.step = int(state["step"])
        self.strength = float(state["strength"])
        self._average = float(state["average"])
        self.logits = [np.array(logits, dtype=np.float64) for logits in state["logits"]]
        self._squares = [np.array(squares, dtype=np.float64) for squares in state["squares"]]


def _softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    exponentials = np.exp(logits - logits.max())
    result: NDArray[np.float64] = exponentials / exponentials.sum()
    return result
