"""The best networks of several latency budgets: predicted beside measured, with intervals."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from ..pareto import front
from .look import BLUE, INK, MUTED, ORANGE, legend, new_figure, plain, title

FAINT = 0.3


def pareto_points(points: pd.DataFrame) -> Figure:
    """Accuracy over latency of networks found for several budgets.

    `points` has the columns name, target_ms, predicted_ms, low_ms, high_ms, measured_ms,
    measured_low_ms, measured_high_ms and accuracy (a share of 1, on test images); NaN:
    not known. Predictions are
    hollow, with their 90 % intervals, measurements filled, with their 95 % intervals. Points that
    another one dominates are faint; the line is the front of the others.
    """
    data = points.dropna(subset=["predicted_ms", "accuracy"])
    figure, axes = new_figure(9.2, 5.0)
    accuracy = data["accuracy"].to_numpy(dtype=float)
    real_ms = data["measured_ms"].fillna(data["predicted_ms"]).to_numpy(dtype=float)
    kept = front(real_ms, accuracy)
    order = np.argsort(real_ms[kept])
    axes.step(
        real_ms[kept][order],
        accuracy[kept][order],
        where="post",
        color=MUTED,
        linewidth=1.2,
        label="front",
    )
    for place, line in enumerate(data.to_dict("records")):
        alpha = 1.0 if kept[place] else FAINT
        height = accuracy[place]
        if np.isfinite(line["measured_ms"]):
            ends = [line["predicted_ms"], line["measured_ms"]]
            axes.plot(ends, [height] * 2, color=INK, linewidth=0.8, alpha=alpha)
        for part, low, high, marker, colour, face in (
            ("predicted_ms", "low_ms", "high_ms", "o", ORANGE, "white"),
            ("measured_ms", "measured_low_ms", "measured_high_ms", "D", BLUE, BLUE),
        ):
            value = line[part]
            if not np.isfinite(value):
                continue
            bars = np.nan_to_num(np.clip([[value - line[low]], [line[high] - value]], 0, None))
            axes.errorbar(
                [value],
                [height],
                xerr=bars,
                fmt=marker,
                markersize=7,
                color=colour,
                markerfacecolor=face,
                ecolor=colour,
                elinewidth=1.3,
                capsize=3,
                alpha=alpha,
                zorder=4,
            )
        # The same network may have been found for several budgets: their names stand in a pile.
        above = np.sum((real_ms[:place] == real_ms[place]) & (accuracy[:place] == height))
        axes.annotate(
            plain(str(line["name"]), 28),
            (real_ms[place], height),
            xytext=(0, 9 + 11 * int(above)),
            textcoords="offset points",
            ha="center",
            fontsize=8.5,
            color=INK,
            alpha=max(alpha, 0.5),
        )
    for marker, colour, face, label in (
        ("o", ORANGE, "white", "predicted, 90 % interval"),
        ("D", BLUE, BLUE, "measured, 95 % interval"),
    ):
        axes.plot([], [], marker, color=colour, markerfacecolor=face, markersize=7, label=label)
    if not kept.all():
        axes.plot([], [], "D", color=BLUE, alpha=FAINT, markersize=7, label="dominated")
    axes.margins(x=0.06, y=0.14)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
    title(axes, "Networks for several budgets")
    axes.set_xlabel("latency (ms)")
    axes.set_ylabel("accuracy on test images")
    legend(axes, loc="lower right")
    return figure
