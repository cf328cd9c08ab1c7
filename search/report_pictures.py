"""The figures of the report, in its parts: those that there is data for, and what they show."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import pandas as pd
from matplotlib.figure import Figure

from . import plots
from .curves import changing_figures, worst_seen
from .report_captions import (
    best_sentence,
    budgets_sentence,
    figures_sentence,
    held_out_sentence,
    hypervolume_sentence,
    options_sentence,
)
from .report_input import ReportInput, Winner
from .report_values import is_known


@dataclass(frozen=True)
class Picture:
    """A figure in the page: its name there and as a file, what it shows, and how to read it."""

    name: str
    heading: str
    content: bytes
    caption: str

    @property
    def file(self) -> str:
        """Name of the PNG file beside the page."""
        return f"{self.name.replace('-', '_')}.png"

    @property
    def data(self) -> str:
        """The image as text, to stand in the page itself."""
        return base64.b64encode(self.content).decode()


@dataclass(frozen=True)
class Part:
    """A part of the page with one picture or more."""

    name: str
    heading: str
    pictures: tuple[Picture, ...]


def report_parts(data: ReportInput) -> tuple[list[Part], list[str]]:
    """The parts with figures, and a sentence for each figure that there is no data for."""
    left_out: list[str] = []
    parts = []

    def add(
        name: str,
        heading: str,
        frame: pd.DataFrame,
        needs: Sequence[str],
        draw: Callable[[], Figure],
        caption: Callable[[], str],
    ) -> None:
        if _lacks(frame, needs):
            left_out.append(f"{heading}: there is no data for it in this run.")
            return
        picture = Picture(name, heading, plots.png(draw()), caption())
        parts.append(Part(name, heading, (picture,)))

    if not data.budgets.empty:
        add(
            "budgets",
            "Networks for several budgets",
            data.budgets,
            ("predicted_ms", "accuracy"),
            lambda: plots.pareto_points(data.budgets),
            lambda: budgets_sentence(data.budgets),
        )
    if _lacks(data.trajectory, ("predicted_ms", "accuracy")):
        left_out.append("How the search went: there is no data for it in this run.")
    else:
        parts.append(Part("search", "How the search went", tuple(_of_the_search(data))))
    add(
        "held-out",
        "Predicted against measured latency",
        data.held_out,
        ("predicted_ms", "measured_ms"),
        lambda: plots.predicted_against_measured(data.held_out),
        lambda: held_out_sentence(data.held_out),
    )
    for number, winner in enumerate(data.winners, start=1):
        add(
            "time-by-block" if number == 1 else f"time-by-block-{number}",
            f"Time by block: {winner.name}",
            winner.block_times,
            ("latency_ms",),
            partial(plots.time_by_block, winner.block_times, winner.name),
            lambda: (
                "From the network's input at the top to its output. A bar is the block's "
                "calibrated share of the predicted latency."
            ),
        )
    add(
        "flops",
        "Latency against FLOPs",
        data.blocks,
        ("flops", "latency_ms"),
        lambda: plots.latency_against_flops(data.blocks),
        lambda: (
            "Single blocks, by kind. Blocks of equal FLOPs that lie far apart are why FLOPs "
            "make a poor stand-in for latency on this device."
        ),
    )
    return parts, left_out


def _lacks(frame: pd.DataFrame, needs: Sequence[str]) -> bool:
    return frame.empty or bool(frame[list(needs)].isna().any(axis=1).all())


def _of_the_search(data: ReportInput) -> list[Picture]:
    """Figures of what was evaluated, and of what the strategies learned from it."""
    trajectory = data.trajectory
    reference = worst_seen(trajectory)
    found = [
        Picture(
            "accuracy",
            "Accuracy against latency",
            plots.png(plots.accuracy_against_latency(trajectory, *_marks(data.winners))),
            "Every architecture that was evaluated, at its predicted latency. The search may "
            "choose among the filled points; hollow ones break its constraint."
            + (" Stars are what it chose" if data.winners else "")
            + (
                ", as they were before widths were scaled to the target."
                if any(is_known(winner.searched_ms) for winner in data.winners)
                else "." * bool(data.winners)
            ),
        ),
        Picture(
            "best-so-far",
            "Best accuracy so far",
            plots.png(plots.best_so_far(trajectory)),
            best_sentence(trajectory),
        ),
        Picture(
            "hypervolume",
            "Hypervolume so far",
            plots.png(plots.hypervolume_so_far(trajectory, reference)),
            hypervolume_sentence(trajectory, reference),
        ),
    ]
    names = changing_figures(trajectory)
    if names:
        figure = plots.strategy_figures(trajectory, names)
        caption = figures_sentence(trajectory, names)
        found.append(Picture("figures", "Figures of the strategy", plots.png(figure), caption))
    if not data.options.empty:
        strategy = data.winners[0].name if data.winners else str(trajectory["strategy"].iloc[0])
        figure = plots.chosen_options(data.options, strategy)
        caption = options_sentence(data.options, strategy)
        found.append(Picture("options", "Chosen options", plots.png(figure), caption))
    return found


def _marks(winners: Sequence[Winner]) -> tuple[pd.DataFrame, float]:
    """Where the first target's winners stand among its search's points, and that target."""
    target_ms = winners[0].target_ms if winners else float("nan")
    own = [winner for winner in winners if winner.target_ms == target_ms]
    marks = [(winner.name, *_place(winner)) for winner in own]
    return pd.DataFrame(marks, columns=["name", "predicted_ms", "accuracy"]), target_ms


def _place(winner: Winner) -> tuple[float, float]:
    """A winner's latency and accuracy as the search knew them."""
    if is_known(winner.searched_ms) and is_known(winner.searched_accuracy):
        return winner.searched_ms, winner.searched_accuracy
    return winner.predicted_ms, winner.validation_accuracy
