"""The look of the report's figures: colours, axes, titles, legends, and the bytes of a PNG file.

No pyplot and no change of matplotlib's settings, so a figure looks the same wherever it is drawn.
Colours are those of Okabe and Ito, which colour-blind readers can tell apart; shapes and fillings
repeat what the colours say.
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, RED = "#0072B2", "#E69F00", "#009E73", "#D55E00"
PINK, SKY, YELLOW, BLACK = "#CC79A7", "#56B4E9", "#F0E442", "#000000"
SERIES = (BLUE, GREEN, PINK, SKY, RED, BLACK)
KINDS = (BLUE, ORANGE, GREEN, PINK, SKY, RED, YELLOW, BLACK)
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p")
INK, MUTED, GRID, BAND = "#1f2933", "#5f6c7b", "#e4e8ec", "#dce9f2"

DOTS_PER_INCH = 160


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


def plain(text: str, longest: int = 60) -> str:
    """Text that matplotlib draws as it is: `$` starts no formula, a leading `_` hides no label."""
    shown = " ".join(text.split())
    shown = shown if len(shown) <= longest else shown[: longest - 1] + "…"
    shown = shown.replace("$", r"\$")
    return f" {shown}" if shown.startswith("_") else shown


def empty_figure(width: float, height: float) -> Figure:
    """A figure of this size in inches, without axes."""
    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def new_figure(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure of this size in inches, and its axes in the report's look."""
    figure = empty_figure(width, height)
    axes = figure.add_subplot()
    dress(axes)
    return figure, axes


def dress(axes: Axes) -> None:
    """Give axes the report's look."""
    axes.set_axisbelow(True)
    axes.grid(visible=True, color=GRID, linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["bottom", "left"]].set_color("#aab4be")
    axes.tick_params(colors=MUTED, labelcolor=INK, labelsize=9.5)
    for axis in (axes.xaxis, axes.yaxis):
        axis.label.set(fontsize=10.5, color=INK)


def title(axes: Axes, text: str) -> None:
    """Put a title over the left end of axes."""
    axes.set_title(text, loc="left", fontsize=12, fontweight="bold", color=INK, pad=10)


def legend(axes: Axes, **place: Any) -> None:
    """Add a legend where something has a label; `place` is matplotlib's."""
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


def percent(share: float) -> str:
    """A share of 1 as a label."""
    return "< 1 %" if 0 < share < 0.005 else f"{share * 100:.0f} %"


def point_look(count: int, largest: float = 26) -> tuple[float, float]:
    """Size and opacity of points that stay apart where there are many."""
    return (largest, 0.75) if count <= 400 else (largest / 2, 0.45)
