"""Single Path One-Shot's space: a ShuffleNetV2 whose 20 blocks are chosen (Guo et al. 2019).

Each block is a shuffle unit with kernel 3, 5 or 7, or the Xception-like one; `with_channels` adds
the choice of its middle channels, in shares of half its output channels (section 3.4; the released
code's list of shares goes to 2.0 instead of the paper's 1.6).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import accumulate

from ...latency.blocks import Block, ConvBlock, ShuffleUnit, ShuffleXception
from ..choices import Choice
from ..space import Piece, SearchSpace
from .heads import pooled_head
from .scale import PAPER, Scale, rounded_channels
from .staged import size_after

RESOLUTION = 224
STEM, HIDDEN = 16, 1024
CHANNELS = (64, 160, 320, 640)
BLOCKS = (4, 4, 8, 4)
UNITS = ("choice_3", "choice_5", "choice_7", "choice_x")
CHANNEL_SHARES = (0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.4, 1.6)


class ShuffleNetSpace(SearchSpace):
    """The space; choices are called `block1`, ..., and `block1.channels`, ... where there are."""

    def __init__(
        self, classes: int = 1000, scale: Scale = PAPER, *, with_channels: bool = False
    ) -> None:
        self._scale = scale
        self._classes = classes
        self._with_channels = with_channels
        self._resolution = (scale.resolutions or (RESOLUTION,))[0]
        # The first block of each stage has stride 2.
        wanted = [2] + [1 if block else 2 for blocks in BLOCKS for block in range(blocks)]
        self._strides = scale.strides(wanted)
        name = "shufflenet_channels" if with_channels else "shufflenet"
        super().__init__(name, self._all_choices(), self._all_pieces())

    def _names(self, number: int) -> tuple[str, ...]:
        name = f"block{number + 1}"
        return (name, f"{name}.channels") if self._with_channels else (name,)

    def _all_choices(self) -> Iterator[Choice]:
        for number in range(sum(BLOCKS)):
            unit, *shares = self._names(number)
            yield Choice(unit, UNITS)
            for share in shares:
                yield Choice(share, CHANNEL_SHARES, kind="width")

    def _all_pieces(self) -> Iterator[Piece]:
        stem = ConvBlock(
            in_channels=3,
            out_channels=self._scale.channels(STEM),
            height=self._resolution,
            width=self._resolution,
            stride=self._strides[0],
            activation="relu",
        )
        yield Piece((), lambda: stem)
        widths = [
            self._scale.channels(channels)
            for channels, blocks in zip(CHANNELS, BLOCKS, strict=True)
            for _ in range(blocks)
        ]
        sizes = [
            size_after(self._resolution, strides)
            for strides in accumulate(self._strides, lambda a, b: a * b)
        ]
        before = [stem.out_channels, *widths]
        for number, width in enumerate(widths):
            build = self._builder(before[number], width, sizes[number], self._strides[number + 1])
            yield Piece(self._names(number), build)
        head = pooled_head(self._classes, "relu")
        hidden = self._scale.channels(HIDDEN)
        yield Piece((), lambda: head(widths[-1], sizes[-1], hidden))

    @staticmethod
    def _builder(
        in_channels: int, out_channels: int, size: int, stride: int
    ) -> Callable[..., Block]:
        def build(unit: str, share: float = 1.0) -> Block:
            half = out_channels // 2
            middle = half if share == 1.0 else rounded_channels(share * half)
            place = {"in_channels": in_channels, "height": size, "width": size}
            shape = {"out_channels": out_channels, "middle_channels": middle, "stride": stride}
            if unit == "choice_x":
                return ShuffleXception(**place, **shape)
            return ShuffleUnit(**place, **shape, kernel=int(unit.removeprefix("choice_")))

        return build


def shufflenet(classes: int = 1000, scale: Scale = PAPER) -> ShuffleNetSpace:
    """The space of choice blocks alone: 4 ** 20 networks."""
    return ShuffleNetSpace(classes, scale)


def shufflenet_channels(classes: int = 1000, scale: Scale = PAPER) -> ShuffleNetSpace:
    """The space of choice blocks and middle channels."""
    return ShuffleNetSpace(classes, scale, with_channels=True)
