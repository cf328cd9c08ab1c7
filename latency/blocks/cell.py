"""What the cells of NAS-RL's successors are made of: NASNet, ENAS, DARTS and NAS-Bench-201.

Their convolutions come after the activation: ReLU, convolution, batch norm (Zoph et al. 2018,
appendix A.4; Liu et al. 2019, section 3.1).
"""

from __future__ import annotations

from dataclasses import dataclass

from ...devices.errors import UsageError
from ..ops import (
    Activate,
    Add,
    Concat,
    Conv,
    Crop,
    Flatten,
    GlobalAveragePool,
    Linear,
    Normalise,
    OpGraph,
    Pool,
    PoolKind,
    Shape,
    Zero,
)
from .base import ImageBlock, check_odd, check_positive


@dataclass(frozen=True, slots=True, kw_only=True)
class _Window(ImageBlock):
    """A block that moves a window of an odd size."""

    out_channels: int
    kernel: int = 1
    stride: int = 1

    def __post_init__(self) -> None:
        ImageBlock.__post_init__(self)
        check_positive(self, "out_channels", "stride")
        check_odd(self, "kernel")


@dataclass(frozen=True, slots=True, kw_only=True)
class CellConv(_Window):
    """ReLU, convolution, batch norm."""

    def write(self, graph: OpGraph, *inputs: int, prefix: str = "") -> int:
        """Append this block's operations to `graph`; return the value that it gives."""
        value = graph.add(Activate("relu"), *inputs, prefix=prefix)
        conv = Conv("conv", self.in_channels, self.out_channels, self.kernel, self.stride)
        return graph.add(conv, value, prefix=prefix)


@dataclass(frozen=True, slots=True, kw_only=True)
class LooseEnd(ImageBlock):
    """ReLU and 1x1 convolution: one addend of a 1x1 convolution over concatenated values.

    Batch norm follows their sum (ENAS, Pham et al. 2018, section 2.4).
    """

    out_channels: int

    def __post_init__(self) -> None:
        ImageBlock.__post_init__(self)
        check_positive(self, "out_channels")

    def write(self, graph: OpGraph, *inputs: int, prefix: str = "") -> int:
        """Append this block's operations to `graph`; return the value that it gives."""
        value = graph.add(Activate("relu"), *inputs, prefix=prefix)
        conv = Conv("conv", self.in_channels, self.out_channels, batch_norm=False, bias=False)
        return graph.add(conv, value, prefix=prefix)


@dataclass(frozen=True, slots=True, kw_only=True)
class FactorisedConv(_Window):
    """ReLU, 1 x `kernel` convolution, batch norm, ReLU, `kernel` x 1 convolution, batch norm."""

    def write(self, graph: OpGraph, *inputs: int, prefix: str = "") -> int:
        """Append this block's operations to `graph`; return the value that it gives."""
        out = self.out_channels
        value = graph.add(Activate("relu"), *inputs, prefix=prefix)
        across = Conv(
            "across", self.in_channels, out, (1, self.kernel), self.stride, activation="relu"
        )
        value = graph.add(across, value, prefix=prefix)
        return graph.add(Conv("down", out, out, (self.kernel, 1)), value, prefix=prefix)


@dataclass(frozen=True, slots=True, kw_only=True)
class SeparableConv(_Window):
    """`repeats` times: ReLU, depthwise convolution, 1x1 convolution, batch norm.

    The first has the stride. DARTS's and NASNet's separable convolutions have two repeats,
    DARTS's dilated ones a single one with `dilation` 2.
    """

    dilation: int = 1
    repeats: int = 2

    def __post_init__(self) -> None:
        _Window.__post_init__(self)
        check_positive(self, "dilation", "repeats")

    def write(self, graph: OpGraph, *inputs: int, prefix: str = "") -> int:
        """Append this block's operations to `graph`; return the value that it gives."""
        (value,) = inputs
        channels = self.in_channels
        for number in range(1, self.repeats + 1):
            value = graph.add(Activate("relu"), value, prefix=prefix)
            last = number == self.repeats
            depthwise = Conv(
                f"depthwise{number}",
                channels,
                channels,
                self.kernel,
                self.stride if number == 1 else 1,
                groups=channels,
                batch_norm=False,
                bias=False,
                dilation=self.dilation,
            )
            value = graph.add(depthwise, value, prefix=prefix)
            given = self.out_channels if last else channels
            pointwise = Conv(f"pointwise{number}", channels, given)
            value = graph.add(pointwise, value, prefix=prefix)
        return value


