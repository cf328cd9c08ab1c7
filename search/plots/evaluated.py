"""What a search evaluated, and what it ended with, by accuracy and latency."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from .look import INK, ORANGE, legend, new_figure, plain, point_look, strategy_colours, title


def accuracy_against_latency(
    trajectory: pd.DataFrame, winners: pd.DataFrame, target_ms: float
) -> Figure:
    """Accuracy over predicted latency of everything that was evaluated, and of the winners.

    `trajectory` has the columns strategy, predicted_ms, accuracy and feasible, `winners` name,
    predicted_ms and accuracy; accuracies are shares of 1. NaN as `target_ms` draws no target.
    """
    figure, axes = new_figure(9.2, 5.0)
    colours = strategy_colours(trajectory["strategy"])
    # Random search first: the search's fewer points then lie on top of its cloud.
    for strategy in sorted(colours, key=lambda name: colours[name] != ORANGE):
        rows = trajectory[trajectory["strategy"] == strategy]
        feasible = rows["feasible"].astype(bool)
        marker = "s" if colours[strategy] == ORANGE else "o"
        size, alpha = point_look(len(trajectory))
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
    title(axes, "Accuracy against predicted latency")
    axes.set_xlabel("predicted latency (ms)")
    axes.set_ylabel("accuracy on validation images")
    legend(axes, loc="upper left", bbox_to_anchor=(1.01, 1.02))
    return figure


def _winner_colour(name: str, strategies: Mapping[str, str]) -> str:
    """The colour of the strategy that the winner's name begins with: "evolution + elasticity"."""
    fitting = [strategy for strategy in strategies if name.startswith(strategy)]
    if fitting:
        return strategies[max(fitting, key=len)]
    return strategy_colours([name])[name]
