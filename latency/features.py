"""What a predictor sees of a block: physical work terms, features, and what they range over.

All of it is derived from the kernels of the block's ONNX graph, so a new kind of block needs
nothing here. Work is what a vector processor really does: channels rounded up to the runtime's
channel grid, pixels to a register tile, input channels read once for each group of outputs.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from .blocks import Block
from .counts import Kernel, block_counts

Sample = Block | Kernel | tuple[Kernel, ...]
"""What a latency is learned of: a block, one kernel, or several kernels that run in a row."""

PIXEL_TILE = 7
"""Output pixels that a matrix kernel computes at once, about: 5 to 8 on current processors."""

CHANNEL_TILES = (1, 2, 4)
"""Channel vectors that a kernel may compute at once; the fit tells which."""

PIXEL_TILES = (5, 6, 7)
ROW_TILES = (4, 6, 8)
"""Candidates for those tiles, of which a model may learn what it can."""

WIDTH_TILE = 6
"""Pixels of a row that a convolution kernel computes at once, about."""

CACHE_BYTES = 2**20
"""A kernel that moves more than this leaves the second-level cache of most processors."""

KERNEL_SIZES = (3, 5, 7)
ALIASING_BYTES = 4096
"""Rows at a multiple of this fall into one set of a first-level cache."""


@dataclass(frozen=True, slots=True)
class Term:
    """What one kernel adds to a block; or, as group `call`, what calling the block adds.

    Kernels of one `group` are compared with each other by their `features`.
    """

    group: str
    work: Mapping[str, float]
    features: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Description:
    """One block as a predictor sees it.

    `work` are non-negative amounts whose weighted sum is the physical estimate; `terms` are the
    same amounts by kernel; `features` are of the whole block; `ranges` and `categories` tell
    whether a block is like those trained on.
    """

    work: Mapping[str, float]
    terms: tuple[Term, ...]
    features: Mapping[str, float]
    ranges: Mapping[str, float]
    categories: frozenset[str]


WHOLE = "whole"
"""Group of what is compared between whole samples, by those of their features that follow."""

_WHOLE_FEATURES = frozenset(
    {"log flops", "log intensity", "log weight bytes", "log largest output", "log pixels in"}
    | {"kernels", "squeeze-excite", "residual", "stride"}
)


def is_whole_feature(name: str) -> bool:
    """Whether whole samples are compared by this feature."""
    return name in _WHOLE_FEATURES or name.startswith(("kind ", "activation ", "kernel "))


@lru_cache(maxsize=100_000)
def describe(sample: Sample, channel_grid: int) -> Description:
    """Describe a sample for a runtime with this channel grid; remembered."""
    kernels = kernels_of(sample)
    terms = [kernel_term(kernel, channel_grid) for kernel in kernels]
    if kernels:
        terms.append(_call_term(kernels, channel_grid))
    work: Counter[str] = Counter()
    for term in terms:
        work.update(term.work)
    return Description(
        work=dict(work),
        terms=tuple(terms),
        features=_features(sample, kernels, channel_grid),
        ranges=_ranges(kernels),
        categories=_categories(sample, kernels),
    )


def kernels_of(sample: Sample) -> tuple[Kernel, ...]:
    """The kernels that a sample runs, in order; none for an identity."""
    match sample:
        case Kernel():
            return (sample,)
        case tuple():
            return sample
        case _:
            return block_counts(sample).kernels


def matrix(rows: Sequence[Mapping[str, float]], names: Sequence[str]) -> NDArray[np.float64]:
    """Rows as an array with a column for each of `names`; 0 where a row has no such value."""
    values = [[row.get(name, 0.0) for name in names] for row in rows]
    return np.array(values, dtype=np.float64).reshape(len(rows), len(names))


def names_of(rows: Iterable[Mapping[str, float]]) -> tuple[str, ...]:
    """Every name in `rows`, sorted."""
    return tuple(sorted({name for row in rows for name in row}))


def kernel_class(kernel: Kernel, channel_grid: int) -> str:
    """The class whose kernels cost alike for their work.

    A convolution to a single pixel is a product of a matrix and a vector, bound by its weights; a
    `stem` reads too few channels to fill a vector. Element-wise kernels go by their operation.
    """
    if kernel.kind in ("conv", "pointwise", "linear"):
        if kernel.out_height * kernel.out_width == 1:
            return "vector"
        if kernel.kind == "conv" and kernel.in_channels < channel_grid:
            return "stem"
    if kernel.kind in ("elementwise", "copy"):
        return f"{kernel.operation} {kernel.layout}".strip()
    return kernel.kind


def round_up(value: int, step: int) -> int:
    """The smallest multiple of `step` that is at least `value`."""
    return -(-value // step) * step


@lru_cache(maxsize=200_000)
def kernel_term(kernel: Kernel, channel_grid: int) -> Term:
    """Work and features of one kernel, which depend on nothing around it."""
    of = kernel_class(kernel, channel_grid)
    work: defaultdict[str, float] = defaultdict(float, {"kernels": 1, f"kernels {of}": 1})
    _add_class_work(work, of, kernel, channel_grid)
    if kernel.layout and kernel.flops:
        work[f"flops {of} in {kernel.layout}"] = kernel.flops
    work["moved bytes"] = kernel.moved_bytes
    work["weight bytes"] = kernel.weight_bytes
    work["spilled bytes"] = max(0, kernel.moved_bytes - CACHE_BYTES)
    for fused in kernel.operation.split("+")[1:]:
        work[f"fused {fused}"] += kernel.output_bytes
    return Term(of, dict(work), _kernel_features(kernel, of, channel_grid))


def _call_term(kernels: Sequence[Kernel], grid: int) -> Term:
    """What calling a block costs beside its kernels: its overhead, its input and its output."""
    first, last = kernels[0], kernels[-1]
    work = {"block": 1.0, "input bytes": first.input_bytes, "output bytes": last.output_bytes}
    features = {
        "log input bytes": math.log(first.input_bytes),
        "log output bytes": math.log(last.output_bytes),
        "log channels read": math.log(first.in_channels),
        "log channels written": math.log(last.out_channels),
        "few channels read": float(first.in_channels < grid),
        "few channels written": float(last.out_channels < grid),
        "kernels": len(kernels),
        f"first is {kernel_class(first, grid)}": 1.0,
        f"last is {kernel_class(last, grid)}": 1.0,
    }
    return Term("call", work, features)


def _kernel_features(kernel: Kernel, of: str, grid: int) -> dict[str, float]:
    """Where in its class a kernel stands: sizes as logarithms, and how they fit the tiles."""
    pixels = kernel.out_height * kernel.out_width
    features = {
        "log pixels": math.log(pixels),
        "log channels read": math.log(kernel.in_channels),
        "log channels written": math.log(kernel.out_channels),
        "log bytes": math.log(max(1, kernel.moved_bytes)),
    }
    if of in (*_MATRIX_CLASSES, "stem", "linear", "matmul"):
        features["rest read"] = kernel.in_channels % grid / grid
        for vectors in CHANNEL_TILES:
            tile = vectors * grid
            padded = round_up(kernel.out_channels, tile)
            features[f"padding {vectors}"] = math.log(padded / kernel.out_channels)
            if vectors > 1:
                features[f"rest {vectors}"] = kernel.out_channels % tile / tile
        features["groups"] = math.log(kernel.groups) if of != "depthwise" else 0.0
    if max(kernel.kernel) > 1:
        size = kernel.kernel[0]
        features |= {f"window {each}": float(size == each) for each in KERNEL_SIZES}
        features["log window"] = math.log(size)
        features["log stride"] = math.log(max(kernel.stride))
        features["log dilation"] = math.log(max(kernel.dilation))
        features["log row"] = math.log(kernel.out_width)
        features["edge"] = min(1.0, (size - 1) / kernel.width)
    if pixels > 1:
        for tile in ROW_TILES:
            features[f"row padding {tile}"] = math.log(
                round_up(kernel.out_width, tile) / kernel.out_width
            )
    if of == "pointwise":
        for tile in PIXEL_TILES:
            features[f"pixel padding {tile}"] = math.log(round_up(pixels, tile) / pixels)
    if kernel.layout:
        features[f"layout {kernel.layout}"] = 1.0
    return features | {f"fused {name}": 1.0 for name in kernel.operation.split("+")[1:]}


def _add_class_work(work: defaultdict[str, float], of: str, kernel: Kernel, grid: int) -> None:
    pixels, window = kernel.out_height * kernel.out_width, math.prod(kernel.kernel)
    channels = round_up(kernel.out_channels, grid)
    match of:
        case "conv" | "stem" | "pointwise" | "linear":
            read = kernel.in_channels if of == "stem" else round_up(kernel.in_channels, grid)
            products = pixels * window * read // kernel.groups
            passes = products * -(-channels // (CHANNEL_TILES[-1] * grid))
            work["matrix products"] += products * channels
            work["matrix passes"] += passes
            work[f"matrix products {of}"] += products * channels
            work[f"matrix passes {of}"] += passes
            tiles = -(-pixels // PIXEL_TILE) * window * kernel.in_channels // kernel.groups
            for vectors in CHANNEL_TILES:
                tile = vectors * grid
                work[f"tiles of {vectors} vectors"] += tiles * -(-kernel.out_channels // tile)
                if kernel.out_channels % tile:
                    work[f"broken tiles of {vectors} vectors"] += tiles
            if of == "conv":
                taps = _taps_inside(kernel) * read // kernel.groups
                work["products inside conv"] += taps * channels
                edge = min(kernel.out_width, kernel.kernel[-1] - 1) * kernel.out_height
                work["edge products conv"] += edge * window * read * channels
        case "depthwise":
            products, size = pixels * window * channels, kernel.kernel[0]
            work["products depthwise"] += products
            work[f"products depthwise {size}"] += products
            work[f"products inside depthwise {size}"] += _taps_inside(kernel) * channels
            if max(kernel.stride) > 1:
                work["strided products depthwise"] += products
                work[f"strided products depthwise {size}"] += products
            for vectors in CHANNEL_TILES[:2]:
                if kernel.out_channels % (vectors * grid):
                    work[f"broken products depthwise {vectors} vectors"] += pixels * window
        case "vector" | "matmul":
            work[f"products {of}"] += kernel.flops / 2
        case "pool" | "global_pool":
            work[f"flops {of}"] += kernel.flops
            work[f"channels {of}"] += kernel.in_channels
        case _:
            if kernel.kind in ("reduce", "softmax", "normalization"):
                work[f"flops {of}"] += kernel.flops
            work["bytes"] += kernel.output_bytes
            work[f"bytes {of}"] += kernel.output_bytes


def _taps_inside(kernel: Kernel) -> int:
    """Taps of all windows that lie on the image and not on its padding: some runtimes skip those.

    Padding is taken to be symmetric, as far as the windows reach it.
    """
    taps = 1
    sizes = ((kernel.height, kernel.out_height), (kernel.width, kernel.out_width))
    for (size, out), window, step in zip(sizes, kernel.kernel, kernel.stride, strict=False):
        start = np.arange(out) * step - -(-max(0, (out - 1) * step + window - size) // 2)
        taps *= int((np.minimum(start + window, size) - np.maximum(start, 0)).sum())
    return taps


def _features(sample: Sample, kernels: Sequence[Kernel], grid: int) -> dict[str, float]:
    """Features of the sample; categories as 0 or 1, amounts as logarithms."""
    if not kernels:
        return {}
    classes = [kernel_class(kernel, grid) for kernel in kernels]
    flops: Counter[str] = Counter()
    for of, kernel in zip(classes, kernels, strict=True):
        flops[of if of in _MATRIX_CLASSES else "other"] += kernel.flops
    all_flops, moved = sum(flops.values()), sum(kernel.moved_bytes for kernel in kernels)
    last = kernels[-1]
    features = {
        "log flops": math.log1p(all_flops),
        "log moved bytes": math.log1p(moved),
        "log intensity": math.log1p(all_flops) - math.log1p(moved),
        "log weight bytes": math.log1p(sum(kernel.weight_bytes for kernel in kernels)),
        "log largest output": math.log1p(max(kernel.output_bytes for kernel in kernels)),
        "log pixels in": math.log(kernels[0].height * kernels[0].width),
        "log pixels out": math.log(last.out_height * last.out_width),
        "width rest": kernels[0].width % WIDTH_TILE,
        "width rest out": last.out_width % WIDTH_TILE,
        "aliasing": math.gcd(kernels[0].width * grid * 4, ALIASING_BYTES),
        "stride": max(max(kernel.stride) for kernel in kernels),
        "kernels": len(kernels),
        "squeeze-excite": float("vector" in classes),
        "residual": float("Add" in classes),
    }
    features |= {f"log flops {of}": math.log1p(flops[of]) for of in (*_MATRIX_CLASSES, "other")}
    windows = [max(kernel.kernel) for kernel in kernels if max(kernel.kernel) > 1]
    window = max(windows, default=1)
    features |= {f"kernel {size}": float(window == size) for size in KERNEL_SIZES}
    wide = [kernel for kernel in kernels if kernel.kind in ("conv", "pointwise", "linear")]
    wide = [kernel for kernel in wide if kernel.out_height * kernel.out_width > 1] or [last]
    for place, kernel in (("first", wide[0]), ("last", wide[-1])):
        features |= _alignment(place, kernel, grid)
    if not isinstance(sample, Block):
        return features
    activation = getattr(sample, "activation", "none")
    return features | {f"activation {activation}": 1.0, f"kind {type(sample).__name__}": 1.0}


_MATRIX_CLASSES = ("conv", "depthwise", "pointwise", "vector")


def _alignment(place: str, kernel: Kernel, grid: int) -> dict[str, float]:
    """How the channels of a kernel fit the vectors of the processor."""
    read, written = kernel.in_channels, kernel.out_channels
    padded = round_up(written, grid)
    return {
        f"log channels read {place}": math.log(read),
        f"log channels written {place}": math.log(written),
        f"rest of 8 read {place}": read % 8,
        f"rest of 8 written {place}": written % 8,
        f"rest read {place}": read % grid / grid,
        f"rest written {place}": written % grid / grid,
        f"padding read {place}": round_up(read, grid) / read,
        f"padding written {place}": padded / written,
        f"padding of groups {place}": round_up(padded, CHANNEL_TILES[-1] * grid) / padded,
    }


def _ranges(kernels: Sequence[Kernel]) -> dict[str, float]:
    return {
        "FLOPs": sum(kernel.flops for kernel in kernels),
        "bytes moved": sum(kernel.moved_bytes for kernel in kernels),
        "bytes of weights": sum(kernel.weight_bytes for kernel in kernels),
        "pixels": max((kernel.height * kernel.width for kernel in kernels), default=0),
        "channels": max((kernel.out_channels for kernel in kernels), default=0),
    }


def _categories(sample: Sample, kernels: Sequence[Kernel]) -> frozenset[str]:
    found = {f"block kind {type(sample).__name__}"} if isinstance(sample, Block) else set()
    for kernel in kernels:
        found.add(f"operation {kernel.operation}")
        if kernel.kind in ("conv", "depthwise", "pool"):
            window = "x".join(map(str, kernel.kernel))
            found |= {f"{kernel.kind} kernel {window}", f"{kernel.kind} stride {kernel.stride[0]}"}
    return frozenset(found)
