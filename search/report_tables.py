"""The tables of the report: headline numbers, winners side by side, verdicts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pandas as pd

from .plots import BAND_SHARE
from .report_input import ReportInput, Winner
from .report_values import (
    NOT_MEASURED,
    amount,
    deviation,
    interval,
    is_known,
    latency,
    reason_text,
    share,
)

VERDICTS = ("stable", "noisy", "throttled")


@dataclass(frozen=True)
class Tile:
    """One of the few numbers that a reader sees first."""

    label: str
    value: str
    detail: str


@dataclass(frozen=True)
class Cell:
    """A cell of the headline table; `tone` is what it means: good, bad or neither."""

    text: str
    detail: str = ""
    tone: str = ""


def headline(winners: Sequence[Winner]) -> list[tuple[str, list[Cell]]]:
    """The headline table: a row for each quantity, a cell for each winner."""
    lines: list[tuple[str, Callable[[Winner], Cell]]] = [
        ("Target latency", lambda winner: Cell(latency(winner.target_ms))),
        (
            "Predicted latency",
            lambda winner: Cell(
                latency(winner.predicted_ms),
                _interval_detail("90 % interval", winner.low_ms, winner.high_ms),
            ),
        ),
        (
            "Measured latency",
            lambda winner: Cell(
                latency(winner.measured_ms),
                _interval_detail("95 % interval", winner.measured_low_ms, winner.measured_high_ms),
            ),
        ),
        (
            "Measured against predicted",
            lambda winner: Cell(deviation(winner.measured_ms, winner.predicted_ms)),
        ),
        ("Inside the prediction's interval", _inside),
        (
            "Measured against target",
            lambda winner: Cell(deviation(winner.measured_ms, winner.target_ms)),
        ),
        (
            "Verdict of the measurement",
            lambda winner: Cell(
                winner.verdict or NOT_MEASURED,
                reason_text(winner.verdict_reasons),
                {"stable": "good", "": ""}.get(winner.verdict, "bad"),
            ),
        ),
        ("Test accuracy", lambda winner: Cell(share(winner.test_accuracy))),
        ("Validation accuracy", lambda winner: Cell(share(winner.validation_accuracy))),
        ("FLOPs", lambda winner: Cell(amount(winner.flops))),
        ("Parameters", lambda winner: Cell(amount(winner.parameters))),
        ("Architectures evaluated", lambda winner: Cell(f"{winner.evaluations:,}")),
    ]
    if any(is_known(winner.searched_accuracy) for winner in winners):
        place = [label for label, _ in lines].index("FLOPs")
        lines[place:place] = [
            (
                "Accuracy when it was chosen",
                lambda winner: Cell(
                    share(winner.searched_accuracy),
                    f"at a predicted {latency(winner.searched_ms)}"
                    if is_known(winner.searched_ms)
                    else "",
                ),
            )
        ]
    return [(label, [cell(winner) for winner in winners]) for label, cell in lines]


def _interval_detail(name: str, low_ms: float, high_ms: float) -> str:
    limits = interval(low_ms, high_ms)
    return f"{name} {limits}" if limits else ""


def _is_inside(winner: Winner) -> bool | None:
    """Whether the measurement lies in the prediction's interval; `None` where one is missing."""
    if not all(map(is_known, (winner.low_ms, winner.measured_ms, winner.high_ms))):
        return None
    return winner.low_ms <= winner.measured_ms <= winner.high_ms


def _inside(winner: Winner) -> Cell:
    inside = _is_inside(winner)
    if inside is None:
        return Cell(NOT_MEASURED)
    return Cell("yes", tone="good") if inside else Cell("no", tone="bad")


def tiles(data: ReportInput) -> list[Tile]:
    """The numbers at the top of the page: what was found, or what was measured."""
    shown = []
    if data.winners:
        winner = data.winners[0]
        shown.append(
            Tile(
                "Measured latency",
                latency(winner.measured_ms),
                f"target {latency(winner.target_ms)}"
                + _in_brackets(deviation(winner.measured_ms, winner.target_ms)),
            )
        )
        inside = {True: "inside", False: "outside", None: "without"}[_is_inside(winner)]
        shown.append(
            Tile(
                "Predicted latency",
                latency(winner.predicted_ms),
                f"measured {deviation(winner.measured_ms, winner.predicted_ms)}, "
                f"{inside} its 90 % interval",
            )
        )
        others = [f"{other.name} {share(other.test_accuracy)}" for other in data.winners[1:]]
        shown.append(Tile("Test accuracy", share(winner.test_accuracy), ", ".join(others)))
    if not data.verdicts.empty:
        stable = int((data.verdicts["verdict"] == "stable").sum())
        total = len(data.verdicts)
        shown.append(
            Tile(
                "Stable measurements",
                f"{stable:,} of {total:,}",
                "every one of them" if stable == total else "the others are listed below",
            )
        )
    within, known = within_band(data.held_out)
    if known:
        shown.append(Tile("Predicted within 10 %", f"{within} of {known}", "networks held out"))
    return shown


def _in_brackets(text: str) -> str:
    return "" if text == NOT_MEASURED else f" ({text})"


def verdict_counts(verdicts: pd.DataFrame) -> list[tuple[str, int]]:
    """How many measurements have each verdict, the known verdicts first."""
    if verdicts.empty:
        return []
    counts = verdicts["verdict"].astype(str).value_counts()
    names = [*VERDICTS, *sorted(set(counts.index) - set(VERDICTS))]
    return [(name, int(counts[name])) for name in names if name in counts.index]


def unsteady(verdicts: pd.DataFrame) -> list[tuple[str, Cell, str, str]]:
    """Model, latency, verdict and reasons of every measurement that is not stable."""
    if verdicts.empty:
        return []
    return [
        (
            str(line["model"]),
            Cell(latency(line["median_ms"]), interval(line["low_ms"], line["high_ms"])),
            str(line["verdict"]),
            reason_text(line["reasons"]),
        )
        for line in verdicts[verdicts["verdict"] != "stable"].to_dict("records")
    ]


def within_band(held_out: pd.DataFrame) -> tuple[int, int]:
    """How many held-out networks are predicted within the band, and how many there are."""
    if held_out.empty:
        return 0, 0
    known = held_out.dropna(subset=["predicted_ms", "measured_ms"])
    error = (known["predicted_ms"] / known["measured_ms"] - 1).abs()
    return int((error <= BAND_SHARE).sum()), len(known)
