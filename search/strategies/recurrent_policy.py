"""A recurrent controller and how rewards move it: REINFORCE, and PPO, around a moving baseline."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ...devices.errors import UsageError
from ..choices import Choice
from .controller import Controller, Pulls
from .lstm import Floats

ADAM_DECAY = 0.999
ADAM_EPSILON = 1e-3
"""ENAS's, recalled: where gradients are small, steps are smaller than the rate."""

ENTROPY_ROWS = 32
"""Architectures that the policy's entropy is a mean over."""


class RecurrentPolicy:
    """REINFORCE on a `Controller` (NAS-RL, Zoph & Le 2017, section 3.2; ENAS, Pham et al. 2018).

    An update follows the mean gradient of `-(reward - baseline) * log p`, summed over the choices
    that are on, by Adam with beta1 = 0. `entropy_weight` times the entropy of a row's decisions is
    added to its reward (ENAS, released code). The baseline is a moving average that takes in an
    update's mean reward before it is subtracted, as in that code; ours is bias-corrected, so that
    it is of use from the beginning.

    With a `skip_weight`, choices between "no" and "yes" are drawn towards "yes" with probability
    `skip_target`, by their Kullback-Leibler divergence from it: a sum over the choices of a layer
    (what their names begin with), and a mean over layers. Target .4 and weight .8 are ENAS's for
    its macro space; that the mean is over layers is recalled.
    """

    def __init__(
        self,
        choices: Sequence[Choice],
        *,
        hidden: int,
        layers: int,
        tanh_constant: float | None,
        temperature: float,
        learning_rate: float,
        baseline_decay: float,
        entropy_weight: float,
        skip_target: float = 0.4,
        skip_weight: float = 0.0,
        seed: int = 0,
    ) -> None:
        if not (0 <= baseline_decay < 1 and learning_rate > 0):
            raise UsageError(
                f"a controller learns with a rate above 0 and a baseline decay from 0 to below 1, "
                f"not {learning_rate:g} and {baseline_decay:g}"
            )
        if not (0 < skip_target < 1 and skip_weight >= 0 and entropy_weight >= 0):
            raise UsageError(
                "a skip target is above 0 and below 1, and weights of skips and entropy are at "
                f"least 0; not {skip_target:g}, {skip_weight:g} and {entropy_weight:g}"
            )
        self.controller = Controller(
            choices,
            hidden=hidden,
            layers=layers,
            tanh_constant=tanh_constant,
            temperature=temperature,
            seed=seed,
        )
        self.learning_rate = learning_rate
        self.baseline_decay = baseline_decay
        self.entropy_weight = entropy_weight
        self.skip_target = skip_target
        self.skip_weight = skip_weight
        self.pulls = skip_pulls(choices, skip_target, skip_weight)
        self.step = 0
        self.average = 0.0
        self._moves = 0
        self._squares = np.zeros_like(self.controller.weights)
        self._entropy: tuple[int, float] | None = None

    @property
    def baseline(self) -> float:
        """What rewards are compared with; 0 before the first."""
        return self.average / (1 - self.baseline_decay**self.step) if self.step else 0.0

    def sample(self, count: int, random: np.random.Generator) -> list[tuple[int, ...]]:
        """`count` rows of option indices; choices that are off have option 0."""
        return self.controller.sample(count, random)

    def entropy(self) -> float:
        """In nats, of the decisions of one draw: a mean over some draws, which are always alike."""
        if self._entropy is None or self._entropy[0] != self.step:
            rows = self.sample(ENTROPY_ROWS, np.random.default_rng(0))
            self._entropy = self.step, float(self.controller.follow(rows).entropy().mean())
        return self._entropy[1]

    def update(self, sampled: Sequence[Sequence[int]], rewards: Floats) -> None:
        """Learn from rows that were sampled since the last update, and their rewards (N,)."""
        followed = self.controller.follow(sampled)
        advantages = self._advantages(rewards + self.entropy_weight * followed.entropy())
        self._move(self.controller.gradient(followed, -advantages / len(rewards), pulls=self.pulls))

    def state(self) -> dict[str, Any]:
        """Everything that updates change, as plain JSON values."""
        return {
            "step": self.step,
            "average": self.average,
            "moves": self._moves,
            "weights": self.controller.weights.tolist(),
            "squares": self._squares.tolist(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Take over what `state` gave. Raises `UsageError` where it is of another controller."""
        weights = np.array(state["weights"], dtype=np.float64)
        if weights.shape != self.controller.weights.shape or not math.isfinite(state["average"]):
            raise UsageError("the saved search is of another space, or another size of controller")
        self.step = int(state["step"])
        self.average = float(state["average"])
        self._moves = int(state["moves"])
        self.controller.weights = weights
        self._squares = np.array(state["squares"], dtype=np.float64)
        self._entropy = None

    def _advantages(self, rewards: Floats) -> Floats:
        """Take rewards into the baseline, then subtract it."""
        self.average += (1 - self.baseline_decay) * (float(rewards.mean()) - self.average)
        self.step += 1
        return rewards - self.baseline

    def _move(self, gradient: Floats) -> None:
        self._moves += 1
        self._squares += (1 - ADAM_DECAY) * (gradient**2 - self._squares)
        size = np.sqrt(self._squares / (1 - ADAM_DECAY**self._moves)) + ADAM_EPSILON
        self.controller.weights -= self.learning_rate * gradient / size


class ClippedPolicy(RecurrentPolicy):
    """PPO on a `Controller` (Schulman et al. 2017), as NASNet learns (Zoph et al. 2018).

    An update makes `passes` moves by the same rows: each raises the mean of
    `min(r * A, clip(r, 1 - c, 1 + c) * A)`, where r is how much more probable a row has become, A
    its advantage over the baseline and c the `clip`; and the mean entropy, by `entropy_weight`. A
    row counts as one action. Clip and passes are PPO's usual ones, for the paper names none.
    """

    def __init__(
        self, choices: Sequence[Choice], *, clip: float = 0.2, passes: int = 4, **settings: Any
    ) -> None:
        super().__init__(choices, **settings)
        if not 0 < clip < 1 or passes < 1:
            raise UsageError(
                f"PPO clips above 0 and below 1, in at least one pass; not at {clip:g}, in {passes}"
            )
        self.clip = clip
        self.passes = passes

    def update(self, sampled: Sequence[Sequence[int]], rewards: Floats) -> None:
        """Learn from rows that were sampled since the last update, and their rewards (N,)."""
        advantages = self._advantages(rewards)
        count = len(rewards)
        before: Floats | None = None
        for _ in range(self.passes):
            followed = self.controller.follow(sampled)
            log_probability = followed.log_probability()
            before = log_probability if before is None else before
            ratios = np.exp(log_probability - before)
            self._move(
                self.controller.gradient(
                    followed,
                    -clipped_slopes(ratios, advantages, self.clip) / count,
                    entropy=-self.entropy_weight / count,
                    pulls=self.pulls,
                )
            )


def clipped_slopes(ratios: Floats, advantages: Floats, clip: float) -> Floats:
    """Slope of PPO's objective by each row's log-probability: 0 where the ratio went far enough."""
    far = np.where(advantages > 0, ratios > 1 + clip, ratios < 1 - clip)
    return np.where(far, 0.0, ratios * advantages)


def skip_pulls(choices: Sequence[Choice], target: float, weight: float) -> Pulls:
    """Towards which shares of "no" and "yes" choices between these are drawn, and how much."""
    skips = {
        position: choice.name.partition(".")[0]
        for position, choice in enumerate(choices)
        if choice.options == ("no", "yes")
    }
    if not weight:
        return {}
    wanted = np.array([1 - target, target])
    return {position: (wanted, weight / len({*skips.values()})) for position in skips}
