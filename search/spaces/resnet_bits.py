"""Single Path One-Shot's mixed-precision space (Guo et al. 2019, section 4): bits of a ResNet.

Each residual block of ResNet-18 or 34 (He et al. 2016, table 1) is a choice block: it chooses the
bits of its weights and of its activations together. The stem and the classifier stay in full
precision. The pairs of bits, and what stays, are recalled.

On small images the stem and the blocks are ResNet's for CIFAR: a 3x3 stem without a stride and no
max pool, where the scale leaves out the first two strides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ...devices.errors import UsageError
from ...latency.blocks import Classifier, ConvBlock, Pooling, QuantisedResidual
from ..choices import Choice
from ..space import Piece, SearchSpace
from .scale import PAPER, Scale

RESOLUTION = 224
CHANNELS = (64, 128, 256, 512)
BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}
"""Residual blocks of each stage, by the layers of the network."""

BITS = {
    f"w{weight} a{activation}": (weight, activation)
    for weight, activation in ((1, 2), (2, 2), (1, 4), (2, 4), (3, 4), (4, 4))
}
"""Bits of weights and of activations, by the name of the option."""


class ResNetBitsSpace(SearchSpace):
    """The space; choices are called `block1`, `block2`, ..., their options `w1 a2`, ..."""

    def __init__(self, classes: int = 1000, scale: Scale = PAPER, *, depth: int = 18) -> None:
        if depth not in BLOCKS:
            raise UsageError(
                f"there is no ResNet of {depth} layers in resnet_bits; choose one of {[*BLOCKS]}"
            )
        self._classes = classes
        self._scale = scale
        self._blocks = BLOCKS[depth]
        name = "resnet_bits" if depth == 18 else f"resnet{depth}_bits"
        choices = [Choice(_name(number), tuple(BITS)) for number in range(sum(self._blocks))]
        super().__init__(name, choices, self._all_pieces())

    def _all_pieces(self) -> Iterator[Piece]:
        # The first block of each stage but the first has stride 2.
        wanted = [
            2 if stage and not block else 1
            for stage, blocks in enumerate(self._blocks)
            for block in range(blocks)
        ]
        first, pooled, *strides = self._scale.strides([2, 2, *wanted])
        widths = [
            self._scale.channels(channels)
            for channels, blocks in zip(CHANNELS, self._blocks, strict=True)
            for _ in range(blocks)
        ]
        size = (self._scale.resolutions or (RESOLUTION,))[0]
        stem = ConvBlock(
            in_channels=3,
            height=size,
            width=size,
            out_channels=widths[0],
            kernel=7 if first > 1 else 3,
            stride=first,
            activation="relu",
        )
        yield Piece((), lambda: stem)
        channels, size, _ = stem.output_shape
        if pooled > 1:
            pool = Pooling(in_channels=channels, height=size, width=size)
            yield Piece((), lambda: pool)
            channels, size, _ = pool.output_shape
        for number, (width, stride) in enumerate(zip(widths, strides, strict=True)):
            build = _builder(channels, width, size, stride)
            yield Piece((_name(number),), build)
            channels, size, _ = build(next(iter(BITS))).output_shape
        yield Piece(
            (),
            lambda: Classifier(
                in_channels=channels, height=size, width=size, classes=self._classes
            ),
        )


def _builder(
    in_channels: int, out_channels: int, size: int, stride: int
) -> Callable[[str], QuantisedResidual]:
    def build(bits: str) -> QuantisedResidual:
        weight_bits, activation_bits = BITS[bits]
        return QuantisedResidual(
            in_channels=in_channels,
            height=size,
            width=size,
            out_channels=out_channels,
            stride=stride,
            weight_bits=weight_bits,
            activation_bits=activation_bits,
        )

    return build


def _name(number: int) -> str:
    return f"block{number + 1}"


def resnet_bits(classes: int = 1000, scale: Scale = PAPER, *, depth: int = 18) -> ResNetBitsSpace:
    """Bits of the blocks of a ResNet of `depth` layers, 18 or 34: 6 ** 8 or 6 ** 16 networks.

    Raises `UsageError` for other depths.
    """
    return ResNetBitsSpace(classes, scale, depth=depth)