@dataclass(frozen=True, slots=True, kw_only=True)
class FactorisedReduce(ImageBlock):
    """Half the size without losing a pixel: ReLU, two 1x1 convolutions of stride 2 side by side.

    The second reads the image moved by one pixel; their outputs are concatenated (DARTS, Liu et
    al. 2019, released code; NASNet, Zoph et al. 2018). Batch norm follows each of them, which is
    the same as one over both.
    """

    out_channels: int

    def __post_init__(self) -> None:
        ImageBlock.__post_init__(self)
        check_positive(self, "out_channels")
        if self.out_channels % 2 or self.height % 2 or self.width % 2:
            raise UsageError(
                "FactorisedReduce: out_channels, height and width must be even, not "
                f"{self.out_channels}, {self.height}, {self.width}"
            )

    def write(self, graph: OpGraph, *inputs: int, prefix: str = "") -> int:
        """Append this block's operations to `graph`; return the value that it gives."""
        value = graph.add(Activate("relu"), *inputs, prefix=prefix)
        half = self.out_channels // 2
        even = graph.add(Conv("even", self.in_channels, half, 1, 2), value, prefix=prefix)
        moved = graph.add(Crop(1, 1), value, prefix=prefix)
        odd = graph.add(Conv("odd", self.in_channels, half, 1, 2), moved, prefix=prefix)
        return graph.add(Concat(), even, odd, prefix=prefix)


@dataclass(frozen=True, slots=True, kw_only=True)
class ResidualReduction(ImageBlock):
    """Half the size between NAS-Bench-201's stages (Dong & Yang 2020, section 2.1).

    Two 3x3 convolutions after ReLU, the first of stride 2, beside 2x2 average pooling and a 1x1
    convolution without batch norm; their sum.
    """

    out_channels: int

    def __post_init__(self) -> None:
        ImageBlock.__post_init__(self)
        check_positive(self, "out_channels")
        if self.height % 2 or self.width % 2:
            raise UsageError(
                f"ResidualReduction: height and width must be even, not {self.height}, {self.width}"
            )

    def write(self, graph: OpGraph, *inputs: int, prefix: str = "") -> int:
        """Append this block's operations to `graph`; return the value that it gives."""
        out = self.out_channels
        value = graph.add(Activate("relu"), *inputs, prefix=prefix)
        first = Conv("first", self.in_channels, out, 3, 2, activation="relu")
        value = graph.add(first, value, prefix=prefix)
        value = graph.add(Conv("second", out, out, 3), value, prefix=prefix)
        passed = graph.add(Pool("average", 2, 2), *inputs, prefix=prefix)
        match = Conv("match", self.in_channels, out, batch_norm=False, bias=False)
        passed = graph.add(match, passed, prefix=prefix)
        return graph.add(Add(), passed, value, prefix=prefix)


@dataclass(frozen=True, slots=True, kw_only=True)
class Classifier(ImageBlock):
    """Global average pool and classifier, after batch norm and ReLU where `norm` says so."""

    classes: int
    norm: bool = False

    def __post_init__(self) -> None:
        ImageBlock.__post_init__(self)
        check_positive(self, "classes")

    def write(self, graph: OpGraph, *inputs: int, prefix: str = "") -> int:
        """Append this block's operations to `graph`; return the value that it gives."""
        (value,) = inputs
        if self.norm:
            value = graph.add(Normalise("norm", self.in_channels), value, prefix=prefix)
            value = graph.add(Activate("relu"), value, prefix=prefix)
        value = graph.add(GlobalAveragePool(), value, prefix=prefix)
        value = graph.add(Flatten(), value, prefix=prefix)
        return graph.add(Linear("classifier", self.in_channels, self.classes), value, prefix=prefix)


