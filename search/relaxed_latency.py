"""The latency of a relaxed supernet, differentiable in the weights (TF-NAS, Hu et al. 2020).

A layer's latency is the weighted sum of its operations', a stage's the weighted sum over its
depths of what the layers up to there take; what is fixed is added (sections 3.1 and 3.2).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from ..devices.errors import LatkitError, UsageError
from ..latency.blocks import Block
from .relaxed import RelaxedSupernet


class RelaxedLatency:
    """Milliseconds, or what `block_cost_ms` tells, of a supernet's weights; `constant` is added.

    With one-hot weights it is what `lay_out`'s cost model has for their architecture, or, where
    the supernet runs fewer middle channels, what `architecture_latency` has. Each block is priced
    once. Raises `LatkitError` naming a block whose cost is no finite number, `UsageError`
    where the blocks of fixed places depend on what is chosen, as the sums in cells do.
    """

    def __init__(
        self,
        supernet: RelaxedSupernet,
        block_cost_ms: Callable[[Block], float],
        constant: float = 0.0,
    ) -> None:
        self.supernet = supernet
        self._block_cost_ms = block_cost_ms
        self._costs: dict[Block | None, float] = {None: 0.0}
        space = supernet.space
        for index, piece in enumerate(space.pieces):
            if piece.choices and index not in supernet.mixtures:
                raise UsageError(
                    f"space {space.name}: what stands at piece {piece.name or index} depends on "
                    "the choices around it, so that latencies can't be weighted one by one"
                )
        self._constant = constant
        for index in [*supernet.fixed, *supernet.mixtures]:
            for block in supernet.blocks(index):
                self._cost(block)
        # By layer: the sink whose depths keep it, and which of them do. All keep the first ones.
        self._keeping = {
            index: (sink.name, [n for n, piece in enumerate(sink.pieces) if piece >= index])
            for end, sink in supernet.sinks.items()
            for index in range(sink.pieces[0] + 1, end + 1)
        }

    def __call__(self, weights: Mapping[str, Tensor]) -> Tensor:
        """The latency of a vector of weights for each mixture and sink, as a scalar."""
        parts = []
        for index, mixture in self.supernet.mixtures.items():
            vector = weights[mixture.name]
            costs = [self._cost(block) for block in self.supernet.blocks(index)]
            part = (vector * vector.new_tensor(costs)).sum()
            if index in self._keeping:
                sink, depths = self._keeping[index]
                part = part * weights[sink][depths].sum()
            parts.append(part)
        fixed = (self._cost(*self.supernet.blocks(index)) for index in self.supernet.fixed)
        return torch.stack(parts).sum() + self._constant + sum(fixed)

    def _cost(self, block: Block | None) -> float:
        if block is not None and block not in self._costs:
            cost = float(self._block_cost_ms(block))
            if not math.isfinite(cost):
                raise LatkitError(f"the cost of {block} is {cost}, no finite number")
            self._costs[block] = cost
        return self._costs[block]
