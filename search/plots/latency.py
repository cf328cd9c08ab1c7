"""Figures of latencies: predicted beside measured, over FLOPs, and block by block."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from .look import (
    BAND,
    BLUE,
    INK,
    KINDS,
    MARKERS,
    MUTED,
    RED,
    legend,
    new_figure,
    percent,
    plain,
    point_look,
    title,
)

BAND_SHARE = 0.10
"""Half width of the band around equality in `predicted_against_measured`."""


def predicted_against_measured(held_out: pd.DataFrame) -> Figure:
    """Predicted over measured latency of networks that no model was fitted to.

    `held_out` has the columns network, predicted_ms, low_ms, high_ms, measured_ms and verdict.
    Rows without a prediction or a measurement are not drawn; those without an interval get no
    error bar.
    """
    data = held_out.dropna(subset=["predicted_ms", "measured_ms"])
    figure, axes = new_figure(6.4, 5.9)
    values = data[["predicted_ms", "low_ms", "high_ms", "measured_ms"]].to_numpy(dtype=float)
    low, high = _limits(values[np.isfinite(values)])
    line = np.array([low, high])
    axes.fill_between(
        line,
        line * (1 - BAND_SHARE),
        line * (1 + BAND_SHARE),
        color=BAND,
        linewidth=0,
        label=f"within {percent(BAND_SHARE)} of the measurement",
    )
    axes.plot(line, line, color=MUTED, linewidth=1, label="predicted = measured")
    stable = data["verdict"] == "stable"
    for rows, label, marker, colour, face in (
        (data[stable], "stable", "o", BLUE, BLUE),
        (data[~stable], "noisy or throttled", "D", RED, "white"),
    ):
        if rows.empty:
            continue
        predicted = rows["predicted_ms"].to_numpy(dtype=float)
        bars = [predicted - rows["low_ms"], rows["high_ms"] - predicted]
        axes.errorbar(
            rows["measured_ms"],
            predicted,
            # An interval that misses its own prediction, or is missing, has no bar on that side.
            yerr=np.nan_to_num(np.clip(np.array(bars, dtype=float), 0, None)),
            fmt=marker,
            markersize=6,
            color=colour,
            markerfacecolor=face,
            ecolor=colour,
            elinewidth=1.1,
            capsize=2.5,
            label=f"{label} ({len(rows)})",
        )
    axes.set(xlim=(low, high), ylim=(low, high), aspect="equal")
    title(axes, "Held-out networks: predicted against measured latency")
    axes.set_xlabel("measured latency (ms)")
    axes.set_ylabel("predicted latency (ms), with its 90 % interval")
    legend(axes, loc="upper left")
    return figure


def latency_against_flops(blocks: pd.DataFrame) -> Figure:
    """Measured latency of blocks over their FLOPs, both axes logarithmic.

    `blocks` has the columns kind, label, flops and latency_ms; rows that are not positive have no
    place on such axes and are not drawn.
    """
    data = blocks[(blocks["flops"] > 0) & (blocks["latency_ms"] > 0)]
    figure, axes = new_figure(9.2, 5.0)
    size, alpha = point_look(len(data), largest=34)
    for number, (kind, rows) in enumerate(data.groupby("kind", sort=False)):
        axes.scatter(
            rows["flops"] / 1e6,
            rows["latency_ms"],
            s=size,
            marker=MARKERS[number % len(MARKERS)],
            color=KINDS[number % len(KINDS)],
            edgecolors=INK,
            linewidths=0.3,
            alpha=max(alpha, 0.6),
            label=plain(str(kind)),
        )
    axes.set_xscale("log")
    axes.set_yscale("log")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_formatter(FuncFormatter(lambda *_: ""))
    title(axes, "Latency of single blocks against their FLOPs")
    axes.set_xlabel("MFLOPs (logarithmic)")
    axes.set_ylabel("measured latency (ms, logarithmic)")
    legend(axes, loc="upper left", bbox_to_anchor=(1.01, 1.02))
    return figure


def time_by_block(block_times: pd.DataFrame, name: str) -> Figure:
    """Where a network spends its time: a bar for each block, from input (top) to output.

    `block_times` has the columns block, kind and latency_ms, in the network's order.
    """
    count = len(block_times)
    figure, axes = new_figure(8.6, 1.5 + 0.27 * count)
    latency_ms = block_times["latency_ms"].to_numpy(dtype=float)
    total_ms = float(np.nansum(latency_ms))
    kinds = list(dict.fromkeys(block_times["kind"].astype(str)))
    for number, kind in enumerate(kinds):
        rows = np.flatnonzero(block_times["kind"].astype(str) == kind)
        axes.barh(
            rows,
            latency_ms[rows],
            height=0.72,
            color=KINDS[number % len(KINDS)],
            hatch="" if number < len(KINDS) else "///",
            edgecolor="white",
            linewidth=0.5,
            label=plain(kind),
        )
    largest = max(float(np.nanmax(latency_ms, initial=0.0)), 1e-12)
    for row, value in enumerate(latency_ms):
        measured = np.isfinite(value)
        share = f"  ({percent(value / total_ms)})" if measured and total_ms > 0 else ""
        axes.text(
            max(value, 0) + 0.008 * largest if measured else 0,
            row,
            f" {value:.3g} ms{share}" if measured else " not measured",
            va="center",
            fontsize=8,
            color=INK,
        )
    axes.set_yticks(range(count), [plain(str(block)) for block in block_times["block"]])
    axes.tick_params(axis="y", length=0, labelsize=8.5)
    axes.grid(visible=False, axis="y")
    axes.set_ylim(count - 0.4, -0.6)
    axes.set_xlim(min(0.0, float(np.nanmin(latency_ms, initial=0.0))), largest * 1.25)
    title(axes, f"Time by block: {plain(name)}, {total_ms:.4g} ms in all")
    axes.set_xlabel("share of the predicted latency (ms)")
    legend(axes, loc="upper left", bbox_to_anchor=(1.01, 1.02))
    return figure


def _limits(values: np.ndarray) -> tuple[float, float]:
    """Limits for two equal axes that leave a margin around all values."""
    low, high = float(np.min(values)), float(np.max(values))
    margin = 0.06 * (high - low) or 0.1 * abs(high) or 1.0
    return low - margin, high + margin
