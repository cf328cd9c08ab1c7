"""Search spaces: choices, canonical architectures, and the networks that they stand for.

A space of one's own is a `SearchSpace` made of its choices and of pieces, each of which builds
one block from the options chosen for it; `spaces/` has examples.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..devices.errors import UsageError
from ..latency.blocks import Block, MBConv
from ..latency.cost import BlockFactor
from ..latency.network import INPUT as INPUT_NODE
from ..latency.network import Network, NetworkNode
from ..latency.ops import Shape
from .choices import Choice, ChoiceRules

INPUT = "input"
"""In `Piece.reads`: the network's input."""

Encoded = NDArray[np.integer[Any]]
"""(N, L) option indices, a row for each architecture."""


@dataclass(frozen=True, slots=True)
class Piece:
    """One place in the network.

    `build` is called with the options of `choices`, in that order, and returns the block or
    `None` where it is left out; a choice that is off comes with its first option. A piece with a
    conditional choice must name the choices that switch it on too. A piece with a `stage` is a
    layer of that stage: the middle channels of its MBConv may be scaled.

    A piece reads the one before it, or those that `reads` names: by their `name`, or `INPUT` for
    the network's input. A piece that is left out hands on the one value that it would read; as an
    `edge` of a cell it hands on nothing, and whoever reads it reads the others alone.
    """

    choices: tuple[str, ...]
    build: Callable[..., Block | None]
    stage: int | None = None
    name: str = ""
    reads: tuple[str, ...] = ()
    edge: bool = False


