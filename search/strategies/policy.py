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

    With a `best_share` below 1 a step learns from this share of its rows alone, the best ones: the
    best reward of the others takes the baseline's place. The policy then moves to where its best
    draws are good instead of all (risk-seeking policy gradient, Petersen et al. 2021, recalled).

    Raises `UsageError` where the delay is no share of the search, or the share of a step is none.
    """

    def __init__(
        self,
        option_counts: Sequence[int],
        *,
        learning_rate: float = 3e-4,
        delay: float = 0.25,
        best_share: float = 1.0,
    ) -> None:
        if not 0 <= delay < 1:
            raise UsageError(f"the policy's delay is a share of the steps, not {delay}")
        if not 0 < best_share <= 1:
            raise UsageError(f"the best share of a step is above 0 and at most 1, not {best_share}")
        self.option_counts = tuple(option_counts)
        self.learning_rate = learning_rate
        self.delay = delay
        self.best_share = best_share
        self.step = 0
        self.average = 0.0
        # One row for each choice; where it has fewer options than others, -inf: never drawn.
        self._counts = np.array(self.option_counts, dtype=np.intp)
        self._options = np.arange(max(self.option_counts, default=0))
        self._rows = np.where(self._options < self._counts[:, None], 0.0, -np.inf)
        self._squares = np.zeros_like(self._rows)

    @property
    def logits(self) -> list[NDArray[np.float64]]:
        """For each choice those of its options."""
        return self._by_choice(self._rows)

    def probabilities(self) -> list[NDArray[np.float64]]:
        """For each choice the probability of every option."""
        return self._by_choice(self._softmax())

    def entropy(self) -> float:
        """Of one draw, in nats: the sum over all choices, those that others switch off included."""
        probabilities = self._softmax()
        return float(-(probabilities * np.log(np.maximum(probabilities, 1e-300))).sum())

    def mode(self) -> tuple[int, ...]:
        """The most probable option of every choice."""
        return tuple(self._rows.argmax(axis=1).tolist())

    def sample(self, count: int, random: np.random.Generator) -> list[tuple[int, ...]]:
        """`count` rows of option indices."""
        cumulative = self._softmax().cumsum(axis=1)
        drawn = random.random((count, len(cumulative))) * cumulative[:, -1]
        chosen = (cumulative <= drawn[:, :, None]).sum(axis=2)
        return [tuple(row) for row in np.minimum(chosen, self._counts - 1).tolist()]

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
        gradient = self._gradient(sampled, counted, self._advantages(rewards))
        self._squares += (1 - ADAM_DECAY) * (gradient**2 - self._squares)
        size = np.sqrt(self._squares / (1 - ADAM_DECAY**self.step)) + ADAM_EPSILON
        self._rows -= self.rate(progress) * gradient / size

    def gradients(
        self, sampled: Sequence[Sequence[int]], counted: ArrayLike, advantages: NDArray[np.float64]
    ) -> list[NDArray[np.float64]]:
        """Mean gradient of `-advantage * log p` by the logits of each choice.

        `log p` of a row sums over the choices that are `counted` (N, L): those that are on and
        that nothing but the policy decided.
        """
        return self._by_choice(self._gradient(sampled, counted, advantages))

    def follow(self, reward: float) -> None:
        """Take a step's mean reward into the baseline's average."""
        self.average += (1 - BASELINE_MOMENTUM) * (reward - self.average)

    def state(self) -> dict[str, Any]:
        """Everything that updates change, as plain JSON values."""
        return {
            "step": self.step,
            "average": self.average,
            "logits": [logits.tolist() for logits in self.logits],
            "squares": [squares.tolist() for squares in self._by_choice(self._squares)],
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Take over what `state` gave. Raises `UsageError` where it is of other choices."""
        counts = tuple(len(logits) for logits in state["logits"])
        if counts != self.option_counts or not math.isfinite(state["average"]):
            raise UsageError("the saved search is of a space with other options")
        self.step = int(state["step"])
        self.average = float(state["average"])
        for position, count in enumerate(counts):
            self._rows[position, :count] = state["logits"][position]
            self._squares[position, :count] = state["squares"][position]

    def _advantages(self, rewards: NDArray[np.float64]) -> NDArray[np.float64]:
        """By how much each reward is above the baseline, or above those that don't count."""
        if self.best_share == 1:
            return rewards - self.average / (1 - BASELINE_MOMENTUM**self.step)
        left_out = min(math.floor((1 - self.best_share) * len(rewards)), len(rewards) - 1)
        if left_out == 0:
            raise UsageError(
                f"a share of {self.best_share:g} of {len(rewards)} architectures a step is all of "
                "them: take more in a step, or a smaller share"
            )
        threshold = float(np.partition(rewards, left_out - 1)[left_out - 1])
        advantages: NDArray[np.float64] = np.maximum(rewards - threshold, 0.0)
        return advantages

    def _gradient(
        self, sampled: Sequence[Sequence[int]], counted: ArrayLike, advantages: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """`gradients` with a row for each choice, 0 where it has no such option."""
        weights = advantages[:, None] * np.asarray(counted, dtype=bool)
        drawn = np.asarray(sampled)[:, :, None] == self._options
        moved = np.einsum("nl,nlk->lk", weights, drawn)
        expected = weights.sum(axis=0)[:, None] * self._softmax()
        return np.asarray((expected - moved) / len(weights), dtype=np.float64)

    def _by_choice(self, rows: NDArray[np.float64]) -> list[NDArray[np.float64]]:
        return [row[:count] for row, count in zip(rows, self.option_counts, strict=True)]

    def _softmax(self) -> NDArray[np.float64]:
        exponentials = np.exp(self._rows - self._rows.max(axis=1, keepdims=True))
        result: NDArray[np.float64] = exponentials / exponentials.sum(axis=1, keepdims=True)
        return result
