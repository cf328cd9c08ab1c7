"""Searches by a recurrent controller: NAS-RL's and ENAS's REINFORCE, and NASNet's PPO."""

from __future__ import annotations

from typing import Any

from ...devices.errors import UsageError
from ..space import Architecture, SearchSpace
from .recurrent_policy import ClippedPolicy, RecurrentPolicy
from .reward import RewardKind
from .rewarded import RewardedStrategy
from .strategy import Evaluation


class RecurrentStrategy(RewardedStrategy):
    """What both searches have: a step asks for `per_step` architectures, then moves the policy.

    The reward joins accuracy and latency as TuNAS's or MnasNet's does; the papers reward accuracy
    alone. `choices` of an evaluation are what was sampled; its architecture is their canonical
    form. Architectures may be asked for again.
    """

    policy: RecurrentPolicy

    def best(self) -> Architecture:
        """The most rewarded architecture that was evaluated; of equal ones the fastest.

        As NAS-RL and NASNet end (they then train the best few for longer), and unlike `Reinforce`:
        the most probable sequence need never have been evaluated.
        """
        if not self.evaluations:
            raise UsageError("no architecture was evaluated yet")
        rewards = self._rewards(self.evaluations).tolist()
        ranked = zip(rewards, self.evaluations, strict=True)
        return min(ranked, key=lambda pair: (-pair[0], pair[1].latency_ms, pair[1].choices))[
            1
        ].architecture

    def figures(self) -> dict[str, float]:
        """The policy's entropy in nats, estimated, and the strength b of the reward."""
        return {"policy_entropy": self.policy.entropy(), "strength": self.strength}

    def _learn(self, told: list[Evaluation]) -> None:
        super()._learn(told)
        batch = self.evaluations[self.step * self.per_step :]
        if len(batch) == self.per_step:
            self.policy.update([item.choices for item in batch], self._rewards(batch))

    def _own_state(self) -> dict[str, Any]:
        return self.policy.state()

    def _load_own_state(self, state: dict[str, Any]) -> None:
        self.policy.load_state(state)


class LstmReinforce(RecurrentStrategy):
    """REINFORCE on an LSTM (NAS-RL, Zoph & Le 2017; ENAS, Pham et al. 2018).

    Defaults are those of ENAS's released code for cells; its macro space has `tanh_constant=1.5`
    and `learning_rate=0.001`. NAS-RL's are with its recipe. Arguments of the policy are
    `RecurrentPolicy`'s.
    """

    name = "lstm_reinforce"

    def __init__(
        self,
        space: SearchSpace,
        target_ms: float,
        *,
        steps: int,
        per_step: int = 1,
        reward: RewardKind = "absolute",
        strength: float = -0.10,
        hidden: int = 32,
        layers: int = 2,
        tanh_constant: float | None = 1.1,
        temperature: float = 1.0,
        learning_rate: float = 0.0035,
        baseline_decay: float = 0.99,
        entropy_weight: float = 1e-4,
        seed: int = 0,
    ) -> None:
        self.hidden = hidden
        self.layers = layers
        self.tanh_constant = tanh_constant
        self.temperature = temperature
        self.learning_rate = learning_rate
        self.baseline_decay = baseline_decay
        self.entropy_weight = entropy_weight
        self.policy = RecurrentPolicy(
            space.choices,
            hidden=hidden,
            layers=layers,
            tanh_constant=tanh_constant,
            temperature=temperature,
            learning_rate=learning_rate,
            baseline_decay=baseline_decay,
            entropy_weight=entropy_weight,
            seed=seed,
        )
        super().__init__(
            space,
            target_ms,
            steps=steps,
            per_step=per_step,
            reward=reward,
            strength=strength,
            seed=seed,
        )


class LstmPpo(RecurrentStrategy):
    """PPO on an LSTM (NASNet, Zoph et al. 2018, section 3 and appendix).

    Recalled, not checked: one layer of 100 units, rate 3.5e-4, entropy weight 1e-5, baseline decay
    .95, and 20 architectures a step. Arguments of the policy are `ClippedPolicy`'s.
    """

    name = "lstm_ppo"

    def __init__(
        self,
        space: SearchSpace,
        target_ms: float,
        *,
        steps: int,
        per_step: int = 20,
        reward: RewardKind = "absolute",
        strength: float = -0.10,
        hidden: int = 100,
        layers: int = 1,
        tanh_constant: float | None = None,
        temperature: float = 1.0,
        learning_rate: float = 3.5e-4,
        baseline_decay: float = 0.95,
        entropy_weight: float = 1e-5,
        clip: float = 0.2,
        passes: int = 4,
        seed: int = 0,
    ) -> None:
        self.hidden = hidden
        self.layers = layers
        self.tanh_constant = tanh_constant
        self.temperature = temperature
        self.learning_rate = learning_rate
        self.baseline_decay = baseline_decay
        self.entropy_weight = entropy_weight
        self.clip = clip
        self.passes = passes
        self.policy = ClippedPolicy(
            space.choices,
            hidden=hidden,
            layers=layers,
            tanh_constant=tanh_constant,
            temperature=temperature,
            learning_rate=learning_rate,
            baseline_decay=baseline_decay,
            entropy_weight=entropy_weight,
            clip=clip,
            passes=passes,
            seed=seed,
        )
        super().__init__(
            space,
            target_ms,
            steps=steps,
            per_step=per_step,
            reward=reward,
            strength=strength,
            seed=seed,
        )
