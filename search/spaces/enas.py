"""ENAS's macro space (Pham et al. 2018, section 2.3): the operation and the skips of each layer.

A layer computes from the layer before it, adds the outputs of those earlier ones that it skips to,
and normalises the sum. Two of the layers are followed by a reduction, which halves all outputs so
far. Layers, channels and where reductions stand are those of the released code, recalled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ...latency.blocks import (
    Block,
    BottleneckConv,
    BottleneckPool,
    Classifier,
    ConvBlock,
    FactorisedReduce,
    Skip,
    SumOf,
)
from ..choices import Choice
from ..space import Piece, SearchSpace
from .scale import PAPER, Scale

OPERATIONS = (
    "conv_3x3",
    "sep_conv_3x3",
    "conv_5x5",
    "sep_conv_5x5",
    "avg_pool_3x3",
    "max_pool_3x3",
)
SKIPPED = ("no", "yes")
LAYERS = 12
CHANNELS = 36
RESOLUTION = 32


class EnasMacroSpace(SearchSpace):
    """The space; choices are called `layer3`, and `layer3.from1` for a skip from layer 1."""

    def __init__(self, classes: int = 10, scale: Scale = PAPER, layers: int = LAYERS) -> None:
        self._classes = classes
        self._depth = layers
        self._channels = scale.channels(CHANNELS)
        self._resolution = (scale.resolutions or (RESOLUTION,))[0]
        super().__init__("enas_macro", self._all_choices(), self._all_pieces())

    def _all_choices(self) -> Iterator[Choice]:
        for layer in range(1, self._depth + 1):
            yield Choice(f"layer{layer}", OPERATIONS)
            for earlier in range(1, layer):
                yield Choice(_skip(earlier, layer), SKIPPED)

    def _all_pieces(self) -> Iterator[Piece]:
        channels, size = self._channels, self._resolution
        stem = ConvBlock(
            in_channels=3, height=size, width=size, out_channels=channels, activation="none"
        )
        yield Piece((), lambda: stem, name="layer0")
        reductions = (self._depth // 3, 2 * self._depth // 3)
        names = ["layer0"]
        for layer in range(1, self._depth + 1):
            yield from self._layer(layer, names, size)
            names.append(f"layer{layer}")
            if layer in reductions:
                for number, name in enumerate(names):
                    names[number] = f"{name}.half"
                    yield Piece((), self._half(size), name=names[number], reads=(name,))
                size //= 2
        end = size
        yield Piece(
            (),
            lambda: Classifier(in_channels=channels, height=end, width=end, classes=self._classes),
            reads=(names[-1],),
        )

    def _layer(self, layer: int, names: list[str], size: int) -> Iterator[Piece]:
        """One layer's operation, its skips, and their sum."""
        own = f"layer{layer}.operation"
        yield Piece((f"layer{layer}",), self._operation(size), name=own, reads=(names[-1],))
        skips = [_skip(earlier, layer) for earlier in range(1, layer)]
        for earlier, skip in enumerate(skips, start=1):
            build = self._skip(size)
            yield Piece((skip,), build, name=skip, reads=(names[earlier],), edge=True)
        reads = (own, *skips)
        yield Piece(tuple(skips), self._sum(size), name=f"layer{layer}", reads=reads)

    def _operation(self, size: int) -> Callable[[str], Block]:
        channels = self._channels
        place = {"in_channels": channels, "height": size, "width": size, "out_channels": channels}

        def build(name: str) -> Block:
            if name.endswith("pool_3x3"):
                return BottleneckPool(**place, pool="max" if name.startswith("max") else "average")
            kernel = int(name[-1])
            return BottleneckConv(**place, kernel=kernel, separable=name.startswith("sep"))

        return build

    def _skip(self, size: int) -> Callable[[str], Block | None]:
        skip = Skip(in_channels=self._channels, height=size, width=size)
        return lambda chosen: skip if chosen == "yes" else None

    def _sum(self, size: int) -> Callable[..., Block]:
        def build(*skips: str) -> Block:
            inputs = 1 + skips.count("yes")
            return SumOf(
                in_channels=self._channels, height=size, width=size, inputs=inputs, norm=True
            )

        return build

    def _half(self, size: int) -> Callable[[], Block]:
        half = FactorisedReduce(
            in_channels=self._channels, height=size, width=size, out_channels=self._channels
        )
        return lambda: half


def _skip(earlier: int, layer: int) -> str:
    return f"layer{layer}.from{earlier}"


def enas_macro(classes: int = 10, scale: Scale = PAPER) -> EnasMacroSpace:
    """The space of 12 layers for 32-pixel images."""
    return EnasMacroSpace(classes, scale)
