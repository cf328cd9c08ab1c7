"""The sandwich rule with in-place distillation (BigNAS, Yu et al. 2020, section 3.2).

Each step trains the largest child with the labels, then the smallest and some random ones with
the largest child's outputs as soft labels. Their gradients are summed. Dropout and weight decay
are the largest child's alone: decay stands in its loss, for an optimiser's would reach all.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional

from ...latency.network import block_graph
from ...latency.ops import multiply_adds
from ...latency.pricing import cost_model
from ..learning import learn
from ..loading import Batch, in_full
from ..space import Architecture, SearchSpace
from ..supernet import Supernet


@dataclass(slots=True)
class Sandwich:
    """Trains the largest, the smallest and `random_children` random children a step.

    Without `distils` all learn from the labels. The optimiser's own weight decay must be 0.
    """

    supernet: Supernet
    random_children: int = 2
    dropout: float = 0.2
    weight_decay: float = 1e-5
    distils: bool = True
    _largest: Architecture = field(init=False)
    _smallest: Architecture = field(init=False)

    def __post_init__(self) -> None:
        self._smallest, self._largest = extremes(self.supernet.space)

    def __call__(self, batch: Batch) -> float:
        """Learn from a batch; returns the largest child's cross entropy."""
        supernet = self.supernet
        logits = supernet(batch.inputs, self._largest, dropout=self.dropout)
        loss = batch.loss(logits)
        learn(loss + self.weight_decay / 2 * self._squares())
        teacher = logits.detach()
        random = [supernet.space.sample(batch.random) for _ in range(self.random_children)]
        for child in (self._smallest, *random):
            outputs = supernet(batch.inputs, child)
            learn(soft_cross_entropy(outputs, teacher) if self.distils else batch.loss(outputs))
        return loss.item()

    def _squares(self) -> Tensor:
        """Sum of squares of all weights, biases and batch norms left out."""
        weights = [weight for weight in self.supernet.parameters() if weight.ndim > 1]
        return torch.stack([weight.square().sum() for weight in weights]).sum()


def extremes(space: SearchSpace) -> tuple[Architecture, Architecture]:
    """The architectures with the fewest and the most multiply-adds."""
    cost = cost_model(space, lambda block: float(multiply_adds(block_graph(block))))
    (_, fewest), (_, most) = cost.minimum(), cost.maximum()
    return space.architecture(fewest), space.architecture(most)


def soft_cross_entropy(logits: Tensor, teacher: Tensor) -> Tensor:
    """Cross entropy of logits (N, classes) with the teacher's probabilities as labels."""
    return functional.cross_entropy(in_full(logits), in_full(teacher).softmax(1))
