"""Spaces of mobile networks: a stem, stages of inverted residual blocks, and a head."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ...devices.errors import UsageError
from ...latency.blocks import Block, ConvBlock, MBConv
from ...latency.ops import Activation
from ..choices import SKIP, Choice, Kind
from ..relaxation import Mixture, Sink, Weights
from ..space import Architecture, Piece, SearchSpace
from .layers import LayerChoices, Operation

RESOLUTION = "resolution"
STEM_WIDTH = "stem.width"
HEAD_WIDTH = "head.width"

MakeHead = Callable[..., Block]
"""Channels and size in pixels that it reads, and the chosen widths of the head -> the head."""


@dataclass(frozen=True, slots=True)
class Stem:
    """The first convolution, 3x3."""

    widths: tuple[int, ...]
    stride: int = 2
    activation: Activation = "relu6"


@dataclass(frozen=True, slots=True)
class Stage:
    """Layers of one width; the first has the stride.

    `layers` is how many there are at most. How many of them are kept is chosen once for the stage
    where `depths` are given, else layer by layer where `may_skip`, from the second layer on. With
    `alike` all layers share the choice of their operation.
    """

    widths: tuple[int, ...]
    layers: int
    stride: int
    choices: LayerChoices
    activation: Activation = "relu6"
    depths: tuple[int, ...] = ()
    may_skip: bool = False
    alike: bool = False

    def __post_init__(self) -> None:
        if self.depths and (max(self.depths) != self.layers or min(self.depths) < 1):
            raise UsageError(f"the depths {self.depths} of a stage go from 1 to {self.layers}")
        if self.may_skip and (self.depths or self.alike):
            raise UsageError("a stage whose layers are skipped one by one has no depths")


class StagedSpace(SearchSpace):
    """A stem, stages and a head, chained.

    Choices are called `resolution`, `stem.width`, `stage1.width`, `stage1.depth`,
    `stage1.layer1`, and as `head_widths` names its own; what has one option is no choice. A layer
    with several choices has them as `stage1.layer2.kernel`, ... Blocks cost by the few of these
    that they depend on.
    """

    def __init__(
        self,
        name: str,
        *,
        resolutions: Sequence[int],
        stem: Stem,
        stages: Sequence[Stage],
        head_widths: Mapping[str, tuple[int, ...]],
        make_head: MakeHead,
    ) -> None:
        self.resolutions = tuple(resolutions)
        self.stem = stem
        self.stages = tuple(stages)
        self._make_head = make_head
        self._options: dict[str, tuple[Any, ...]] = {
            RESOLUTION: self.resolutions,
            STEM_WIDTH: stem.widths,
            **head_widths,
        }
        self._heads = tuple(head_widths)
        self._options |= {self.width_name(n): stage.widths for n, stage in enumerate(stages)}
        self._options |= {
            self.depth_name(n): stage.depths for n, stage in enumerate(stages) if stage.depths
        }
        super().__init__(name, self._all_choices(), self._all_pieces(), self._runs())

    @staticmethod
    def width_name(stage: int) -> str:
        """Name of the choice of a stage's width; stages count from 0."""
        return f"stage{stage + 1}.width"

    @staticmethod
    def depth_name(stage: int) -> str:
        """Name of the choice of a stage's number of layers."""
        return f"stage{stage + 1}.depth"

    def layer_names(self, stage: int) -> tuple[str, ...]:
        """Names of a stage's layers; with `alike` they have one name."""
        if self.stages[stage].alike:
            return (f"stage{stage + 1}.layers",) * self.stages[stage].layers
        return tuple(f"stage{stage + 1}.layer{n + 1}" for n in range(self.stages[stage].layers))

    def mixtures(self) -> dict[int, Mixture]:
        """By the index of a piece, a layer's operations, where there is something to choose.

        Raises `UsageError` where more than operations and the depths of stages is chosen.
        """
        self._check_relaxable()
        found = {}
        for number, stage in enumerate(self.stages):
            kept = (stage.layers,) if len(stage.depths) > 1 else ()
            for layer, index in enumerate(self._stage_pieces(number)):
                piece = self.pieces[index]
                if piece.choices:
                    choices = self._layer_choices(number, layer)
                    options = itertools.product(*(choice.options for choice in choices))
                    candidates = tuple(piece.build(*kept, *chosen) for chosen in options)
                    found[index] = Mixture(self.layer_names(number)[layer], candidates)
        return found

    def sinks(self) -> dict[int, Sink]:
        """By the index of a stage's last piece, its depths.

        Each stage keeps a layer at least, so that its input, which TF-NAS adds where the shapes
        match, is never among them. TF-NAS's own stages all change the shape.
        """
        found = {}
        for number, stage in enumerate(self.stages):
            if len(stage.depths) > 1:
                pieces = self._stage_pieces(number)
                ends = tuple(pieces[depth - 1] for depth in stage.depths)
                found[pieces[-1]] = Sink(self.depth_name(number), ends)
        return found

    def discretise(self, weights: Weights) -> Architecture:
        """The architecture of the strongest operations, and the strongest depth of each stage."""
        chosen = {sink.name: int(np.argmax(weights[sink.name])) for sink in self.sinks().values()}
        for number in range(len(self.stages)):
            for layer, name in enumerate(self.layer_names(number)):
                names = [choice.name for choice in self._layer_choices(number, layer)]
                if names:
                    counts = [self.option_counts[self.position(choice)] for choice in names]
                    best = np.unravel_index(int(np.argmax(weights[name])), counts)
                    chosen |= dict(zip(names, map(int, best), strict=True))
        return self.architecture([chosen[choice.name] for choice in self.choices])

    def _check_relaxable(self) -> None:
        layered = {
            choice.name
            for number, stage in enumerate(self.stages)
            for layer in range(stage.layers)
            for choice in self._layer_choices(number, layer)
            if SKIP not in choice.options
        }
        layered |= {self.depth_name(number) for number in range(len(self.stages))}
        for choice in self.choices:
            if choice.name not in layered:
                raise UsageError(
                    f"space {self.name} can't be relaxed: {choice.name} chooses neither between "
                    "operations nor between the depths of a stage. Give it one option."
                )

    def _stage_pieces(self, stage: int) -> range:
        """Indices of the pieces of a stage's layers; the stem is the first piece of all."""
        first = 1 + sum(before.layers for before in self.stages[:stage])
        return range(first, first + self.stages[stage].layers)

    def _layer_choices(self, stage: int, layer: int) -> list[Choice]:
        """The choices of a layer, the depth that keeps it being one of their conditions."""
        item, name = self.stages[stage], self.layer_names(stage)[layer]
        choices = list(item.choices.choices(name, item.may_skip and layer > 0))
        kept = tuple(depth for depth in item.depths if depth > layer)
        if item.alike or kept == item.depths:
            return choices
        condition = {self.depth_name(stage): kept}
        return [replace(choice, when={**condition, **choice.when}) for choice in choices]

    def _all_choices(self) -> Iterator[Choice]:
        yield from self._one(RESOLUTION, "resolution")
        yield from self._one(STEM_WIDTH, "width")
        for number, stage in enumerate(self.stages):
            yield from self._one(self.width_name(number), "width")
            yield from self._one(self.depth_name(number), "depth")
            for layer in range(1 if stage.alike else stage.layers):
                yield from self._layer_choices(number, layer)
        for name in self._heads:
            yield from self._one(name, "width")

    def _one(self, name: str, kind: Kind) -> Iterator[Choice]:
        """The choice of this name, where there is more than one option."""
        options = self._options.get(name, ())
        if len(options) > 1:
            yield Choice(name, options, kind=kind)

    def _runs(self) -> Iterator[tuple[str, ...]]:
        for number, stage in enumerate(self.stages):
            if stage.may_skip and stage.layers > 1:
                yield self.layer_names(number)[1:]

    def _all_pieces(self) -> Iterator[Piece]:
        strides = self.stem.stride
        yield self._piece((RESOLUTION, STEM_WIDTH), (), self._build_stem)
        for number, stage in enumerate(self.stages):
            before = self.width_name(number - 1) if number else STEM_WIDTH
            for layer in range(stage.layers):
                yield self._layer_piece(number, layer, before, strides)
                if layer == 0:
                    strides *= stage.stride
                before = self.width_name(number)
        yield self._piece((RESOLUTION, before, *self._heads), (), self._head_builder(strides))

    def _piece(
        self,
        fixed: Sequence[str],
        layer: Sequence[str],
        build: Callable[..., Block | None],
        stage: int | None = None,
    ) -> Piece:
        """A piece that depends on the options `fixed`, chosen or not, and on a layer's choices.

        `build` takes a value for each of the former, and the options of the latter in a tuple.
        """
        chosen = [name for name in dict.fromkeys(fixed) if len(self._options[name]) > 1]

        def built(*options: Any) -> Block | None:
            given = dict(zip(chosen, options, strict=False))
            values = [given.get(name, self._options[name][0]) for name in fixed]
            return build(*values, options[len(chosen) :])

        return Piece((*chosen, *layer), built, stage)

    def _build_stem(self, resolution: int, width: int, _: tuple[Any, ...]) -> Block:
        return ConvBlock(
            in_channels=3,
            out_channels=width,
            height=resolution,
            width=resolution,
            stride=self.stem.stride,
            activation=self.stem.activation,
        )

    def _head_builder(self, strides: int) -> Callable[..., Block]:
        def build(resolution: int, channels: int, *widths: Any) -> Block:
            return self._make_head(channels, size_after(resolution, strides), *widths[:-1])

        return build

    def _layer_piece(self, number: int, layer: int, before: str, strides: int) -> Piece:
        stage = self.stages[number]
        stride = stage.stride if layer == 0 else 1
        choices = [choice.name for choice in self._layer_choices(number, layer)]
        depth = (self.depth_name(number),) if stage.depths else ()

        def build(resolution: int, in_channels: int, width: int, *rest: Any) -> Block | None:
            *depths, options = rest
            operation = stage.choices.operation(options)
            if operation is None or any(layer >= kept for kept in depths):
                return None
            return self._layer(
                operation, in_channels, width, size_after(resolution, strides), stride, stage
            )

        fixed = (RESOLUTION, before, self.width_name(number), *depth)
        return self._piece(fixed, choices, build, number)

    @staticmethod
    def _layer(
        operation: Operation,
        in_channels: int,
        out_channels: int,
        size: int,
        stride: int,
        stage: Stage,
    ) -> MBConv:
        return MBConv(
            in_channels=in_channels,
            out_channels=out_channels,
            expanded_channels=operation.expansion * in_channels,
            height=size,
            width=size,
            kernel=operation.kernel,
            stride=stride,
            squeeze_excite=operation.squeeze_excite,
            activation=stage.activation,
        )


def size_after(size: int, strides: int) -> int:
    """Pixels that are left of `size` after layers whose strides multiply to `strides`."""
    return -(-size // strides)
