"""ShuffleNetV2's units (Ma et al. 2018, section 4), as Single Path One-Shot chooses between them.

With stride 1 the input's channels are shuffled and one half passes as it is; the other half goes
through the unit, and both are concatenated. With stride 2 both branches read the whole input
(Guo et al. 2019, section 4: choice_3, choice_5, choice_7 and choice_x).
"""

from __future__ import annotations

from dataclasses import dataclass

from ...devices.errors import UsageError
from ..ops import Channels, ChannelShuffle, Concat, Conv, OpGraph
from .base import ImageBlock, check_odd, check_positive


@dataclass(frozen=True, slots=True, kw_only=True)
class _ShuffleUnit(ImageBlock):
    """Both branches; what the main one does is a subclass's `_write_main`."""

    out_channels: int
    middle_channels: int
    stride: int = 1

    def __post_init__(self) -> None:
        ImageBlock.__post_init__(self)
        check_positive(self, "out_channels", "middle_channels", "stride")
        kind = type(self).__name__
        if self.stride == 1 and (self.in_channels % 2 or self.out_channels <= self.branch_channels):
            raise UsageError(
                f"{kind}: with stride 1 half of in_channels passes, so that it must be even and "
                f"less than twice out_channels; they are {self.in_channels}, {self.out_channels}"
            )
        if self.stride > 1 and self.out_channels <= self.in_channels:
            raise UsageError(
                f"{kind}: with a stride all {self.in_channels} channels pass, so that out_channels "
                f"must be more than that, not {self.out_channels}"
            )

    @property
    def branch_channels(self) -> int:
        """Channels that each branch reads."""
        return self.in_channels // 2 if self.stride == 1 else self.in_channels

    def write(self, graph: OpGraph, *inputs: int, prefix: str = "") -> int:
        """Append this block's operations to `graph`; return the value that it gives."""
        (value,) = inputs
        read = self.branch_channels
        if self.stride == 1:
            shuffled = graph.add(ChannelShuffle(read), value, prefix=prefix)
            passed = graph.add(Channels(0, read), shuffled, prefix=prefix)
            value = graph.add(Channels(read, 2 * read), shuffled, prefix=prefix)
        else:
            moved = self._depthwise("pass_depthwise", read, self._kernel, self.stride)
            passed = graph.add(moved, value, prefix=prefix)
            mixed = Conv("pass_pointwise", read, read, activation="relu")
            passed = graph.add(mixed, passed, prefix=prefix)
        value = self._write_main(graph, value, prefix)
        return graph.add(Concat(), passed, value, prefix=prefix)

    @property
    def _kernel(self) -> int:
        raise NotImplementedError

    def _write_main(self, graph: OpGraph, value: int, prefix: str) -> int:
        raise NotImplementedError

    @property
    def _given_channels(self) -> int:
        """Channels that the main branch gives."""
        return self.out_channels - self.branch_channels

    @staticmethod
    def _depthwise(name: str, channels: int, kernel: int, stride: int = 1) -> Conv:
        return Conv(name, channels, channels, kernel, stride, groups=channels)


@dataclass(frozen=True, slots=True, kw_only=True)
class ShuffleUnit(_ShuffleUnit):
    """1x1 convolution to `middle_channels`, depthwise convolution, 1x1 convolution."""

    kernel: int = 3

    def __post_init__(self) -> None:
        _ShuffleUnit.__post_init__(self)
        check_odd(self, "kernel")

    @property
    def _kernel(self) -> int:
        return self.kernel

    def _write_main(self, graph: OpGraph, value: int, prefix: str) -> int:
        middle = self.middle_channels
        expand = Conv("expand", self.branch_channels, middle, activation="relu")
        value = graph.add(expand, value, prefix=prefix)
        depthwise = self._depthwise("depthwise", middle, self.kernel, self.stride)
        value = graph.add(depthwise, value, prefix=prefix)
        project = Conv("project", middle, self._given_channels, activation="relu")
        return graph.add(project, value, prefix=prefix)


@dataclass(frozen=True, slots=True, kw_only=True)
class ShuffleXception(_ShuffleUnit):
    """Three depthwise separable 3x3 convolutions, the first with the stride (Chollet 2017)."""

    @property
    def _kernel(self) -> int:
        return 3

    def _write_main(self, graph: OpGraph, value: int, prefix: str) -> int:
        widths = (self.branch_channels, self.middle_channels, self.middle_channels)
        given = (self.middle_channels, self.middle_channels, self._given_channels)
        for number, (read, give) in enumerate(zip(widths, given, strict=True), start=1):
            stride = self.stride if number == 1 else 1
            depthwise = self._depthwise(f"depthwise{number}", read, 3, stride)
            value = graph.add(depthwise, value, prefix=prefix)
            pointwise = Conv(f"pointwise{number}", read, give, activation="relu")
            value = graph.add(pointwise, value, prefix=prefix)
        return value
