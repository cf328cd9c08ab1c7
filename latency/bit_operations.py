"""What quantised arithmetic costs: multiply-adds weighted by the bits of their factors."""

from __future__ import annotations

import math

from .ops import FULL_PRECISION, Conv, Linear, Multiply, OpGraph, Quantise


def bit_operations(graph: OpGraph) -> int:
    """BitOps: each multiply-add times the bits of its weight and of the value it reads.

    A convolution reads as many bits as the `Quantise` before it leaves; all that is not quantised
    counts as 32 bits, linear layers among it, so that a float network has 1024 times its
    multiply-adds (Single Path One-Shot, Guo et al. 2019, section 4).
    """
    total = 0
    for node in graph.nodes:
        match node.op:
            case Conv() as op:
                work = math.prod(op.weight_shape) * math.prod(node.shape[1:])
                total += work * op.weight_bits * _bits(graph, node.inputs[0])
            case Linear() as op:
                total += op.in_features * op.out_features * FULL_PRECISION**2
            case Multiply():
                total += math.prod(node.shape) * FULL_PRECISION**2
            case _:
                pass
    return total


def _bits(graph: OpGraph, value: int) -> int:
    """Bits of a value of the graph."""
    made_by = graph.nodes[value - 1].op if value else None
    return made_by.bits if isinstance(made_by, Quantise) else FULL_PRECISION
