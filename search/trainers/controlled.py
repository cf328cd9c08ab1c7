"""Weights and a recurrent controller in turns (ENAS, Pham et al. 2018, section 2.2).

For an epoch, each step trains the shared weights on an architecture that the controller samples.
Then the weights stand still, and the controller learns from what the architectures that it samples
score on validation images.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ...devices.errors import UsageError
from ...latency.cost import CostModel
from ..data import Dataset
from ..distributed import gathered
from ..learning import learn
from ..loading import Batch
from ..recalibration import SupernetEvaluator
from ..space import Architecture
from ..strategies.recurrent_policy import RecurrentPolicy
from ..strategies.reward import RewardKind
from ..strategies.strategy import Evaluation
from ..supernet import Supernet
from .rewarded import RewardedTraining


class Controlled(RewardedTraining):
    """ENAS's search: an epoch for the weights, then some steps for the controller.

    After each epoch the controller makes `controller_steps` updates, each by `per_step` sampled
    architectures. Each is scored on validation images of its own, as many as a training step has,
    with the batch's statistics. The reward joins that accuracy and the latency; the paper rewards
    accuracy alone. Of several processes each samples and scores its own architectures, and all
    update by those of all.

    At the end `derived` architectures are sampled, and the most rewarded one stands. They are
    scored on all validation images with statistics of their own, where the paper takes a batch.

    Defaults are ENAS's for cells, by released code; `controller_steps`, `per_step` and `derived`
    are recalled. Its macro space has `tanh_constant=1.5`, `learning_rate=0.001`,
    `skip_weight=0.8`, `controller_steps=50` and `per_step=20`. Arguments of the policy are
    `RecurrentPolicy`'s. Raises `UnreachableTargetError` at once where no architecture is fast
    enough.
    """

    def __init__(
        self,
        supernet: Supernet,
        data: Dataset,
        cost: CostModel,
        target_ms: float,
        *,
        reward: RewardKind = "absolute",
        strength: float = -0.10,
        controller_steps: int = 30,
        per_step: int = 10,
        derived: int = 10,
        hidden: int = 32,
        layers: int = 2,
        tanh_constant: float | None = 1.1,
        temperature: float = 1.0,
        learning_rate: float = 0.0035,
        baseline_decay: float = 0.99,
        entropy_weight: float = 1e-4,
        skip_target: float = 0.4,
        skip_weight: float = 0.0,
        seed: int = 0,
        workers: int = 1,
    ) -> None:
        super().__init__(
            supernet, data, cost, target_ms, reward=reward, strength=strength, workers=workers
        )
        if min(controller_steps, per_step, derived) < 1:
            raise UsageError(
                "a controller needs at least one step after an epoch, one architecture in each "
                f"and one in the end; not {controller_steps}, {per_step} and {derived}"
            )
        if len(data.validation) < 2:
            raise UsageError("an architecture is scored on at least two validation images")
        self.controller_steps = controller_steps
        self.per_step = per_step
        self.derived = derived
        self.seed = seed
        self.policy: RecurrentPolicy = RecurrentPolicy(
            supernet.space.choices,
            hidden=hidden,
            layers=layers,
            tanh_constant=tanh_constant,
            temperature=temperature,
            learning_rate=learning_rate,
            baseline_decay=baseline_decay,
            entropy_weight=entropy_weight,
            skip_target=skip_target,
            skip_weight=skip_weight,
            seed=seed,
        )

    def __call__(self, batch: Batch) -> float:
        """Sample an architecture, and learn from a batch; returns its loss."""
        (row,) = self.policy.sample(1, batch.own_random())
        architecture = self.supernet.space.architecture(row)
        return learn(batch.loss(self.supernet(batch.inputs, architecture)))

    def after_step(self, batch: Batch) -> None:
        """At the end of an epoch, teach the controller."""
        if not batch.ends_epoch:
            return
        random = batch.own_random()
        self.evaluations = []
        for _ in range(self.controller_steps):
            self._teach(batch, random)

    def best(self) -> Architecture:
        """The most rewarded of some architectures that are sampled now, always the same ones."""
        rows = self.policy.sample(self.derived, np.random.default_rng(self.seed))
        found = list(dict.fromkeys(map(self.supernet.space.architecture, rows)))
        evaluator = SupernetEvaluator(self.supernet, self.data, seed=self.seed)
        accuracies = [evaluator.accuracy(architecture) for architecture in found]
        rewards = self._rewards(accuracies, self._latencies_ms(found))
        return found[int(rewards.argmax())]

    def _settings(self) -> dict[str, Any]:
        policy = self.policy
        return {
            **super()._settings(),
            "controller_steps": self.controller_steps,
            "per_step": self.per_step,
            "tanh_constant": policy.controller.tanh_constant,
            "temperature": policy.controller.temperature,
            "learning_rate": policy.learning_rate,
            "baseline_decay": policy.baseline_decay,
            "entropy_weight": policy.entropy_weight,
            "skip_target": policy.skip_target,
            "skip_weight": policy.skip_weight,
        }

    def _teach(self, batch: Batch, random: np.random.Generator) -> None:
        """One step of the controller."""
        rows = self.policy.sample(self.per_step, random)
        sampled = [self.supernet.space.architecture(row) for row in rows]
        first = self.policy.step * self.per_step
        accuracies = [
            self._accuracy(
                architecture, self._scoring_batch(batch, len(batch.labels), first + number)
            )
            for number, architecture in enumerate(sampled)
        ]
        latencies_ms = self._latencies_ms(sampled)
        self.evaluations += [
            Evaluation(*values)
            for values in zip(sampled, rows, accuracies, latencies_ms, strict=True)
        ]
        rewards = self._rewards(accuracies, latencies_ms)
        own = torch.from_numpy(np.column_stack([np.array(rows, dtype=np.float64), rewards]))
        every = gathered(own.to(batch.inputs.device)).cpu().numpy()
        self.policy.update(every[:, :-1].astype(int).tolist(), every[:, -1])

    @torch.no_grad()
    def _accuracy(self, architecture: Architecture, scoring: Batch) -> float:
        logits = self.supernet(scoring.inputs, architecture)
        return float((logits.argmax(1) == scoring.labels).double().mean())
