"""Blocks to try things on: an example of every kind, some variations, a strategy for each kind."""

from __future__ import annotations

from hypothesis import strategies as st
from latkit.latency.blocks import (
    Block,
    BottleneckConv,
    BottleneckPool,
    CellConv,
    Classifier,
    ConcatOf,
    ConvBlock,
    Depthwise,
    FactorisedConv,
    FactorisedReduce,
    Head,
    LinearBlock,
    LooseEnd,
    MBConv,
    Nothing,
    PaddedConcat,
    Pointwise,
    PooledHead,
    Pooling,
    QuantisedResidual,
    RectangularConv,
    ResidualReduction,
    SeparableConv,
    ShuffleUnit,
    ShuffleXception,
    Skip,
    Sum,
    SumOf,
)

ACTIVATIONS = ("none", "relu", "relu6", "swish", "hard_swish", "sigmoid", "hard_sigmoid")

EXAMPLES: list[Block] = [
    ConvBlock(in_channels=3, height=32, width=24, out_channels=16, stride=2),
    Depthwise(in_channels=8, height=9, width=7, kernel=5, stride=2),
    Pointwise(in_channels=8, height=9, width=7, out_channels=12),
    MBConv(in_channels=16, height=14, width=14, out_channels=16, expanded_channels=96),
    Pooling(in_channels=8, height=9, width=8),
    LinearBlock(in_features=20, out_features=10, activation="relu"),
    Skip(in_channels=8, height=9, width=7),
    Sum(in_channels=8, height=9, width=7),
    Head(
        in_channels=16,
        height=7,
        width=7,
        hidden_channels=64,
        classes=20,
        activation="hard_swish",
    ),
    PooledHead(
        in_channels=8, height=4, width=4, hidden_channels=24, pooled_features=32, classes=10
    ),
    ShuffleUnit(in_channels=16, height=8, width=7, out_channels=24, middle_channels=12),
    ShuffleXception(in_channels=16, height=8, width=8, out_channels=24, middle_channels=8),
    QuantisedResidual(in_channels=8, height=9, width=7, out_channels=12, weight_bits=2),
    CellConv(in_channels=8, height=9, width=7, out_channels=16, kernel=3),
    FactorisedConv(in_channels=8, height=9, width=8, out_channels=12, kernel=7),
    SeparableConv(in_channels=8, height=9, width=8, out_channels=12, kernel=5),
    FactorisedReduce(in_channels=8, height=8, width=10, out_channels=16),
    BottleneckConv(in_channels=8, height=9, width=7, out_channels=12, kernel=5, separable=True),
    BottleneckPool(in_channels=8, height=9, width=7, out_channels=12),
    LooseEnd(in_channels=8, height=9, width=7, out_channels=16),
    Nothing(in_channels=8, height=9, width=7),
    ResidualReduction(in_channels=8, height=8, width=10, out_channels=12),
    Classifier(in_channels=8, height=5, width=4, classes=10, norm=True),
    SumOf(in_channels=8, height=9, width=7, inputs=3),
    ConcatOf(in_channels=8, height=9, width=7, inputs=4),
    RectangularConv(in_channels=8, height=9, width=7, out_channels=12, kernel_width=5),
    PaddedConcat(shapes=((8, 9, 7), (4, 5, 8), (8, 9, 7))),
]
"""One block of every kind."""

STRIDED_CONV = ConvBlock(16, 12, 12, out_channels=24, kernel=5, stride=2)
SQUEEZE_EXCITE = MBConv(16, 12, 12, out_channels=16, expanded_channels=64, squeeze_excite=True)
VARIATIONS: list[Block] = [
    *(ConvBlock(3, 17, 15, out_channels=8, activation=name) for name in ACTIVATIONS),
    STRIDED_CONV,
    Depthwise(12, 14, 15, kernel=7, stride=2, activation="swish"),
    Pointwise(32, 9, 9, out_channels=16),
    SQUEEZE_EXCITE,
    MBConv(16, 13, 13, out_channels=24, expanded_channels=48, activation="hard_swish"),
    MBConv(16, 13, 13, out_channels=24, expanded_channels=16, kernel=5, stride=2),
    Pooling(8, 13, 12, pool="max"),
    Pooling(8, 13, 12, pool="average"),
]
"""What the kinds of mobile networks look like otherwise."""

INT8_UNSETTLED: set[type[Block]] = {
    *(BottleneckConv, BottleneckPool, CellConv, Classifier, FactorisedConv, FactorisedReduce),
    *(LooseEnd, Nothing, PaddedConcat, PooledHead, QuantisedResidual, RectangularConv),
    *(ResidualReduction, SeparableConv, ShuffleXception),
}
"""Kinds whose int8 form is not settled: one begins with an activation, ends in float, is constant,
rounds to fewer bits itself, has inputs of several shapes, or more layers in a row than the
tolerances of int8's tests allow for."""

