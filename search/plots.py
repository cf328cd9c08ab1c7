"""Figures of the report: a data frame goes in, a matplotlib `Figure` comes out.

No pyplot and no change of matplotlib's settings, so a figure looks the same wherever it is drawn.
Colours are those of Okabe and Ito, which colour-blind readers can tell apart; shapes and fillings
repeat what the colours say.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, PercentFormatter

BLUE, ORANGE, GREEN, RED = "#0072B2", "#E69F00", "#009E73", "#D55E00"
PINK, SKY, YELLOW, BLACK = "#CC79A7", "#56B4E9", "#F0E442", "#000000"
SERIES = (BLUE, GREEN, PINK, SKY, RED, BLACK)
KINDS = (BLUE, ORANGE, GREEN, PINK, SKY, RED, YELLOW, BLACK)
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p")
INK, MUTED, GRID, BAND = "#1f2933", "#5f6c7b", "#e4e8ec", "#dce9f2"

DOTS_PER_INCH = 160
BAND_SHARE = 0.10
"""Half width of the band around equality in `predicted_against_measured`."""


def png(figure: Figure) -> bytes:
    """The figure as the bytes of a PNG file, the same for the same figure."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DOTS_PER_INCH, metadata={"Software": None})
    return buffer.getvalue()


def strategy_colours(names: Iterable[str]) -> dict[str, str]:
    """A colour for each strategy, in order of appearance; random search is always orange."""
    others = iter(range(10**6))
    return {
        name: ORANGE if "random" in name.lower() else SERIES[next(others) % len(SERIES)]
        for name in dict.fromkeys(names)
    }