@dataclass(frozen=True, slots=True)
class Architecture:
    """Option indices in canonical form, and the middle channels of each layer where scaled.

    `expanded_channels` has an entry for each layer of the space, 0 where the layer is skipped or
    no MBConv; `None`: as the options say.
    """

    choices: tuple[int, ...]
    expanded_channels: tuple[int, ...] | None = None

    @property
    def key(self) -> str:
        """The architecture as text, equal exactly for equal architectures."""
        text = ".".join(map(str, self.choices))
        if self.expanded_channels is None:
            return text
        return f"{text}|{'.'.join(map(str, self.expanded_channels))}"

    def __str__(self) -> str:
        return self.key

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values that `from_json` reads."""
        widths = self.expanded_channels
        return {
            "choices": list(self.choices),
            "expanded_channels": None if widths is None else list(widths),
        }

    @classmethod
    def from_json(cls, data: Any) -> Architecture:
        """The architecture that `to_json` wrote. Raises `UsageError` where it is none."""
        if not isinstance(data, dict) or "choices" not in data:
            raise UsageError(f"an architecture is written as an object with choices, not {data!r}")
        widths = data.get("expanded_channels")
        choices = _integers(data["choices"], "choices")
        return cls(choices, None if widths is None else _integers(widths, "expanded_channels"))


class SearchSpace:
    """Choices, and the pieces that they decide: a chain, or a graph whose last piece is the output.

    `runs` name the choices of layers that follow each other and do not change shape: which of
    them are skipped makes no difference, so that the canonical form has the skips at the end.
    They must share their options and have no `when`.
    """

    def __init__(
        self,
        name: str,
        choices: Iterable[Choice],
        pieces: Iterable[Piece],
        runs: Iterable[tuple[str, ...]] = (),
    ) -> None:
        self.name = name
        self.choices = tuple(choices)
        self.pieces = tuple(pieces)
        self._rules = ChoiceRules(name, self.choices, runs)
        self._piece_positions = tuple(
            tuple(self.position(choice) for choice in piece.choices) for piece in self.pieces
        )
        for piece in self.pieces:
            self._check_piece(piece)
        self.sources = self._all_sources()
        self._layers = tuple(
            index for index, piece in enumerate(self.pieces) if piece.stage is not None
        )
        self._factors: tuple[BlockFactor, ...] | None = None

    # --- choices -----------------------------------------------------------------------------

    def position(self, name: str) -> int:
        """Index of the choice called `name`."""
        return self._rules.position(name)

    @property
    def option_counts(self) -> tuple[int, ...]:
        """Number of options of each choice."""
        return self._rules.option_counts

    def size(self) -> int:
        """Number of canonical architectures, exactly (widths not counted)."""
        return self._rules.count()

    def active(self, choices: Sequence[int]) -> tuple[bool, ...]:
        """Which choices are switched on in an architecture."""
        return self._rules.active(choices)

    def canonical(self, choices: Sequence[int]) -> tuple[int, ...]:
        """The one form that stands for all choices giving the same network.

        Raises `UsageError` naming the choice that has no such option.
        """
        return self._rules.canonical(choices)

    def origins(self, choices: Sequence[int]) -> tuple[int, ...]:
        """For each position of the canonical form, the one whose choice has moved there."""
        return self._rules.origins(choices)

    def architecture(self, choices: Sequence[int]) -> Architecture:
        """The canonical architecture of these choices."""
        return Architecture(self.canonical(choices))

    def sample(self, random: np.random.Generator) -> Architecture:
        """An architecture with every choice drawn uniformly from its options, made canonical."""
        return self.architecture(self.sample_choices(1, random)[0])

    def sample_choices(self, count: int, random: np.random.Generator) -> Encoded:
        """`count` rows of choices, each uniform over its options; not yet canonical."""
        drawn = random.random((len(self.choices), count))
        drawn *= np.array(self.option_counts)[:, None]
        return drawn.astype(self._index_type()).T

    def validate(self, architecture: Architecture) -> None:
        """Raise `UsageError`, naming the choice, where the architecture is not of this space."""
        canonical = self.canonical(architecture.choices)
        for choice, given, wanted in zip(
            self.choices, architecture.choices, canonical, strict=True
        ):
            if given != wanted:
                raise UsageError(
                    f"space {self.name}: choice {choice.name} of architecture {architecture} is "
                    f"{choice.options[given]}, where its canonical form has "
                    f"{choice.options[wanted]}"
                )
        if architecture.expanded_channels is not None:
            self.layers(architecture)

    def describe(self, choices: Sequence[int]) -> str:
        """An architecture in words: the option of each active choice."""
        canonical = self.canonical(choices)
        active = self.active(canonical)
        return ", ".join(
            f"{choice.name} {choice.options[index]}"
            for choice, index, on in zip(self.choices, canonical, active, strict=True)
            if on
        )

    def encode(self, architectures: Sequence[Architecture]) -> Encoded:
        """(N, L) option indices, column-major as `CostModel.latency_ms` reads them fastest.

        Widths are left out.
        """
        rows = [architecture.choices for architecture in architectures]
        shape = (len(rows), len(self.choices))
        return np.asfortranarray(np.array(rows, dtype=self._index_type()).reshape(shape))

    def decode(self, encoded: Encoded) -> list[Architecture]:
        """The canonical architecture of each row."""
        return [self.architecture(row) for row in encoded.tolist()]

    # --- networks ----------------------------------------------------------------------------

    def network(self, architecture: Architecture) -> Network:
        """The blocks of an architecture; those of pieces that are left out are not among them."""
        self.validate(architecture)
        blocks = self._chain(architecture)
        nodes: list[NetworkNode] = []
        # What each piece hands on: the nodes whose values are read in its place.
        given: list[tuple[int, ...]] = []
        input_shape: Shape | None = None
        for piece, sources, block in zip(self.pieces, self.sources, blocks, strict=True):
            read = tuple(
                node
                for source in sources
                for node in ((INPUT_NODE,) if source == INPUT_NODE else given[source])
            )
            if block is None:
                if not piece.edge and len(read) != 1:
                    raise UsageError(
                        f"space {self.name}: piece {piece.name or len(given)} is left out, and "
                        f"reads {len(read)} values of which to hand on one"
                    )
                given.append(() if piece.edge else read)
                continue
            if INPUT_NODE in read and input_shape is None:
                input_shape = block.input_shapes[read.index(INPUT_NODE)]
            given.append((len(nodes),))
            nodes.append(NetworkNode(block, read))
        if input_shape is None:
            raise UsageError(f"space {self.name}: no block of {architecture} reads the input")
        return Network(input_shape, tuple(nodes))

    @property
    def layer_stages(self) -> tuple[int, ...]:
        """The stage of each layer."""
        stages = (self.pieces[index].stage for index in self._layers)
        return tuple(stage for stage in stages if stage is not None)

    def layers(self, architecture: Architecture) -> tuple[Block | None, ...]:
        """The block of each layer, `None` where it is skipped."""
        chain = self._chain(architecture)
        return tuple(chain[index] for index in self._layers)

    def factors(self) -> tuple[BlockFactor, ...]:
        """The pieces with their blocks for every combination of options, to be priced."""
        if self._factors is None:
            self._factors = tuple(
                BlockFactor(positions, tuple(self._combinations(piece)))
                for piece, positions in zip(self.pieces, self._piece_positions, strict=True)
            )
        return self._factors

    def blocks(self) -> list[Block]:
        """Every distinct block that an architecture of this space may have."""
        blocks = (block for factor in self.factors() for block in factor.blocks)
        return list(dict.fromkeys(block for block in blocks if block is not None))

    def sample_networks(self, count: int, seed: int) -> list[Network]:
        """`count` distinct networks. Raises `UsageError` where the space has no more of them."""
        random = np.random.default_rng(seed)
        networks: dict[str, Network] = {}
        for _ in range(1000 + 100 * count):
            if len(networks) == count:
                break
            network = self.network(self.sample(random))
            networks.setdefault(network.key, network)
        if len(networks) < count:
            raise UsageError(
                f"space {self.name}: {count} distinct networks were asked for, and only "
                f"{len(networks)} found among its {self.size()} architectures; ask for fewer"
            )
        return list(networks.values())

    # --- inside ------------------------------------------------------------------------------

    def _index_type(self) -> type[np.unsignedinteger[Any]]:
        return np.uint8 if max(self.option_counts, default=0) <= 256 else np.uint16

    def _chain(self, architecture: Architecture) -> list[Block | None]:
        """The block of every piece, widths applied."""
        blocks = []
        for piece, positions in zip(self.pieces, self._piece_positions, strict=True):
            indices = (architecture.choices[position] for position in positions)
            blocks.append(self._build(piece, positions, indices))
        widths = architecture.expanded_channels
        if widths is None:
            return blocks
        if len(widths) != len(self._layers):
            raise UsageError(
                f"space {self.name} has {len(self._layers)} layers; architecture {architecture} "
                f"gives {len(widths)} widths"
            )
        for number, (index, width) in enumerate(zip(self._layers, widths, strict=True)):
            block = blocks[index]
            if isinstance(block, MBConv):
                if not 1 <= width <= block.expanded_channels:
                    raise UsageError(
                        f"space {self.name}: architecture {architecture} gives {width} middle "
                        f"channels to layer {number}; from 1 to "
                        f"{block.expanded_channels} are possible"
                    )
                blocks[index] = replace(block, expanded_channels=width)
            elif width != 0:
                raise UsageError(
                    f"space {self.name}: architecture {architecture} gives {width} middle "
                    f"channels to layer {number}, which has none; its entry must be 0"
                )
        return blocks

    def _build(
        self, piece: Piece, positions: tuple[int, ...], indices: Iterable[int]
    ) -> Block | None:
        chosen = dict(zip(positions, indices, strict=True))
        options = (
            self.choices[position].options[index if self._rules.is_on(position, chosen) else 0]
            for position, index in chosen.items()
        )
        return piece.build(*options)

    def _combinations(self, piece: Piece) -> Iterable[Block | None]:
        positions = tuple(self.position(name) for name in piece.choices)
        counts = (range(self.option_counts[position]) for position in positions)
        return (self._build(piece, positions, indices) for indices in itertools.product(*counts))

    def _all_sources(self) -> tuple[tuple[int, ...], ...]:
        """Indices of the pieces that each piece reads, `INPUT_NODE` for the network's input."""
        known = {INPUT: INPUT_NODE}
        sources: list[tuple[int, ...]] = []
        for index, piece in enumerate(self.pieces):
            unknown = [name for name in piece.reads if name not in known]
            if unknown or piece.name in known:
                raise UsageError(
                    f"space {self.name}: piece {index} ({piece.name}) reads {unknown}, which no "
                    "piece before it is called, or has the name of one of them"
                )
            read = tuple(known[name] for name in piece.reads)
            sources.append(read or (index - 1 if index else INPUT_NODE,))
            if piece.name:
                known[piece.name] = index
        return tuple(sources)

    def _check_piece(self, piece: Piece) -> None:
        for name in piece.choices:
            missing = set(self.choices[self.position(name)].when) - set(piece.choices)
            if missing:
                raise UsageError(
                    f"space {self.name}: a piece reads the conditional choice {name}, and must "
                    f"read {sorted(missing)} too, which switch it on"
                )


def _integers(values: Any, name: str) -> tuple[int, ...]:
    if not isinstance(values, list) or any(type(value) is not int for value in values):
        raise UsageError(f"{name} of an architecture must be a list of integers, not {values!r}")
    return tuple(values)


def grid_floor(value: float, grid: int) -> int:
    """The largest multiple of `grid` that is at most `value`."""
    return math.floor(value / grid) * grid


def grid_ceil(value: float, grid: int) -> int:
    """The smallest multiple of `grid` that is at least `value`."""
    return math.ceil(value / grid) * grid
