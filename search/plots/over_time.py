"""How a search went: curves over its evaluations and seconds, a line for each strategy."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, PercentFormatter

from ..curves import Band, Run, band, runs
from ..curves import best_so_far as best_of
from ..curves import hypervolume_so_far as area_of
from ..pareto import Floats
from .look import INK, MARKERS, dress, empty_figure, legend, new_figure, plain, strategy_colours
from .look import title as give_title

LINES = ("-", (0, (5, 1.5)), (0, (1, 1)), (0, (5, 1, 1, 1)))
"""A second way to tell lines apart, beside their colours."""

UNITS = {"policy_entropy": "entropy of the policy (nats)", "strength": "strength b of the reward"}
"""What the figures of strategies are, with their units; others are shown by their names."""


def best_so_far(trajectory: pd.DataFrame) -> Figure:
    """Best accuracy of a feasible architecture so far, over evaluations and over seconds.

    `trajectory` is as in `search.curves`; seconds are left out where they are not known. A line
    begins at the first feasible architecture. Of several runs of a strategy it is the median, in
    a band from the worst to the best of them.
    """
    found = runs(trajectory)
    timed = bool(found) and all(np.isfinite(run.seconds).all() for run in found)
    figure = empty_figure(10.2 if timed else 8.6, 4.3)
    left = figure.add_subplot(1, 2 if timed else 1, 1)
    dress(left)
    _draw(left, found, best_of)
    left.set_xlabel("architectures evaluated")
    left.set_ylabel("accuracy on validation images")
    left.yaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
    give_title(left, "Best accuracy so far, by architectures evaluated")
    if timed:
        right = figure.add_subplot(1, 2, 2, sharey=left)
        dress(right)
        right.tick_params(labelleft=False)
        unit, seconds = _unit_of_time(max(float(np.nanmax(run.seconds)) for run in found))
        _draw(right, found, best_of, lambda run: run.seconds / seconds)
        right.set_xlabel(f"{unit} of evaluation")
        give_title(right, "and by time")
    legend(left, loc="lower right")
    return figure


def hypervolume_so_far(trajectory: pd.DataFrame, reference: tuple[float, float]) -> Figure:
    """Area between the front of accuracy against predicted latency and `reference`, so far.

    `trajectory` is as in `search.curves`, `reference` a latency in ms and an accuracy.
    """
    figure, axes = new_figure(8.6, 4.3)
    _draw(axes, runs(trajectory), lambda run: area_of(run, reference) * 100)
    axes.set_xlabel("architectures evaluated")
    axes.set_ylabel("hypervolume (ms · % of accuracy)")
    axes.set_ylim(bottom=0)
    give_title(axes, "Hypervolume of accuracy against latency so far")
    legend(axes, loc="lower right")
    return figure


def strategy_figures(trajectory: pd.DataFrame, names: list[str]) -> Figure:
    """What strategies tell of themselves, a panel for each of `names`, over their evaluations.

    `trajectory` is as in `search.curves` and has a column for each name, NaN where a strategy
    has no such figure.
    """
    figure = empty_figure(8.6, 0.8 + 2.6 * len(names))
    found = runs(trajectory)
    first: Axes | None = None
    for place, name in enumerate(names, start=1):
        axes = figure.add_subplot(len(names), 1, place, sharex=first)
        first = first or axes
        dress(axes)
        telling = [run for run in found if run.rows[name].notna().any()]
        _draw(axes, telling, partial(_held, name=name), colours_of=found)
        axes.set_ylabel(plain(UNITS.get(name, name.replace("_", " "))))
        axes.tick_params(labelbottom=place == len(names))
        legend(axes, loc="best")
        if place == 1:
            give_title(axes, "What the strategy tells of itself")
        if place == len(names):
            axes.set_xlabel("architectures evaluated")
    return figure


def _held(run: Run, name: str) -> Floats:
    return np.asarray(run.rows[name].astype(float).ffill(), dtype=np.float64)


def _draw(
    axes: Axes,
    found: list[Run],
    curve: Callable[[Run], Floats],
    places: Callable[[Run], Floats] = lambda run: run.evaluations,
    colours_of: list[Run] | None = None,
) -> None:
    """A line for each strategy, with a band around it where it was run more than once."""
    colours = strategy_colours(run.strategy for run in colours_of or found)
    for number, (strategy, colour) in enumerate(colours.items()):
        own = [run for run in found if run.strategy == strategy]
        if not own:
            continue
        drawn = band([(places(run), curve(run)) for run in own])
        if not drawn.x.size:
            continue
        line = LINES[number % len(LINES)]
        label = plain(strategy) + (f" ({len(own)} runs)" if len(own) > 1 else "")
        if len(own) > 1:
            axes.fill_between(
                drawn.x, drawn.low, drawn.high, step="post", color=colour, alpha=0.16, linewidth=0
            )
        axes.step(drawn.x, drawn.middle, where="post", color=colour, linewidth=2, linestyle=line)
        _end(axes, drawn, colour, MARKERS[number % len(MARKERS)], line, label)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))


def _end(axes: Axes, drawn: Band, colour: str, marker: str, line: object, label: str) -> None:
    """A mark where the line ends, which the legend shows with the line."""
    axes.plot(drawn.x[-1:], drawn.middle[-1:], marker, color=colour, markersize=6, mec=INK, mew=0.6)
    axes.plot([], [], color=colour, linewidth=2, linestyle=line, marker=marker, label=label)


def _unit_of_time(longest_seconds: float) -> tuple[str, float]:
    """Label of the axis, and how many seconds its unit has."""
    if longest_seconds >= 3 * 3600:
        return "hours", 3600.0
    if longest_seconds >= 300:
        return "minutes", 60.0
    return "seconds", 1.0
