"""A factorised policy and how rewards move it (TuNAS, Bender et al. 2020, sections 3 and 4)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ...devices.errors import UsageError

BASELINE_MOMENTUM = 0.95
ADAM_DECAY = 0.999
ADAM_EPSILON = 1e-8


class Policy:
    """A softmax over the options of every choice, each drawn on its own.

    Logits start at 0 and follow the gradient of `-(reward - baseline) * log p`. The baseline is a
    bias-corrected moving average (momentum .95) that takes in a step's mean reward before it is
    subtracted. Adam has beta1 = 0, beta2 = .999, and there is no entropy bonus. The rate is 0 for
    the first `delay` of a search, then `learning_rate * 10^x`, x going from 0 to 1 over the rest.
    Raises `UsageError` where the delay is no share of the search.
    """

    def __init__(
        self, option_counts: Sequence[int], *, learning_rate: float = 3e-4, delay: float = 0.25
    ) -> None:
        if not 0 <= delay < 1:
            raise UsageError(f"the policy's delay is a share of the steps, not {delay}")
        self.option_counts = tuple(option_counts)
        self.learning_rate = learning_rate
        self.delay = delay
        self.step = 0
        self.average = 0.0
        self.logits = [np.zeros(count) for count in self.option_counts]
        self._squares = [np.zeros(count) for count in self.option_counts]

    def probabilities(self) -> list[NDArray[np.float64]]:
        """For each choice the probability of every option."""
        return [_softmax(logits) for logits in self.logits]

    def entropy(self) -> float:
        """Of one draw, in nats: the sum over all choices, those that others switch off included."""
        return float(sum(-(p * np.log(np.maximum(p, 1e-300))).sum() for p in self.probabilities()))

    def mode(self) -> tuple[int, ...]:
        """The most probable option of every choice."""
        return tuple(int(logits.argmax()) for logits in self.logits)

    def sample(self, count: int, random: np.random.Generator) -> list[tuple[int, ...]]:
        """`count` rows of option indices."""
        cumulative = [np.cumsum(vector) for vector in self.probabilities()]
        drawn = random.random((count, len(cumulative)))
        return [
            tuple(
                min(int(np.searchsorted(sums, value * sums[-1], side="right")), len(sums) - 1)
                for sums, value in zip(cumulative, row, strict=True)
            )
            for row in drawn
        ]

    def rate(self, progress: float) -> float:
        """Learning rate of an update after this share of all steps."""
        if progress < self.delay:
            return 0.0
        return float(self.learning_rate * 10 ** ((progress - self.delay) / (1 - self.delay)))

    def update(
        self,
        sampled: Sequence[Sequence[int]],
        counted: ArrayLike,
        rewards: NDArray[np.float64],
        progress: float,
    ) -> None:
        """Make one step by the `sampled` rows and their rewards (N,), as `gradients` has them."""
        self.follow(float(rewards.mean()))
        self.step += 1
        baseline = self.average / (1 - BASELINE_MOMENTUM**self.step)
        rate = self.rate(progress)
        gradients = self.gradients(sampled, counted, rewards - baseline)
        for logits, squares, gradient in zip(self.logits, self._squares, gradients, strict=True):
            squares += (1 - ADAM_DECAY) * (gradient**2 - squares)
            size = np.sqrt(squares / (1 - ADAM_DECAY**self.step)) + ADAM_EPSILON
            logits -= rate * gradient / size

    def gradients(
        self, sampled: Sequence[Sequence[int]], counted: ArrayLike, advantages: NDArray[np.float64]
    ) -> list[NDArray[np.float64]]:
        """Mean gradient of `-advantage * log p` by the logits of each choice.

        `log p` of a row sums over the choices that are `counted` (N, L): those that are on and
        that nothing but the policy decided.
        """
        weights = advantages[:, None] * np.asarray(counted, dtype=bool)
        gradients = []
        for position, probability in enumerate(self.probabilities()):
            drawn = np.eye(len(probability))[[row[position] for row in sampled]]
            gradients.append(-(weights[:, position, None] * (drawn - probability)).mean(axis=0))
        return gradients

    def follow(self, reward: float) -> None:
        """Take a step's mean reward into the baseline's average."""
        self.average += (1 - BASELINE_MOMENTUM) * (reward - self.average)

    def state(self) -> dict[str, Any]:
        """Everything that updates change, as plain JSON values."""
        return {
            "step": self.step,
            "average": self.average,
            "logits": [logits.tolist() for logits in self.logits],
            "squares": [squares.tolist() for squares in self._squares],
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Take over what `state` gave. Raises `UsageError` where it is of other choices."""
        counts = tuple(len(logits) for logits in state["logits"])
        if counts != self.option_counts or not math.isfinite(state["average"]):
            raise UsageError("the saved search is of a space with other options")
        self.step = int(state["step"])
        self.average = float(state["average"])
        self.logits = [np.array(logits, dtype=np.float64) for logits in state["logits"]]
        self._squares = [np.array(squares, dtype=np.float64) for squares in state["squares"]]


def _softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    exponentials = np.exp(logits - logits.max())
    result: NDArray[np.float64] = exponentials / exponentials.sum()
    return result
