"""A network: a small graph of blocks, a chain being the simple case."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from ..devices.errors import UsageError
from .blocks import Block
from .ops import OpGraph, Shape, graph_reading

INPUT = -1
"""In `NetworkNode.inputs`: the network's input rather than another node's output."""


@dataclass(frozen=True, slots=True)
class NetworkNode:
    """A block and the nodes whose outputs it reads."""

    block: Block
    inputs: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Network:
    """Blocks in the order they run, each reading earlier ones; the last one is the output.

    Raises `UsageError` where a block reads a node that does not precede it, or a shape that is
    not its own.
    """

    input_shape: Shape
    nodes: tuple[NetworkNode, ...]

    def __post_init__(self) -> None:
        if not self.nodes:
            raise UsageError("a network needs at least one block")
        for index, node in enumerate(self.nodes):
            if any(not INPUT <= source < index for source in node.inputs):
                raise UsageError(f"node {index} of the network reads {node.inputs}, not yet run")
            given = tuple(self.shape(source) for source in node.inputs)
            if given != node.block.input_shapes:
                raise UsageError(f"node {index}, {node.block}, is given values of shapes {given}")

    @classmethod
    def chain(cls, blocks: Iterable[Block]) -> Network:
        """The network that runs `blocks` one after the other."""
        listed = tuple(blocks)
        if not listed:
            raise UsageError("a network needs at least one block")
        nodes = tuple(NetworkNode(block, (index - 1,)) for index, block in enumerate(listed))
        return cls(listed[0].input_shapes[0], nodes)

    def shape(self, node: int) -> Shape:
        """Shape that a node gives, without the batch; of the input for `INPUT`."""
        return self.input_shape if node == INPUT else self.nodes[node].block.output_shape

    @property
    def blocks(self) -> tuple[Block, ...]:
        """The blocks, in the order they run."""
        return tuple(node.block for node in self.nodes)

    @property
    def output_shape(self) -> Shape:
        """Shape of the output, without the batch."""
        return self.nodes[-1].block.output_shape

    @property
    def key(self) -> str:
        """Identity of the network, equal exactly for equal networks: a short sha256."""
        text = "; ".join(f"{node.inputs} {node.block.key}" for node in self.nodes)
        return f"network:{hashlib.sha256(text.encode()).hexdigest()[:32]}"

    def graph(self) -> OpGraph:
        """The operations of all blocks; parameters of node i are named `i.` and their own name."""
        graph = OpGraph(self.input_shape)
        values: list[int] = []
        for index, node in enumerate(self.nodes):
            inputs = [0 if source == INPUT else values[source] for source in node.inputs]
            values.append(node.block.write(graph, *inputs, prefix=f"{index}."))
        return graph


def block_graph(block: Block) -> OpGraph:
    """The operations of one block. Its inputs of one shape are one input of the graph."""
    graph, values = graph_reading(block.input_shapes)
    block.write(graph, *values)
    return graph
