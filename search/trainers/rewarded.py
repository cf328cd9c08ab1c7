"""What trainers have in common that teach a policy by accuracy and latency while weights learn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Protocol

from ...devices.errors import UsageError
from ...latency.cost import CostModel
from ..data import Dataset
from ..loading import Ahead, Batch, ValidationLoader
from ..space import Architecture
from ..strategies.lstm import Floats
from ..strategies.reward import RewardKind, reward_of
from ..strategies.strategy import Evaluation
from ..supernet import Supernet


class Taught(Protocol):
    """A policy, as far as saving it goes."""

    def state(self) -> dict[str, Any]:
        """Everything that updates change, as plain JSON values."""

    def load_state(self, state: dict[str, Any]) -> None:
        """Take over what `state` gave."""


class RewardedTraining:
    """Scores sampled architectures on validation images, and rewards accuracy and latency.

    `evaluations` holds what the architectures of the last update, as sampled, were found to be
    worth. Raises `UnreachableTargetError` at once where no architecture is fast enough.
    """

    own_statistics: ClassVar[bool] = True
    """Processes train different architectures, whose statistics have nothing in common."""

    policy: Taught

    def __init__(
        self,
        supernet: Supernet,
        data: Dataset,
        cost: CostModel,
        target_ms: float,
        *,
        reward: RewardKind,
        strength: float,
        workers: int,
    ) -> None:
        cost.require_reachable(target_ms)
        reward_of(reward, [], [], target_ms, strength)
        self.supernet = supernet
        self.data = data
        self.cost = cost
        self.target_ms = target_ms
        self.reward: RewardKind = reward
        self.strength = strength
        self.workers = workers
        self.evaluations: list[Evaluation] = []
        self._scoring: tuple[ValidationLoader, Ahead] | None = None

    def state_dict(self) -> dict[str, Any]:
        """The policy, and the settings that it is learned under."""
        return {"settings": self._settings(), "policy": self.policy.state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take a state that `state_dict` gave; `UsageError` where it is of other settings."""
        own, found = self._settings(), state["settings"]
        differing = [name for name in own if own[name] != found.get(name)]
        if differing:
            raise UsageError(
                f"the saved search has another {', '.join(differing)}. Delete its checkpoint, or "
                "choose another place for this one."
            )
        self.policy.load_state(state["policy"])

    def _settings(self) -> dict[str, Any]:
        """All that the policy is learned under."""
        return {"target": self.target_ms, "reward": self.reward, "strength": self.strength}

    def _scoring_batch(self, batch: Batch, size: int, number: int) -> Batch:
        """Validation images for scoring number `number`; those of the next are read meanwhile."""
        loader = ValidationLoader(self.data, size, batch.seed, self.workers)
        if self._scoring is None or self._scoring[0] != loader:
            self._scoring = loader, Ahead(loader)
        return self._scoring[1].batch(number).to(batch.inputs)

    def _latencies_ms(self, architectures: Sequence[Architecture]) -> list[float]:
        encoded = self.supernet.space.encode(architectures)
        return [float(value) for value in self.cost.latency_ms(encoded)]

    def _rewards(self, accuracies: Sequence[float], latencies_ms: Sequence[float]) -> Floats:
        return reward_of(self.reward, accuracies, latencies_ms, self.target_ms, self.strength)
