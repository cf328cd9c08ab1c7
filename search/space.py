"""Search spaces: choices, canonical architectures, and the networks that they stand for.

A space of one's own is a `SearchSpace` made of its choices and of pieces, each of which builds
one block from the options chosen for it; `spaces/` has examples.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..devices.errors import UsageError
from ..latency.blocks import Block, MBConv
from ..latency.cost import BlockFactor
from ..latency.network import INPUT as INPUT_NODE
from ..latency.network import Network, NetworkNode
from ..latency.ops import Shape
from .choices import Choice, ChoiceRules, Mirror

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

    With `if_unread` it is there only where no other piece that is there reads what it reads: a
    loose end. With `joins`, `build` is called with the number of values that it reads, too, after
    the options.
    """

    choices: tuple[str, ...]
    build: Callable[..., Block | None]
    stage: int | None = None
    name: str = ""
    reads: tuple[str, ...] = ()
    edge: bool = False
    if_unread: bool = False
    joins: bool = False

    @property
    def is_structural(self) -> bool:
        """Whether its block depends on more than its own choices: on what else is there."""
        return self.if_unread or self.joins


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

    @classmethod
    def from_key(cls, key: str) -> Architecture:
        """The architecture of a `key`. Raises `UsageError` where it is none."""
        choices, separator, widths = key.partition("|")
        try:
            return cls(_numbers(choices), _numbers(widths) if separator else None)
        except ValueError as error:
            raise UsageError(f"{key!r} is no key of an architecture, such as 0.2.1") from error

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
    They must share their options and have no `when`. `mirrors` name pairs of groups of choices
    that may be exchanged, as the two halves of a sum: the canonical form has them in order.
    """

    def __init__(
        self,
        name: str,
        choices: Iterable[Choice],
        pieces: Iterable[Piece],
        runs: Iterable[tuple[str, ...]] = (),
        mirrors: Iterable[Mirror] = (),
    ) -> None:
        self.name = name
        self.choices = tuple(choices)
        self.pieces = tuple(pieces)
        self._rules = ChoiceRules(name, self.choices, runs, mirrors)
        self._piece_positions = tuple(
            tuple(self.position(choice) for choice in piece.choices) for piece in self.pieces
        )
        for piece in self.pieces:
            self._check_piece(piece)
        self.sources = self._all_sources()
        self._structural = any(piece.is_structural for piece in self.pieces)
        self._layers = tuple(
            index for index, piece in enumerate(self.pieces) if piece.stage is not None
        )
        self._factors: tuple[BlockFactor, ...] | None = None
        self._candidates: tuple[tuple[Block, ...], ...] | None = None
        self._built: list[dict[tuple[int, ...], Block | None]] = [{} for _ in self.pieces]

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
        self._check_canonical(architecture)
        if architecture.expanded_channels is not None:
            self.layers(architecture)

    def _check_canonical(self, architecture: Architecture) -> None:
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
        self._check_canonical(architecture)
        blocks = self._chain(architecture)  # checks the widths
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
    def image_size(self) -> int:
        """The largest height or width, in pixels, of the images that its networks read."""
        return max(
            max(block.input_shapes[sources.index(INPUT_NODE)][1:])
            for blocks, sources in zip(self.candidates(), self.sources, strict=True)
            if INPUT_NODE in sources
            for block in blocks
        )

    @property
    def layer_stages(self) -> tuple[int, ...]:
        """The stage of each layer."""
        stages = (self.pieces[index].stage for index in self._layers)
        return tuple(stage for stage in stages if stage is not None)

    def layers(self, architecture: Architecture) -> tuple[Block | None, ...]:
        """The block of each layer, `None` where it is skipped."""
        chain = self._chain(architecture)
        return tuple(chain[index] for index in self._layers)

    @property
    def is_additive(self) -> bool:
        """Whether the block of each piece depends on its own choices alone, as `factors` has it."""
        return not self._structural

    def placed(self, architecture: Architecture) -> tuple[int, ...]:
        """The index of the piece that each block of the architecture's network comes from."""
        chain = self._chain(architecture)
        return tuple(index for index, block in enumerate(chain) if block is not None)

    def blocks_of(self, choices: Sequence[int]) -> tuple[Block, ...]:
        """The blocks of the network of these choices."""
        chain = self._chain(self.architecture(choices))
        return tuple(block for block in chain if block is not None)

    def candidates(self) -> tuple[tuple[Block, ...], ...]:
        """For each piece, the distinct blocks that may stand there."""
        if self._candidates is None:
            self._candidates = tuple(
                tuple(dict.fromkeys(block for block in self._combinations(piece, sources) if block))
                for piece, sources in zip(self.pieces, self.sources, strict=True)
            )
        return self._candidates

    def factors(self) -> tuple[BlockFactor, ...]:
        """The pieces with their blocks for every combination of options, to be priced.

        Raises `UsageError` where the space is not additive.
        """
        if not self.is_additive:
            raise UsageError(
                f"the networks of space {self.name} are no sums over a few choices each; their "
                "cost is `latency.pricing.cost_model`'s"
            )
        if self._factors is None:
            self._factors = tuple(
                BlockFactor(positions, tuple(self._combinations(piece, sources)))
                for piece, positions, sources in zip(
                    self.pieces, self._piece_positions, self.sources, strict=True
                )
            )
        return self._factors

    def blocks(self) -> list[Block]:
        """Every distinct block that an architecture of this space may have."""
        return list(dict.fromkeys(block for blocks in self.candidates() for block in blocks))

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
        blocks: list[Block | None] = [
            None if piece.is_structural else self._built_at(index, architecture.choices)
            for index, piece in enumerate(self.pieces)
        ]
        if not self.is_additive:
            self._add_structural(blocks, architecture.choices)
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
                blocks[index] = _narrowed(block, width)
            elif width != 0:
                raise UsageError(
                    f"space {self.name}: architecture {architecture} gives {width} middle "
                    f"channels to layer {number}, which has none; its entry must be 0"
                )
        return blocks

    def _add_structural(self, blocks: list[Block | None], choices: Sequence[int]) -> None:
        """Put in the pieces that depend on which of the others are there."""
        read = {
            source
            for piece, sources, block in zip(self.pieces, self.sources, blocks, strict=True)
            if block is not None or piece.joins
            for source in sources
        }
        for index, (piece, sources) in enumerate(zip(self.pieces, self.sources, strict=True)):
            if piece.if_unread and read.isdisjoint(sources):
                blocks[index] = self._built_at(index, choices)
            if piece.joins:
                left_out = (
                    source != INPUT_NODE and self.pieces[source].edge and blocks[source] is None
                    for source in sources
                )
                blocks[index] = self._built_at(index, choices, len(sources) - sum(left_out))

    def _built_at(self, index: int, choices: Sequence[int], *values: int) -> Block | None:
        """The block of a piece, remembered; `values` is the number that a joining one reads."""
        positions, built = self._piece_positions[index], self._built[index]
        indices = tuple(choices[position] for position in positions)
        key = (*indices, *values)
        if key not in built:
            built[key] = self._build(self.pieces[index], positions, indices, *values)
        return built[key]

    def _build(
        self, piece: Piece, positions: tuple[int, ...], indices: Iterable[int], *values: int
    ) -> Block | None:
        chosen = dict(zip(positions, indices, strict=True))
        options = (
            self.choices[position].options[index if self._rules.is_on(position, chosen) else 0]
            for position, index in chosen.items()
        )
        return piece.build(*options, *values)

    def _combinations(self, piece: Piece, sources: tuple[int, ...]) -> Iterable[Block | None]:
        positions = tuple(self.position(name) for name in piece.choices)
        counts = [range(self.option_counts[position]) for position in positions]
        if piece.joins:
            counts.append(range(1, len(sources) + 1))
        for indices in itertools.product(*counts):
            yield self._build(
                piece, positions, indices[: len(positions)], *indices[len(positions) :]
            )

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


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("."))


@lru_cache(maxsize=1 << 16)
def _narrowed(block: MBConv, width: int) -> MBConv:
    """The block with `width` middle channels: elasticity-scaling asks for the same ones often."""
    return replace(block, expanded_channels=width)


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
