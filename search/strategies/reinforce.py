"""TuNAS's REINFORCE search (Bender et al. 2020): a factorised policy, trained by its rewards."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...devices.errors import UsageError
from ..space import Architecture, SearchSpace
from .policy import Policy
from .reward import RewardKind, holding_strength
from .rewarded import RewardedStrategy
from .strategy import Evaluation

CHECKS = 20
"""How often a search looks whether its reward holds the target: after each 5 % of its steps."""

LEFT_OFF = 0.0025
"""By how much less reward than the largest an adapted search is expected to end: a share of 1."""

WARNED_BEYOND = 0.01
"""Share of the target by which the reward's maximum may miss it without a warning."""


class Reinforce(RewardedStrategy):
    """Samples every choice from its own softmax, and raises what was rewarded above average.

    A step asks for `per_step` architectures; when all are told about, the `Policy` is updated once
    with their mean gradient, summed over active choices. It rests for the first `delay` of the
    `steps`.

    3e-4 is the paper's base rate for its batch of 128, to be scaled with the batch and, as one
    step moves a logit by about the rate, to be raised where there are few steps.

    Where many are evaluated in a step, `best_share` lets it learn from the best of them alone: see
    `Policy`. TuNAS learns from all.

    `hold_within` adapts the strength b of the absolute reward, so that its maximum misses the
    target by at most this share: once the policy's delay is over, and after each 5 % of the steps
    from then on, |b| is raised to the least that does so among all that was evaluated
    (`holding_strength`), and .0025 / `hold_within` more: a search that ends with that much less
    than the largest reward is to miss no farther. |b| never falls: more evaluations find more of
    the front. The baseline is recomputed as if b had always been that.

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
        best_share: float = 1.0,
        hold_within: float | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(
            space,
            target_ms,
            steps=steps,
            per_step=per_step,
            reward=reward,
            strength=strength,
            seed=seed,
        )
        if hold_within is not None and not (reward == "absolute" and 0 < hold_within < 1):
            raise UsageError(
                "the absolute reward can hold a target, within a share between 0 and 1; "
                f"{hold_within} of the {reward} reward was asked for"
            )
        self.hold_within = hold_within
        self.policy: Policy = Policy(
            space.option_counts, learning_rate=learning_rate, delay=delay, best_share=best_share
        )

    @property
    def logits(self) -> list[NDArray[np.float64]]:
        """The policy's, for each choice."""
        return self.policy.logits

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
        """What is wrong with the reward, judged by all evaluations; None before the delay is over.

        The absolute reward holds the search at its target only while |b| exceeds the slope of the
        front there.
        """
        if self.reward != "absolute" or self.step <= self.policy.delay * self.steps:
            return None
        within = self.hold_within or WARNED_BEYOND
        nearest = min(abs(item.latency_ms / self.target_ms - 1) for item in self.evaluations)
        if nearest > within:
            return (
                f"no evaluated architecture is within {within:.3g} of {self.target_ms:g} ms: the "
                f"nearest one misses it by {nearest:.3g}. Choose another target."
            )
        least = self._holding(within)
        if least <= -self.strength:
            return None
        return (
            f"accuracy rises by {least:.3g} for each target's worth of latency, more than the "
            f"reward's strength of {-self.strength:g} takes away: the search may miss "
            f"{self.target_ms:g} ms by more than {within:.3g}. Use a strength below {-least:.3g}, "
            "or let it adapt."
        )

    def change_strength(self, strength: float) -> None:
        """Use another b from now on; the baseline is recomputed from all earlier evaluations."""
        self.strength = strength
        self.policy.average = 0.0
        rewards = self._rewards(self.evaluations[: self.step * self.per_step])
        for mean in rewards.reshape(self.step, self.per_step).mean(axis=1).tolist():
            self.policy.follow(mean)

    def _holding(self, within: float) -> float:
        return holding_strength(
            [item.accuracy for item in self.evaluations],
            [item.latency_ms for item in self.evaluations],
            self.target_ms,
            within,
        )

    def _adapt(self) -> None:
        """Raise |b| where the target can't hold."""
        every = max(1, self.steps // CHECKS)
        if self.hold_within is None or self.step % every or self.rate() == 0:
            return
        wanted = self._holding(self.hold_within) + LEFT_OFF / self.hold_within
        if wanted > -self.strength:
            self.change_strength(-wanted)

    def _learn(self, told: list[Evaluation]) -> None:
        super()._learn(told)
        batch = self.evaluations[self.step * self.per_step :]
        if len(batch) == self.per_step:
            sampled = [item.choices for item in batch]
            active = [self.space.active(choices) for choices in sampled]
            self.policy.update(sampled, active, self._rewards(batch), self.step / self.steps)
            self._adapt()

    def _own_state(self) -> dict[str, Any]:
        return {"strength": self.strength, **self.policy.state()}

    def _load_own_state(self, state: dict[str, Any]) -> None:
        self.policy.load_state(state)
        self.strength = float(state["strength"])
