"""What is predicted of a model file: its latency, and the share of each kernel that it runs."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

import pandas as pd

from ...devices.device import Setup
from ..counts import Kernel


@dataclass(frozen=True, slots=True)
class KernelPrediction:
    """One kernel of a model, by the name that the runtime gives it.

    `latency_ms` is what it adds to the model, in [`low_ms`, `high_ms`]; `share` is of the model's
    latency. `known` tells whether kernels of its sort were profiled; `reason` says what is
    strange about it, empty where nothing is.
    """

    name: str
    kernel: Kernel
    latency_ms: float
    low_ms: float
    high_ms: float
    share: float
    known: bool
    reason: str


@dataclass(frozen=True, slots=True)
class ModelPrediction:
    """A model's latency in ms with its interval, split into kernels.

    `remainder_ms` is what the kernels' sum leaves of `latency_ms`: calls, and what lies between
    kernels. `unknown_share` is the share of kernels of a sort that was never profiled. `source`
    tells whether the `runtime` itself gave the kernels, or `rules` about it did.
    """

    setup: Setup
    latency_ms: float
    low_ms: float
    high_ms: float
    remainder_ms: float
    unknown_share: float
    source: str
    reason: str
    kernels: tuple[KernelPrediction, ...]

    @property
    def flops(self) -> int:
        """FLOPs of all kernels."""
        return sum(item.kernel.flops for item in self.kernels)

    def unknown_operations(self) -> dict[str, float]:
        """Operations that were never profiled, each with its share of the latency."""
        shares: dict[str, float] = {}
        for item in self.kernels:
            if not item.known:
                operation = item.kernel.operation
                shares[operation] = shares.get(operation, 0.0) + item.share
        return shares

    def frame(self) -> pd.DataFrame:
        """A row for each kernel, in the order they run, with the kernel's own fields."""
        own = [item.name for item in fields(KernelPrediction) if item.name != "kernel"]
        rows = [
            {**{name: getattr(item, name) for name in own}, **asdict(item.kernel)}
            for item in self.kernels
        ]
        return pd.DataFrame(rows, columns=[*own, *(item.name for item in fields(Kernel))])

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {**asdict(self), "unknown_operations": self.unknown_operations()}
