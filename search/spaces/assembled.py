"""Spaces whose networks are assembled whole, from the options of all choices at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from ...devices.errors import UsageError
from ...latency.blocks import Block
from ...latency.network import INPUT, Network, NetworkNode
from ...latency.ops import Shape
from ..choices import Choice, Mirror, Option
from ..space import Architecture, SearchSpace

LISTED_NETWORKS = 64
"""Random networks whose blocks are listed, where a space has too many blocks to list them all."""

Options = Mapping[str, Option]
"""The option of each choice by the choice's name."""


class Assembly:
    """A network in the making: a block is added with the nodes that it reads."""

    def __init__(self, input_shape: Shape) -> None:
        self._input_shape = input_shape
        self._nodes: list[NetworkNode] = []

    def add(self, block: Block, *reads: int) -> int:
        """Append a block; return its node, which later ones may read."""
        self._nodes.append(NetworkNode(block, reads))
        return len(self._nodes) - 1

    def shape(self, node: int) -> Shape:
        """Shape of what a node gives, of the network's input for `INPUT`."""
        return self._input_shape if node == INPUT else self._nodes[node].block.output_shape

    def network(self) -> Network:
        """The network, whose output is the last block's."""
        return Network(self._input_shape, tuple(self._nodes))


class AssembledSpace(SearchSpace):
    """A space in which what a block reads depends on so many choices that pieces can't list it.

    A subclass gives the network in `assemble`. Its cost is called (`latency.pricing`), and its
    networks are trained one by one, as in the papers: there are no pieces whose weights could be
    shared in a supernet.
    """

    def __init__(
        self, name: str, choices: Iterable[Choice], mirrors: Iterable[Mirror] = ()
    ) -> None:
        super().__init__(name, choices, (), mirrors=mirrors)

    def assemble(self, options: Options) -> Network:
        """The network of these options."""
        raise NotImplementedError

    def network(self, architecture: Architecture) -> Network:
        """The network of an architecture."""
        self.validate(architecture)
        return self.assemble(
            {
                choice.name: choice.options[index]
                for choice, index in zip(self.choices, architecture.choices, strict=True)
            }
        )

    @property
    def image_size(self) -> int:
        """The height or width, in pixels, of the images that all its networks read."""
        first = self.architecture([0] * len(self.choices))
        return max(self.network(first).input_shape[1:])

    @property
    def is_additive(self) -> bool:
        """Never: see `SearchSpace`."""
        return False

    def blocks_of(self, choices: Sequence[int]) -> tuple[Block, ...]:
        """The blocks of the network of these choices."""
        return self.network(self.architecture(choices)).blocks

    def blocks(self) -> list[Block]:
        """The distinct blocks of some random networks, the same at every call.

        Other networks have others, which a table prices through a predictor or not at all.
        """
        random = np.random.default_rng(0)
        networks = [self.network(self.sample(random)) for _ in range(LISTED_NETWORKS)]
        return list(dict.fromkeys(block for network in networks for block in network.blocks))

    def candidates(self) -> tuple[tuple[Block, ...], ...]:
        """Raises `UsageError`: there are no pieces."""
        raise UsageError(
            f"the networks of space {self.name} are assembled whole and share no weights, so that "
            "there is no supernet of it. Train its architectures one by one."
        )
