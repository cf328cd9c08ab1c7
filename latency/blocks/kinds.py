"""Every kind of block by its name, which is what files call it."""

from __future__ import annotations

from .base import Block
from .basic import ConvBlock, Depthwise, Head, LinearBlock, Pointwise, Pooling, Skip, Sum
from .cell import (
    BottleneckConv,
    BottleneckPool,
    CellConv,
    Classifier,
    ConcatOf,
    FactorisedConv,
    FactorisedReduce,
    LooseEnd,
    Nothing,
    ResidualReduction,
    SeparableConv,
    SumOf,
)
from .layer import PaddedConcat, RectangularConv
from .mobile import MBConv, PooledHead
from .quantised import QuantisedResidual
from .shuffle import ShuffleUnit, ShuffleXception

BLOCK_KINDS: dict[str, type[Block]] = {
    kind.__name__: kind
    for kind in (
        *(ConvBlock, Depthwise, Pointwise, MBConv, Pooling, LinearBlock, Skip, Sum, Head),
        *(PooledHead, QuantisedResidual, ShuffleUnit, ShuffleXception),
        *(CellConv, FactorisedConv, SeparableConv, FactorisedReduce, ResidualReduction),
        *(BottleneckConv, BottleneckPool, LooseEnd, Nothing, SumOf, ConcatOf, Classifier),
        *(RectangularConv, PaddedConcat),
    )
}