channels, pixels = st.integers(1, 20), st.integers(1, 14)
image = {"in_channels": channels, "height": pixels, "width": pixels}
kernels, strides = st.sampled_from([1, 3, 5, 7]), st.sampled_from([1, 2])
window = {"kernel": kernels, "stride": strides}
active = {"activation": st.sampled_from(ACTIVATIONS)}
bits = st.integers(1, 8)
evens = st.integers(1, 8).map(lambda number: 2 * number)


@st.composite
def inverted_residuals(draw):
    inputs = draw(channels)
    return MBConv(
        in_channels=inputs,
        height=draw(pixels),
        width=draw(pixels),
        out_channels=draw(st.just(inputs) | channels),
        expanded_channels=draw(st.just(inputs) | st.integers(1, 48)),
        kernel=draw(kernels),
        stride=draw(strides),
        squeeze_excite=draw(st.booleans()),
        activation=draw(active["activation"]),
        residual=draw(st.booleans()),
    )


@st.composite
def shuffle_units(draw, kind, **more):
    inputs, stride = draw(evens), draw(strides)
    passed = inputs // 2 if stride == 1 else inputs
    return kind(
        in_channels=inputs,
        height=draw(pixels),
        width=draw(pixels),
        out_channels=passed + draw(channels),
        middle_channels=draw(channels),
        stride=stride,
        **{name: draw(strategy) for name, strategy in more.items()},
    )


STRATEGIES = {
    "ConvBlock": st.builds(ConvBlock, **image, out_channels=channels, **window, **active),
    "Depthwise": st.builds(Depthwise, **image, **window, **active),
    "Pointwise": st.builds(Pointwise, **image, out_channels=channels, **active),
    "MBConv": inverted_residuals(),
    "Pooling": st.builds(Pooling, **image, **window, pool=st.sampled_from(["max", "average"])),
    "LinearBlock": st.builds(LinearBlock, in_features=channels, out_features=channels, **active),
    "Skip": st.builds(Skip, **image),
    "Sum": st.builds(Sum, **image),
    "Head": st.builds(Head, **image, hidden_channels=channels, classes=channels, **active),
    "PooledHead": st.builds(
        PooledHead,
        **image,
        hidden_channels=channels,
        pooled_features=channels,
        classes=channels,
        **active,
    ),
    "ShuffleUnit": shuffle_units(ShuffleUnit, kernel=kernels),
    "ShuffleXception": shuffle_units(ShuffleXception),
    "QuantisedResidual": st.builds(
        QuantisedResidual,
        **image,
        out_channels=channels,
        stride=strides,
        weight_bits=bits,
        activation_bits=bits,
    ),
    "CellConv": st.builds(CellConv, **image, out_channels=channels, **window),
    "FactorisedConv": st.builds(FactorisedConv, **image, out_channels=channels, **window),
    "SeparableConv": st.builds(
        SeparableConv,
        **image,
        out_channels=channels,
        **window,
        dilation=st.integers(1, 2),
        repeats=st.integers(1, 2),
    ),
    "FactorisedReduce": st.builds(
        FactorisedReduce, in_channels=channels, height=evens, width=evens, out_channels=evens
    ),
    "BottleneckConv": st.builds(
        BottleneckConv, **image, out_channels=channels, kernel=kernels, separable=st.booleans()
    ),
    "BottleneckPool": st.builds(
        BottleneckPool, **image, out_channels=channels, pool=st.sampled_from(["max", "average"])
    ),
    "LooseEnd": st.builds(LooseEnd, **image, out_channels=channels),
    "Nothing": st.builds(Nothing, **image),
    "ResidualReduction": st.builds(
        ResidualReduction, in_channels=channels, height=evens, width=evens, out_channels=channels
    ),
    "Classifier": st.builds(Classifier, **image, classes=channels, norm=st.booleans()),
    "SumOf": st.builds(SumOf, **image, inputs=st.integers(1, 4), norm=st.booleans()),
    "ConcatOf": st.builds(ConcatOf, **image, inputs=st.integers(1, 4)),
    "RectangularConv": st.builds(
        RectangularConv,
        **image,
        out_channels=channels,
        kernel_height=kernels,
        kernel_width=kernels,
        stride=strides,
    ),
    "PaddedConcat": st.builds(
        PaddedConcat,
        shapes=st.lists(st.tuples(channels, pixels, pixels), min_size=1, max_size=4).map(tuple),
    ),
}
"""A strategy for every kind of block by its name."""
