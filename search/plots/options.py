"""Heat maps of the options that a search evaluated, early beside late."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from .look import INK, MUTED, RED, dress, empty_figure, plain, title

SHADES = "Blues"
NEVER_ON = "#eceff2"
MOST_LABELS = 34
"""Choices whose names fit below a panel; of more, every second or third is named."""

COLUMNS_INCHES = 4.0
"""Width of a panel."""

ROW_INCHES, PANEL_INCHES, LETTER_INCHES = 0.21, 0.2, 0.075


@dataclass(frozen=True)
class _Panel:
    """Choices of one sort: a column each. `options` name the rows, where they all share them."""

    heading: str
    choices: list[str]
    rows: pd.DataFrame
    options: list[str] | None
    height: int

    @property
    def labels(self) -> list[str]:
        """The choices' names without what the heading says."""
        names = [name.removesuffix(f".{self.heading}") for name in self.choices]
        return ["" if name == self.heading else plain(name, 26) for name in names]

    @property
    def step(self) -> int:
        """Every how many choices one is named."""
        return -(-len(self.choices) // MOST_LABELS)

    @property
    def rotated(self) -> bool:
        """Whether the choices' names are too long to stand upright below their columns."""
        room = COLUMNS_INCHES / len(self.choices) * self.step
        return max(map(len, self.labels)) * LETTER_INCHES > room

    @property
    def inches(self) -> float:
        """Height of the panel with the names below it."""
        longest = max(map(len, self.labels)) if self.rotated else 2
        return PANEL_INCHES + ROW_INCHES * self.height + LETTER_INCHES * longest


def chosen_options(shares: pd.DataFrame, strategy: str) -> Figure:
    """How often each option was evaluated: first third of a search at the left, last at the right.

    `shares` has the columns choice, option, first_third, last_third (shares of 1, NaN where the
    choice was never on) and chosen. Choices of one sort, by their names, have a panel; those whose
    options differ have them written into the cells. A dot marks what the search ended with.
    """
    panels = _panels(shares)
    inches = 0.9 + sum(panel.inches for panel in panels)
    figure = empty_figure(10.2, inches)
    grid = figure.add_gridspec(
        len(panels), 2, height_ratios=[panel.height for panel in panels]
    ).subplots(squeeze=False)
    mesh: QuadMesh | None = None
    for axes, panel in zip(grid, panels, strict=True):
        for place, part in enumerate(("first_third", "last_third")):
            mesh = _draw(axes[place], panel, part, named=place == 0)
    title(grid[0, 0], f"{plain(strategy)}: first third")
    title(grid[0, 1], "last third")
    figure.align_ylabels(grid[:, 0])
    if mesh is not None:
        bar = figure.colorbar(
            mesh,
            ax=list(grid.flat),
            location="right",
            aspect=40,
            shrink=min(1.0, 5 / inches),
            pad=0.01,
        )
        bar.ax.yaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
        bar.ax.tick_params(colors=MUTED, labelcolor=INK, labelsize=8.5)
        bar.set_label("share of the evaluations", fontsize=9.5, color=INK)
        bar.outline.set_visible(False)
    return figure


def _panels(shares: pd.DataFrame) -> list[_Panel]:
    found = []
    for heading, rows in shares.groupby(shares["choice"].map(_sort), sort=False):
        choices = list(dict.fromkeys(rows["choice"]))
        sets = [list(own["option"]) for _, own in rows.groupby("choice", sort=False)]
        widest = max(sets, key=len)
        shared = all(set(options) <= set(widest) for options in sets)
        found.append(_Panel(str(heading), choices, rows, widest if shared else None, len(widest)))
    return found


def _sort(choice: str) -> str:
    """What choices of one sort are called: `layer` for `stage2.layer3`, `kernel` for `a.kernel`."""
    last = choice.rsplit(".", 1)[-1]
    return re.sub(r"[\d\W_]+$", "", re.sub(r"\d+", "", last)) or last


def _draw(axes: Axes, panel: _Panel, part: str, named: bool) -> QuadMesh:
    shares = np.full((panel.height, len(panel.choices)), np.nan)
    texts: list[tuple[int, int, str]] = []
    dots: list[tuple[float, float]] = []
    exists = np.zeros(shares.shape, dtype=bool)
    for column, choice in enumerate(panel.choices):
        own = panel.rows[panel.rows["choice"] == choice]
        for index, line in enumerate(own.to_dict("records")):
            row = index if panel.options is None else panel.options.index(line["option"])
            shares[row, column] = line[part]
            exists[row, column] = True
            texts.append((row, column, str(line["option"])))
            if line["chosen"]:
                dots.append((column + (0.5 if panel.options else 0.85), row + 0.5))
    dress(axes)
    axes.grid(visible=False)
    axes.spines[["bottom", "left"]].set_visible(False)
    # Cells of choices that were never on are grey, places without an option stay white.
    axes.pcolormesh(
        np.where(exists & np.isnan(shares), 1.0, np.nan), cmap=ListedColormap([NEVER_ON])
    )
    narrow = len(panel.choices) > 60
    mesh = axes.pcolormesh(
        np.ma.masked_invalid(shares),
        cmap=SHADES,
        vmin=0,
        vmax=1,
        edgecolors="white",
        linewidth=0.2 if narrow else 0.6,
    )
    axes.set_ylim(panel.height, 0)
    axes.tick_params(length=0, labelsize=7.5)
    places = range(0, len(panel.choices), panel.step)
    labels = panel.labels
    axes.set_xticks(
        [place + 0.5 for place in places],
        [labels[place] for place in places],
        rotation=90 if panel.rotated else 0,
    )
    axes.set_yticks([])
    if panel.options is None:
        for row, column, text in texts:
            dark = np.nan_to_num(shares[row, column]) > 0.55
            axes.text(
                column + 0.5,
                row + 0.52,
                plain(text, 12),
                ha="center",
                va="center",
                fontsize=6.5,
                color="white" if dark else INK,
            )
    elif named:
        axes.set_yticks(
            [row + 0.5 for row in range(panel.height)],
            [plain(option, 24) for option in panel.options],
        )
    if named:
        axes.set_ylabel(
            plain(panel.heading, 24).replace("_", "\n"), fontsize=9, fontweight="bold", color=INK
        )
    if dots and part == "last_third":
        axes.scatter(
            [x for x, _ in dots],
            [y for _, y in dots],
            s=5 if narrow else 16,
            color=RED,
            edgecolors="white",
            linewidths=0.3 if narrow else 0.7,
            zorder=4,
        )
    return mesh
