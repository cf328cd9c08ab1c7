"""What blocks cost: multiply-adds, or their latency by a table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from latkit.latency.blocks import Block
from latkit.latency.cost import CostModel, lay_out
from latkit.latency.network import block_graph
from latkit.latency.ops import multiply_adds
from latkit.latency.table import LatencyTable
from latkit.search.space import SearchSpace


@dataclass(frozen=True, slots=True)
class BlockCosts:
    """An architecture costs `constant`, and what each of its blocks does."""

    block_cost: Callable[[Block], float]
    constant: float = 0.0

    @classmethod
    def by_table(cls, file: Path) -> BlockCosts:
        """The latencies, in milliseconds, of a table that `latkit table` wrote."""
        table = LatencyTable.load(file)
        return cls(table.block_cost_ms, table.calibration.constant_ms)

    def of(self, space: SearchSpace) -> CostModel:
        """The costs of a space's architectures."""
        return lay_out(space, self.block_cost, self.constant)


def block_multiply_adds(block: Block) -> float:
    """Multiply-adds of a block, for one image."""
    return float(multiply_adds(block_graph(block)))


MULTIPLY_ADDS = BlockCosts(block_multiply_adds)