@dataclass(frozen=True, slots=True, kw_only=True)
class BottleneckConv(ImageBlock):
    """What a layer of ENAS's macro space computes (Pham et al. 2018, section 2.3, released code).

    1x1 convolution, batch norm, ReLU, then a convolution, depthwise separable where `separable`
    says so, batch norm and ReLU.
    """

    out_channels: int
    kernel: int = 3
    separable: bool = False

    def __post_init__(self) -> None:
        ImageBlock.__post_init__(self)
        check_positive(self, "out_channels")
        check_odd(self, "kernel")

    def write(self, graph: OpGraph, *inputs: int, prefix: str = "") -> int:
        """Append this block's operations to `graph`; return the value that it gives."""
        out = self.out_channels
        reduce = Conv("reduce", self.in_channels, out, activation="relu")
        value = graph.add(reduce, *inputs, prefix=prefix)
        if not self.separable:
            conv = Conv("conv", out, out, self.kernel, activation="relu")
            return graph.add(conv, value, prefix=prefix)
        depthwise = Conv(
            "depthwise", out, out, self.kernel, groups=out, batch_norm=False, bias=False
        )
        value = graph.add(depthwise, value, prefix=prefix)
        return graph.add(Conv("pointwise", out, out, activation="relu"), value, prefix=prefix)


@dataclass(frozen=True, slots=True, kw_only=True)
class BottleneckPool(ImageBlock):
    """1x1 convolution, batch norm, ReLU, then 3x3 pooling of stride 1: ENAS's other layers."""

    out_channels: int
    pool: PoolKind = "max"

    def __post_init__(self) -> None:
        ImageBlock.__post_init__(self)
        check_positive(self, "out_channels")

    def write(self, graph: OpGraph, *inputs: int, prefix: str = "") -> int:
        """Append this block's operations to `graph`; return the value that it gives."""
        reduce = Conv("reduce", self.in_channels, self.out_channels, activation="relu")
        value = graph.add(reduce, *inputs, prefix=prefix)
        return graph.add(Pool(self.pool, 3, 1), value, prefix=prefix)


@dataclass(frozen=True, slots=True, kw_only=True)
class Nothing(ImageBlock):
    """Zeros: an edge that a cell leaves out, where something has to be read."""

    def write(self, graph: OpGraph, *inputs: int, prefix: str = "") -> int:
        """Append this block's operations to `graph`; return the value that it gives."""
        return graph.add(Zero(), *inputs, prefix=prefix)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Join(ImageBlock):
    """Reads `inputs` values, each of `in_channels` x `height` x `width`."""

    inputs: int = 2

    def __post_init__(self) -> None:
        ImageBlock.__post_init__(self)
        check_positive(self, "inputs")

    @property
    def input_shapes(self) -> tuple[Shape, ...]:
        """Shape of each input, without the batch."""
        return ((self.in_channels, self.height, self.width),) * self.inputs


@dataclass(frozen=True, slots=True, kw_only=True)
class SumOf(_Join):
    """Adds its inputs up, and normalises the sum where `norm` says so."""

    norm: bool = False

    def write(self, graph: OpGraph, *inputs: int, prefix: str = "") -> int:
        """Append this block's operations to `graph`; return the value that it gives."""
        value, *others = inputs
        for other in others:
            value = graph.add(Add(), value, other, prefix=prefix)
        if self.norm:
            value = graph.add(Normalise("norm", self.in_channels), value, prefix=prefix)
        return value


@dataclass(frozen=True, slots=True, kw_only=True)
class ConcatOf(_Join):
    """Puts the channels of its inputs one after the other."""

    def write(self, graph: OpGraph, *inputs: int, prefix: str = "") -> int:
        """Append this block's operations to `graph`; return the value that it gives."""
        return graph.add(Concat(), *inputs, prefix=prefix)