def predicted_against_measured(held_out: pd.DataFrame) -> Figure:
    """Predicted over measured latency of networks that no model was fitted to.

    `held_out` has the columns network, predicted_ms, low_ms, high_ms, measured_ms and verdict.
    Rows without a prediction or a measurement are not drawn; those without an interval get no
    error bar.
    """
    data = held_out.dropna(subset=["predicted_ms", "measured_ms"])
    figure, axes = _new_figure(6.4, 5.9)
    values = data[["predicted_ms", "low_ms", "high_ms", "measured_ms"]].to_numpy(dtype=float)
    low, high = _limits(values[np.isfinite(values)])
    line = np.array([low, high])
    axes.fill_between(
        line,
        line * (1 - BAND_SHARE),
        line * (1 + BAND_SHARE),
        color=BAND,
        linewidth=0,
        label=f"within {_percent(BAND_SHARE)} of the measurement",
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
    _title(axes, "Held-out networks: predicted against measured latency")
    axes.set_xlabel("measured latency (ms)")
    axes.set_ylabel("predicted latency (ms), with its 90 % interval")
    _legend(axes, loc="upper left")
    return figure


def accuracy_against_latency(
    trajectory: pd.DataFrame, winners: pd.DataFrame, target_ms: float
) -> Figure:
    """Accuracy over predicted latency of everything that was evaluated, and of the winners.

    `trajectory` has the columns strategy, predicted_ms, accuracy and feasible, `winners` name,
    predicted_ms and accuracy; accuracies are shares of 1. NaN as `target_ms` draws no target.
    """
    figure, axes = _new_figure(9.2, 5.0)
    colours = strategy_colours(trajectory["strategy"])
    # Random search first: the search's fewer points then lie on top of its cloud.
    for strategy in sorted(colours, key=lambda name: colours[name] != ORANGE):
        rows = trajectory[trajectory["strategy"] == strategy]
        feasible = rows["feasible"].astype(bool)
        marker = "s" if colours[strategy] == ORANGE else "o"
        size, alpha = _point_look(len(trajectory))
        axes.scatter(
            rows["predicted_ms"][feasible],
            rows["accuracy"][feasible],
            s=size,
            marker=marker,
            color=colours[strategy],
            alpha=alpha,
            linewidths=0,
            label=plain(f"{strategy} ({len(rows)})"),
        )
        axes.scatter(
            rows["predicted_ms"][~feasible],
            rows["accuracy"][~feasible],
            s=size,
            marker=marker,
            facecolors="none",
            edgecolors=colours[strategy],
            alpha=alpha * 0.7,
            linewidths=0.8,
        )
    for winner in winners.to_dict("records"):
        axes.scatter(
            [winner["predicted_ms"]],
            [winner["accuracy"]],
            s=260,
            marker="*",
            color=_winner_colour(str(winner["name"]), colours),
            edgecolors=INK,
            linewidths=1,
            zorder=5,
            label=plain(f"winner of {winner['name']}"),
        )
    if np.isfinite(target_ms):
        axes.axvline(target_ms, color=INK, linestyle="--", linewidth=1.2, label="target")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
    _title(axes, "Accuracy against predicted latency")
    axes.set_xlabel("predicted latency (ms)")
    axes.set_ylabel("accuracy on validation images")
    _legend(axes, loc="upper left", bbox_to_anchor=(1.01, 1.02))
    return figure


def latency_against_flops(blocks: pd.DataFrame) -> Figure:
    """Measured latency of blocks over their FLOPs, both axes logarithmic.

    `blocks` has the columns kind, label, flops and latency_ms; rows that are not positive have no
    place on such axes and are not drawn.
    """
    data = blocks[(blocks["flops"] > 0) & (blocks["latency_ms"] > 0)]
    figure, axes = _new_figure(9.2, 5.0)
    size, alpha = _point_look(len(data), largest=34)
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
    _title(axes, "Latency of single blocks against their FLOPs")
    axes.set_xlabel("MFLOPs (logarithmic)")
    axes.set_ylabel("measured latency (ms, logarithmic)")
    _legend(axes, loc="upper left", bbox_to_anchor=(1.01, 1.02))
    return figure


def time_by_block(block_times: pd.DataFrame, name: str) -> Figure:
    """Where a network spends its time: a bar for each block, from input (top) to output.

    `block_times` has the columns block, kind and latency_ms, in the network's order.
    """
    count = len(block_times)
    figure, axes = _new_figure(8.6, 1.5 + 0.27 * count)
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
        share = f"  ({_percent(value / total_ms)})" if measured and total_ms > 0 else ""
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
    _title(axes, f"Time by block: {plain(name)}, {total_ms:.4g} ms in all")
    axes.set_xlabel("share of the predicted latency (ms)")
    _legend(axes, loc="upper left", bbox_to_anchor=(1.01, 1.02))
    return figure


def search_trajectory(trajectory: pd.DataFrame) -> Figure:
    """Best accuracy of a feasible architecture so far, over the evaluations, for each strategy.

    `trajectory` has the columns strategy, index, accuracy and feasible. A line begins at the first
    feasible architecture.
    """
    figure, axes = _new_figure(8.6, 4.4)
    for strategy, colour in strategy_colours(trajectory["strategy"]).items():
        rows = trajectory[trajectory["strategy"] == strategy].sort_values("index")
        best = rows["accuracy"].where(rows["feasible"].astype(bool)).cummax().ffill()
        if best.notna().any():
            evaluations = rows["index"] - rows["index"].min() + 1
            axes.step(
                evaluations,
                best,
                where="post",
                color=colour,
                linewidth=2,
                linestyle="--" if colour == ORANGE else "-",
                label=plain(strategy),
            )
            axes.plot(evaluations.iloc[-1], best.iloc[-1], "o", color=colour, markersize=5)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
    _title(axes, "Best accuracy so far, by architectures evaluated")
    axes.set_xlabel("architectures evaluated")
    axes.set_ylabel("accuracy on validation images")
    _legend(axes, loc="lower right")
    return figure


def plain(text: str, longest: int = 60) -> str:
    """Text that matplotlib draws as it is: `$` starts no formula, a leading `_` hides no label."""
    shown = " ".join(text.split())
    shown = shown if len(shown) <= longest else shown[: longest - 1] + "…"
    shown = shown.replace("$", r"\$")
    return f" {shown}" if shown.startswith("_") else shown


def _new_figure(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure of this size in inches, and its axes in the report's look."""
    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_axisbelow(True)
    axes.grid(visible=True, color=GRID, linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["bottom", "left"]].set_color("#aab4be")
    axes.tick_params(colors=MUTED, labelcolor=INK, labelsize=9.5)
    for axis in (axes.xaxis, axes.yaxis):
        axis.label.set(fontsize=10.5, color=INK)
    return figure, axes


def _title(axes: Axes, text: str) -> None:
    axes.set_title(text, loc="left", fontsize=12, fontweight="bold", color=INK, pad=10)


def _legend(axes: Axes, **place: Any) -> None:
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        axes.legend(
            handles,
            labels,
            fontsize=9,
            frameon=True,
            framealpha=0.9,
            edgecolor="none",
            labelcolor=INK,
            **place,
        )


def _percent(share: float) -> str:
    return "< 1 %" if 0 < share < 0.005 else f"{share * 100:.0f} %"


def _limits(values: np.ndarray) -> tuple[float, float]:
    """Limits for two equal axes that leave a margin around all values."""
    low, high = float(np.min(values)), float(np.max(values))
    margin = 0.06 * (high - low) or 0.1 * abs(high) or 1.0
    return low - margin, high + margin


def _point_look(count: int, largest: float = 26) -> tuple[float, float]:
    """Size and opacity of points that stay apart where there are many."""
    return (largest, 0.75) if count <= 400 else (largest / 2, 0.45)


def _winner_colour(name: str, strategies: Mapping[str, str]) -> str:
    """The colour of the strategy that the winner's name begins with: "evolution + elasticity"."""
    fitting = [strategy for strategy in strategies if name.startswith(strategy)]
    if fitting:
        return strategies[max(fitting, key=len)]
    return strategy_colours([name])[name]
