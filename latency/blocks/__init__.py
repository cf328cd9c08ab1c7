"""The blocks that networks are made of."""

from .base import Block as Block
from .basic import ConvBlock as ConvBlock
from .basic import Depthwise as Depthwise
from .basic import Head as Head
from .basic import LinearBlock as LinearBlock
from .basic import Pointwise as Pointwise
from .basic import Pooling as Pooling
from .basic import Skip as Skip
from .basic import Sum as Sum
from .cell import BottleneckConv as BottleneckConv
from .cell import BottleneckPool as BottleneckPool
from .cell import CellConv as CellConv
from .cell import Classifier as Classifier
from .cell import ConcatOf as ConcatOf
from .cell import FactorisedConv as FactorisedConv
from .cell import FactorisedReduce as FactorisedReduce
from .cell import LooseEnd as LooseEnd
from .cell import Nothing as Nothing
from .cell import ResidualReduction as ResidualReduction
from .cell import SeparableConv as SeparableConv
from .cell import SumOf as SumOf
from .kinds import BLOCK_KINDS as BLOCK_KINDS
from .mobile import MBConv as MBConv
from .mobile import PooledHead as PooledHead
from .shuffle import ShuffleUnit as ShuffleUnit
from .shuffle import ShuffleXception as ShuffleXception
