"""What a kernel model sees of one kernel: amounts of work, and features that errors depend on."""

from __future__ import annotations

import math

from ..counts import Kernel
from ..features import kernel_term

VECTORS = (8, 16)
"""Channels that a vector may hold: work is also counted with channels rounded up to these."""

CACHE_BYTES = 2**20
"""A kernel that moves more than this leaves the second-level cache of most processors."""


def work(kernel: Kernel) -> dict[str, float]:
    """Non-negative amounts whose weighted sum is the physical estimate of a kernel's time."""
    moved = kernel.moved_bytes
    amounts = {
        "call": 1.0,
        "flops": float(kernel.flops),
        "input bytes": float(kernel.input_bytes),
        "weight bytes": float(kernel.weight_bytes),
        "output bytes": float(kernel.output_bytes),
        "spilled bytes": float(max(0, moved - CACHE_BYTES)),
        "spilled weights": float(max(0, kernel.weight_bytes - CACHE_BYTES)),
        "rows": float(kernel.out_height * kernel.groups),
    }
    for vector in VECTORS:
        amounts[f"flops in vectors of {vector}"] = kernel.flops * _padding(kernel, vector)
    if fused(kernel):
        amounts["fused"] = float(kernel.output_bytes)
    return amounts


def features(kernel: Kernel) -> dict[str, float]:
    """Features, most of them logarithms; operations and windows are categories of their own.

    Those of blocks' kernels, which tell how sizes fit the tiles that runtimes work in, and what
    matters for kernels of any network.
    """
    height, width = kernel.kernel[0], kernel.kernel[-1]
    values = {
        "out height": math.log(kernel.out_height),
        "out width": math.log(kernel.out_width),
        "in pixels": math.log(kernel.height * kernel.width),
        "groups": math.log(kernel.groups),
        "channels of a group": math.log(kernel.in_channels / kernel.groups),
        "work": math.log(1 + kernel.flops),
        "weight bytes": math.log(1 + kernel.weight_bytes),
        "input bytes": math.log(1 + kernel.input_bytes),
        "window height": math.log(height),
        "window width": math.log(width),
        "stride": math.log(max(kernel.stride)),
        "dilation": math.log(max(kernel.dilation)),
        "vertical stride alone": math.log(kernel.stride[0] / kernel.stride[-1]),
        "row of 4 KiB": float(kernel.out_width * kernel.out_channels * 4 % 4096 == 0),
        f"operation {kernel.operation}": 1.0,
    }
    for vector in VECTORS:
        values[f"out padding to {vector}"] = math.log(_rounded(kernel.out_channels, vector))
        values[f"in padding to {vector}"] = math.log(_rounded(kernel.in_channels, vector))
    return {**values, **kernel_term(kernel, VECTORS[0]).features}


def categories(kernel: Kernel) -> frozenset[str]:
    """What a kernel is, that training kernels must have been for it to be like them."""
    window = "x".join(map(str, kernel.kernel))
    names = {f"operation {name}" for name in kernel.operation.split("+")}
    if kernel.kind in ("conv", "depthwise", "pool"):
        names.add(f"window {window}")
    if max(kernel.dilation) > 1:
        names.add("dilation")
    return frozenset(names)


def ranges(kernel: Kernel) -> dict[str, float]:
    """Amounts that training kernels must have spanned for a kernel to be like them."""
    spans = {"bytes": float(max(1, kernel.moved_bytes))}
    if kernel.kind in ("conv", "pointwise", "depthwise", "linear", "matmul"):
        spans |= {
            "FLOPs": float(max(1, kernel.flops)),
            "input channels": float(kernel.in_channels),
            "output channels": float(kernel.out_channels),
        }
    return spans


def fused(kernel: Kernel) -> tuple[str, ...]:
    """The operations that became part of the kernel's first one."""
    return tuple(kernel.operation.split("+")[1:])


def _rounded(channels: int, vector: int) -> float:
    """By what factor rounding up to whole vectors makes channels more."""
    return -(-channels // vector) * vector / channels


def _padding(kernel: Kernel, vector: int) -> float:
    padding = _rounded(kernel.out_channels, vector)
    return padding if kernel.kind == "depthwise" else padding * _rounded(kernel.in_channels, vector)
