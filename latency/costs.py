"""What architectures cost besides latency: arithmetic, parameters and memory, of float32 networks.

All but the peak of memory are sums over blocks, so that they are tables wherever latency is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from .bit_operations import bit_operations
from .cost import CostModel
from .counts import block_counts
from .network import Network, block_graph
from .onnx_model import parameter_shapes
from .ops import Flatten, OpGraph, multiply_adds
from .pricing import FunctionCost, PricedSpace, cost_model

FLOAT32_BYTES = 4


class NetworkedSpace(PricedSpace, Protocol):
    """A space that also gives the network of an architecture."""

    def architecture(self, choices: Sequence[int]) -> Any:
        """The architecture of these option indices, in canonical form."""

    def network(self, architecture: Any) -> Network:
        """The network of an architecture."""


def flops_cost(space: PricedSpace) -> CostModel:
    """FLOPs as latency/counts.py counts them: two a multiply-add, and element-wise work too."""
    return cost_model(space, lambda block: float(block_counts(block).flops), unit="FLOPs")


def multiply_adds_cost(space: PricedSpace) -> CostModel:
    """Multiply-adds of convolutions, linear layers and products: what papers call FLOPs."""
    return _over_graphs(space, multiply_adds, "multiply-adds")


def parameters_cost(space: PricedSpace) -> CostModel:
    """Weights and biases of the exported network, batch norms folded."""
    return _over_graphs(space, _parameters, "parameters")


def bit_operations_cost(space: PricedSpace) -> CostModel:
    """BitOps (SPOS, Guo et al. 2019, section 4): multiply-adds times the bits of both factors."""
    return _over_graphs(space, bit_operations, "BitOps")


def peak_memory_cost(space: NetworkedSpace) -> CostModel:
    """The most bytes of values that live at once while a network runs, as `peak_memory_bytes`.

    No sum over blocks: called for each architecture, and its minimum is one that was found.
    """
    return FunctionCost(
        space.option_counts,
        lambda row: float(peak_memory_bytes(space.network(space.architecture(row)).graph())),
        describe=space.describe,
        unit="bytes",
    )


COSTS: dict[str, Callable[[NetworkedSpace], CostModel]] = {
    "flops": flops_cost,
    "multiply_adds": multiply_adds_cost,
    "parameters": parameters_cost,
    "bit_operations": bit_operations_cost,
    "peak_memory_bytes": peak_memory_cost,
}
"""Every cost that needs no device, by name."""


def peak_memory_bytes(graph: OpGraph) -> int:
    """The most bytes of values that live at once: one image, float32, in the graph's order.

    A value, the input too, lives from the operation that makes it to the last that reads it, both
    included; the output to the end. Every operation but `Flatten`, which is a view, writes to
    memory of its own. Weights don't count, nor does what a runtime needs besides: one that
    computes in place or reorders may need less, one that copies more.
    """
    # A view lives in the memory of what it views.
    home = [0]
    for index, node in enumerate(graph.nodes):
        home.append(home[node.inputs[0]] if isinstance(node.op, Flatten) else index + 1)
    last = {home[graph.output]: len(graph.nodes)}
    for index, node in enumerate(graph.nodes):
        for value in (*node.inputs, index + 1):
            last[home[value]] = max(last.get(home[value], 0), index)
    ends: dict[int, list[int]] = {}
    for value, index in last.items():
        ends.setdefault(index, []).append(value)
    live = peak = math.prod(graph.input_shape)
    for index in range(len(graph.nodes)):
        if home[index + 1] == index + 1:
            live += math.prod(graph.shape(index + 1))
        peak = max(peak, live)
        live -= sum(math.prod(graph.shape(value)) for value in ends.get(index, ()))
    return FLOAT32_BYTES * peak


def _over_graphs(space: PricedSpace, count: Callable[[OpGraph], int], unit: str) -> CostModel:
    return cost_model(space, lambda block: float(count(block_graph(block))), unit=unit)


def _parameters(graph: OpGraph) -> int:
    """Those that counts of exported models have: clip values of quantizers are none."""
    return sum(math.prod(shape) for shape in parameter_shapes(graph).values() if shape)
