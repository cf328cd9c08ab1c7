"""One step of a long short-term memory, forwards and backwards, for a batch of sequences."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class LstmStep:
    """What one layer did in one step: all are (N, units), `joined` twice as wide.

    There are no biases. `joined` is the layer's input, as wide as it is, and what it gave last.
    """

    joined: Floats
    input_gate: Floats
    forget_gate: Floats
    output_gate: Floats
    candidate: Floats
    cell_before: Floats
    cell: Floats
    bounded: Floats

    @property
    def hidden(self) -> Floats:
        """What it gives."""
        return self.output_gate * self.bounded

    @classmethod
    def forward(cls, value: Floats, hidden: Floats, cell: Floats, weights: Floats) -> LstmStep:
        """The step from an input, what it gave last and its cell; weights (2 units, 4 units)."""
        joined = np.concatenate([value, hidden], axis=1)
        gates = product("nj,jg->ng", joined, weights)
        units = cell.shape[1]
        # sigmoid(x) = (1 + tanh(x / 2)) / 2 never overflows.
        opened = (1 + np.tanh(gates[:, : 3 * units] / 2)) / 2
        taken, kept, given = np.split(opened, 3, axis=1)
        candidate = np.tanh(gates[:, 3 * units :])
        after = kept * cell + taken * candidate
        before = cell.copy()
        return cls(joined, taken, kept, given, candidate, before, after, np.tanh(after))

    def backward(self, by_hidden: Floats, by_cell: Floats) -> tuple[Floats, Floats]:
        """Gradients by the gates before they are bounded (N, 4 hidden), and by the cell before."""
        by_cell = by_cell + by_hidden * self.output_gate * (1 - self.bounded**2)
        taken, kept, given = self.input_gate, self.forget_gate, self.output_gate
        by_gates = [
            by_cell * self.candidate * taken * (1 - taken),
            by_cell * self.cell_before * kept * (1 - kept),
            by_hidden * self.bounded * given * (1 - given),
            by_cell * taken * (1 - self.candidate**2),
        ]
        return np.concatenate(by_gates, axis=1), by_cell * kept


def product(subscripts: str, first: Floats, second: Floats) -> Floats:
    """`einsum` of two arrays: the same bits for any number of threads, as a BLAS's are not."""
    found: Any = np.einsum(subscripts, first, second)
    result: Floats = found
    return result
