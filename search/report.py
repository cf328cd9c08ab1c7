"""The report of a profile or a search: one HTML file that needs no network, and its figures."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, StrictUndefined
from matplotlib.figure import Figure

from ..devices.files import write_atomically
from . import plots
from .report_input import ReportInput, Winner
from .report_tables import headline, tiles, unsteady, verdict_counts, within_band
from .report_values import calibration_rows, counted, error_table, is_known, rows

__all__ = ["ReportInput", "Winner", "write_report"]


@dataclass(frozen=True)
class Picture:
    """A figure in the page: its file beside the report, what it shows, and how to read it."""

    section: str
    heading: str
    file: str
    content: bytes
    alternative: str
    caption: str

    @property
    def data(self) -> str:
        """The image as text, to stand in the page itself."""
        return base64.b64encode(self.content).decode()


def write_report(data: ReportInput, folder: Path) -> Path:
    """Write `report.html` and its figures as PNG files into `folder`; return the page's path.

    The page refers to nothing outside itself and runs no script. Parts without data are left out
    and named at its end. Raises `LatkitError` where a file can't be written.
    """
    pictures, left_out = _pictures(data)
    if not data.winners:
        left_out.insert(0, "Result: no search was run, so there is no winner to show.")
    if data.verdicts.empty:
        left_out.append("Verdicts: no measurement was handed to this report.")
    if not data.calibration:
        left_out.append("Calibration: no calibration was fitted.")
    page = _template().render(
        title=data.title,
        notes=list(data.notes),
        tiles=tiles(data),
        winners=list(data.winners),
        headline=headline(data.winners),
        verdict_counts=verdict_counts(data.verdicts),
        verdict_total=len(data.verdicts),
        unsteady=unsteady(data.verdicts),
        context=rows(data.context),
        calibration=calibration_rows(data.calibration),
        errors=error_table(data.calibration),
        pictures=pictures,
        left_out=left_out,
    )
    for picture in pictures:
        write_atomically(folder / picture.file, picture.content)
    path = folder / "report.html"
    write_atomically(path, page.encode())
    return path


def _template() -> Any:
    text = resources.files(__package__).joinpath("report.html.jinja").read_text("utf-8")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(text)


def _pictures(data: ReportInput) -> tuple[list[Picture], list[str]]:
    """The figures that there is data for, and a sentence for each that there is none for."""
    pictures: list[Picture] = []
    left_out: list[str] = []

    def add(
        section: str,
        heading: str,
        frame: pd.DataFrame,
        needs: Sequence[str],
        draw: Callable[[], Figure],
        caption: str,
    ) -> None:
        if frame.empty or frame[list(needs)].isna().any(axis=1).all():
            left_out.append(f"{heading}: there is no data for it in this run.")
            return
        content = plots.png(draw())
        file = f"{section.replace('-', '_')}.png"
        pictures.append(Picture(section, heading, file, content, heading, caption))

    target_ms = data.winners[0].target_ms if data.winners else float("nan")
    marks = pd.DataFrame(
        [(winner.name, *_place(winner)) for winner in data.winners],
        columns=["name", "predicted_ms", "accuracy"],
    )
    add(
        "held-out",
        "Predicted against measured latency",
        data.held_out,
        ("predicted_ms", "measured_ms"),
        lambda: plots.predicted_against_measured(data.held_out),
        f"{_held_out_sentence(data.held_out)} Each point is a network that the model was not "
        "fitted to; its bar is the 90 % interval of the prediction. On the line the prediction is "
        "exact, inside the band it is off by at most 10 % of the measurement.",
    )
    add(
        "accuracy",
        "Accuracy against latency",
        data.trajectory,
        ("predicted_ms", "accuracy"),
        lambda: plots.accuracy_against_latency(data.trajectory, marks, target_ms),
        "Every architecture that was evaluated, at its predicted latency. The search may choose "
        "among the filled points; hollow ones break its constraint. Stars are what it chose"
        + (
            ", as they were before widths were scaled to the target."
            if any(is_known(winner.searched_ms) for winner in data.winners)
            else "."
        ),
    )
    add(
        "trajectory",
        "Search trajectory",
        data.trajectory,
        ("accuracy",),
        lambda: plots.search_trajectory(data.trajectory),
        "The best accuracy found so far among the architectures that the search may choose. A line "
        "starts at the first of them.",
    )
    for number, winner in enumerate(data.winners, start=1):
        add(
            "time-by-block" if number == 1 else f"time-by-block-{number}",
            f"Time by block: {winner.name}",
            winner.block_times,
            ("latency_ms",),
            partial(plots.time_by_block, winner.block_times, winner.name),
            "From the network's input at the top to its output. A bar is the block's calibrated "
            "share of the predicted latency.",
        )
    add(
        "flops",
        "Latency against FLOPs",
        data.blocks,
        ("flops", "latency_ms"),
        lambda: plots.latency_against_flops(data.blocks),
        "Single blocks, by kind. Blocks of equal FLOPs that lie far apart are why FLOPs make a "
        "poor stand-in for latency on this device.",
    )
    return pictures, left_out


def _place(winner: Winner) -> tuple[float, float]:
    """Where a winner stands among the points of the search: its latency and accuracy there."""
    if is_known(winner.searched_ms) and is_known(winner.searched_accuracy):
        return winner.searched_ms, winner.searched_accuracy
    return winner.predicted_ms, winner.validation_accuracy


def _held_out_sentence(held_out: pd.DataFrame) -> str:
    if held_out.empty:
        return ""
    within, known = within_band(held_out)
    measured = held_out["measured_ms"]
    inside = int(((held_out["low_ms"] <= measured) & (measured <= held_out["high_ms"])).sum())
    missing = len(held_out) - known
    return (
        f"{within} of {counted(known, 'network')} within 10 % of the measurement, "
        f"{inside} inside the interval of the prediction."
        + (f" {missing} more could not be measured and are not drawn." if missing else "")
    )
