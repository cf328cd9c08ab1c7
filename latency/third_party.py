"""Block tables that others published, row by row: Once-for-All's and TF-NAS's.

A row becomes a block of ours where that says the same; all others are refused, with the reason.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from scipy import stats

from ..devices.errors import UsageError
from .blocks import Block, ConvBlock, LinearBlock, MBConv, Pointwise
from .ops import Activation
from .table_entry import Entry
from .table_records import NO_INTERVAL
from .table_rows import RefusedRow, Row, is_missing, number, positive_ms, shown, whole_number

OFA_CHANNEL_GRID = 8
CONFIDENCE = 0.95

_OFA_KEY = re.compile(
    r"(?P<name>\w+)-input:(?P<height>\d{1,6})x(?P<width>\d{1,6})x(?P<inside>\d{1,6})"
    r"-output:(?P<output>\d{1,6}(?:x\d{1,6})*)"
    r"(?:-expand:(?P<expand>\d{1,6})-kernel:(?P<kernel>\d{1,6})-stride:(?P<stride>\d{1,6})"
    r"-idskip:(?P<skip>[01])(?:-se:(?P<se>[01])-hs:(?P<hs>[01]))?)?"
)
_TFNAS_KEY = re.compile(
    r"MBInvertedResBlock_(?P<size>\d{1,6})_(?P<inside>\d{1,6})_(?P<se>\d{1,6})_(?P<out>\d{1,6})"
    r"_k(?P<kernel>\d{1,6})_s(?P<stride>\d{1,6})_(?P<activation>[a-z0-9-]+)"
)
_TFNAS_ACTIVATIONS: Mapping[str, Activation] = {
    "relu": "relu",
    "relu6": "relu6",
    "swish": "swish",
    "h-swish": "hard_swish",
}


@dataclass(frozen=True, slots=True)
class Form:
    """A published form of table: the columns by which it is known, and how a row is read."""

    name: str
    columns: frozenset[str]
    read: Callable[[int, Mapping[str, Any]], Row | RefusedRow]


def ofa_block(key: str) -> Block:
    """The block of a key of Once-for-All's MobileNetV3 tables (Cai et al. 2020; its `MBv3` table).

    Shapes are height x width x channels. `Conv` is the stem, a 3x3 convolution of stride 2,
    `Conv_1` the last 1x1 convolution, `Conv_2` the one on the pooled pixel, all three with hard
    swish, `Logits` the classifier. In `expanded_conv`, `expand` is the number of expanded channels
    (no expansion where that is the input's), `idskip` whether the input is added, `se` whether
    there is squeeze-excite (a quarter of the expanded channels on a grid of 8, never below 90 % of
    it; hard sigmoid), `hs` hard swish in place of relu. `Conv_2` has no batch norm; folded into
    the weights that takes the same time, but for a bias.

    Raises `UsageError` with the reason where no block says the same. ProxylessNAS's tables write
    the same names without `se` and `hs`, and mean a ratio by `expand`: they are refused.
    """
    match = _OFA_KEY.fullmatch(key)
    if match is None:
        raise UsageError("the key can't be read as one of Once-for-All's")
    name = match["name"]
    height, width, inside = (int(match[part]) for part in ("height", "width", "inside"))
    output = tuple(map(int, match["output"].split("x")))
    shape = {"in_channels": inside, "height": height, "width": width}
    block: Block
    if (name == "expanded_conv") != (match["expand"] is not None):
        raise UsageError("the key lacks, or has too many of, expand, kernel, stride and idskip")
    if name == "expanded_conv":
        block = _ofa_mbconv(match, shape, output)
    elif name == "Conv":
        block = ConvBlock(
            **shape, out_channels=output[-1], kernel=3, stride=2, activation="hard_swish"
        )
    elif name in ("Conv_1", "Conv_2"):
        block = Pointwise(**shape, out_channels=output[-1], activation="hard_swish")
    elif name == "Logits" and (height, width) == (1, 1):
        block = LinearBlock(in_features=inside, out_features=output[-1])
    else:
        raise UsageError(f"no block is {name} alone")
    written = block.output_shape
    if output != (written if len(written) == 1 else (*written[1:], written[0])):
        raise UsageError(f"the block that this names has an output of {written}, channels first")
    return block


def tfnas_block(key: str, middle: int) -> Block:
    """The block of a key of TF-NAS's tables (Hu et al. 2020) with `middle` channels.

    `MBInvertedResBlock_SIZE_IN_SE_OUT_kK_sS_ACTIVATION`: the input has SIZE x SIZE pixels and IN
    channels, the output OUT; SE is the number of channels inside squeeze-excite, 0 for none. The
    1x1 expansion is left out where `middle` is IN. TF-NAS never builds a block of fewer: its code
    gives that IN channels, too, and the numbers in its tables go on along a line, below 0 in the
    end. `base` is the sum of a network's fixed parts.

    Raises `UsageError` with the reason where no block says the same; so it is with
    squeeze-excite, whose gate is a sigmoid there, after the block's own activation.
    """
    if key == "base":
        raise UsageError("it is the sum of a network's fixed parts, and no block")
    match = _TFNAS_KEY.fullmatch(key)
    if match is None:
        raise UsageError("the key can't be read as one of TF-NAS's")
    inside, squeezed = int(match["inside"]), int(match["se"])
    if match["activation"] not in _TFNAS_ACTIVATIONS:
        raise UsageError(f"there is no activation {match['activation']}")
    if middle < inside:
        raise UsageError(
            f"TF-NAS builds no block of {middle} middle channels on {inside}: the number is "
            "extrapolated"
        )
    if squeezed:
        raise UsageError(
            f"its squeeze-excite has {squeezed} channels, {match['activation']} and a sigmoid; "
            "ours has a quarter of the middle channels, relu and a hard sigmoid"
        )
    return MBConv(
        in_channels=inside,
        height=int(match["size"]),
        width=int(match["size"]),
        out_channels=int(match["out"]),
        expanded_channels=middle,
        kernel=int(match["kernel"]),
        stride=int(match["stride"]),
        activation=_TFNAS_ACTIVATIONS[match["activation"]],
    )


def read_ofa_row(place: int, values: Mapping[str, Any]) -> Row | RefusedRow:
    """A row of a table with `op_key` and `mean_ms`, and where known `count` and `std_ms`."""
    mean, key = values.get("mean_ms"), shown(values.get("op_key"))
    return _row(
        place,
        key,
        shown(mean),
        lambda: _mean_entry(mean, values.get("count"), values.get("std_ms")),
        lambda: ofa_block(str(values.get("op_key"))),
    )


def read_tfnas_row(place: int, values: Mapping[str, Any]) -> Row | RefusedRow:
    """A row of a table with `block_key`, `mid_channels` and `lat_ms`."""
    name, middle, latency = (values.get(column) for column in TFNAS_COLUMNS)
    return _row(
        place,
        f"{shown(name)}, mid_channels {shown(middle)}",
        shown(latency),
        lambda: _single_entry(latency),
        lambda: tfnas_block(str(name), whole_number(middle, "mid_channels")),
    )


def _row(
    place: int, key: str, value: str, entry: Callable[[], Entry], block: Callable[[], Block]
) -> Row | RefusedRow:
    """The latency first: that it is bad tells more than that its block is unknown."""
    try:
        found = entry()
    except UsageError as error:
        return RefusedRow(place, key, value, "bad latency", str(error))
    try:
        return Row(place, key, value, block(), found)
    except UsageError as error:
        return RefusedRow(place, key, value, "no such block", str(error))


TFNAS_COLUMNS = ("block_key", "mid_channels", "lat_ms")

FORMS = (
    Form("Once-for-All", frozenset(("op_key", "mean_ms")), read_ofa_row),
    Form("TF-NAS", frozenset(TFNAS_COLUMNS), read_tfnas_row),
)


def _ofa_mbconv(match: re.Match[str], shape: Mapping[str, int], output: tuple[int, ...]) -> MBConv:
    if match["se"] is None:
        raise UsageError("the key has no se and hs: ProxylessNAS's mean a ratio by expand")
    block = MBConv(
        **shape,
        out_channels=output[-1],
        expanded_channels=int(match["expand"]),
        kernel=int(match["kernel"]),
        stride=int(match["stride"]),
        squeeze_excite=match["se"] == "1",
        activation="hard_swish" if match["hs"] == "1" else "relu",
        residual=match["skip"] == "1",
    )
    if match["skip"] == "1" and not block.has_residual:
        raise UsageError("idskip is 1, and the input can't be added to an output of another shape")
    squeezed = _ofa_squeezed_channels(block.expanded_channels)
    if block.squeeze_excite and squeezed != block.squeezed_channels:
        raise UsageError(
            f"its squeeze-excite has {squeezed} channels, and ours {block.squeezed_channels}"
        )
    return block


def _ofa_squeezed_channels(expanded: int) -> int:
    wanted = expanded // 4
    grid = OFA_CHANNEL_GRID
    rounded = max(grid, (wanted + grid // 2) // grid * grid)
    return rounded + grid if rounded < 0.9 * wanted else rounded


def _single_entry(latency: Any) -> Entry:
    """TF-NAS's numbers: of what statistic is not said, on lines between widths 8 apart."""
    latency_ms = positive_ms(latency)
    reasons = ("a single number, interpolated by its authors between some widths", NO_INTERVAL)
    return Entry(latency_ms, latency_ms, latency_ms, "unknown", reasons)


def _mean_entry(mean: Any, count: Any, deviation: Any) -> Entry:
    """The mean of some runs, with its confidence interval where count and deviation are known.

    The interval is that of the mean's logarithm, so that it can't reach 0.
    """
    mean_ms = positive_ms(mean)
    if is_missing(count) or is_missing(deviation):
        return Entry(mean_ms, mean_ms, mean_ms, "unknown", ("a mean", NO_INTERVAL))
    runs = float(whole_number(count, "the count"))
    deviation_ms = number(deviation, "the standard deviation")
    if runs < 2 or not 0 <= deviation_ms < math.inf:
        raise UsageError(
            f"no mean of {runs:.0f} runs has a standard deviation of {deviation_ms} ms"
        )
    share = deviation_ms / math.sqrt(runs) / mean_ms
    share *= float(stats.t.ppf((1 + CONFIDENCE) / 2, runs - 1))
    if share > 1:
        raise UsageError(f"a standard deviation of {deviation_ms} ms leaves the mean unknown")
    reasons = (f"the mean of {runs:.0f} runs, with a standard deviation of {deviation_ms:.3g} ms",)
    low_ms, high_ms = mean_ms * math.exp(-share), mean_ms * math.exp(share)
    return Entry(mean_ms, low_ms, high_ms, "unknown", reasons)
