"""Captions of the report's figures: what is seen, in a plain sentence, and how to read it."""

from __future__ import annotations

import numpy as np
import pandas as pd

from .curves import best_so_far, hypervolume_so_far, runs
from .pareto import front
from .report_tables import within_band
from .report_values import counted, label_of, latency, number, share


def best_sentence(trajectory: pd.DataFrame) -> str:
    """What each strategy ended with, and when it last found something better."""
    found = []
    for strategy in dict.fromkeys(trajectory["strategy"]):
        curves = [best_so_far(run) for run in runs(trajectory) if run.strategy == strategy]
        ends = [curve[-1] for curve in curves if np.isfinite(curve[-1])]
        if not ends:
            found.append(f"{strategy} found no architecture that it may choose")
            continue
        evaluations = f"after {counted(max(map(len, curves)), 'evaluation')}"
        if len(curves) > 1:
            middle = f"{share(float(np.median(ends)))} in the middle of {len(curves)} runs"
            found.append(f"{strategy} is at {middle} {evaluations}")
        else:
            last = int(np.flatnonzero(curves[0] == ends[0])[0]) + 1
            found.append(
                f"{strategy} is at {share(ends[0])} {evaluations}, and found nothing better "
                f"after the {_ordinal(last)}"
            )
    bands = " Bands reach from the worst run to the best." if _is_repeated(trajectory) else ""
    return (
        f"{_sentence(found)} Only architectures that the search may choose count; a line starts "
        f"at the first of them.{bands}{_untimed_sentence(trajectory)}"
    )


def hypervolume_sentence(trajectory: pd.DataFrame, reference: tuple[float, float]) -> str:
    """How much of its final area each strategy had after half of its evaluations."""
    found = []
    for strategy in dict.fromkeys(trajectory["strategy"]):
        own = [run for run in runs(trajectory) if run.strategy == strategy]
        areas = [hypervolume_so_far(run, reference) for run in own]
        end = float(np.median([area[-1] for area in areas]))
        half = float(np.median([area[(len(area) - 1) // 2] for area in areas]))
        shown = f"{strategy} ends at {number(end * 100)}"
        found.append(
            f"{shown}, {half / end:.0%} of it after half of its evaluations" if end else shown
        )
    return (
        f"{_sentence(found).replace('%', ' %')} It is the area between the front of all that was "
        f"evaluated and {latency(reference[0])} at {share(reference[1])}, the worst "
        "seen. A search within one latency looks for one point of that front, not for all of it."
    )


def figures_sentence(trajectory: pd.DataFrame, names: list[str]) -> str:
    """From where to where each figure went, by strategy."""
    found = []
    for name in names:
        told = [run for run in runs(trajectory) if run.rows[name].nunique() > 1]
        first = float(np.median([run.rows[name].dropna().iloc[0] for run in told]))
        last = float(np.median([run.rows[name].dropna().iloc[-1] for run in told]))
        found.append(f"{label_of(name).lower()} went from {number(first)} to {number(last)}")
    decided = " A policy of little entropy has decided." if "policy_entropy" in names else ""
    return f"{_sentence(found)}{decided}"


def options_sentence(options: pd.DataFrame, strategy: str) -> str:
    """For how many choices the strategy preferred one option early, and late."""
    most = options.groupby("choice", sort=False)[["first_third", "last_third"]].max()
    early, late = (int((most[part] > 0.5).sum()) for part in ("first_third", "last_third"))
    found = (
        f"{strategy} gave most of its evaluations to one option in {early} of "
        f"{counted(len(most), 'choice')} at first, and in {late} at last"
    )
    return (
        f"{_sentence([found])} Dots mark what it ended with; grey choices were switched off by "
        "others."
    )


def budgets_sentence(budgets: pd.DataFrame) -> str:
    """How many of the networks no other one dominates, and how many the prediction covers."""
    drawn = budgets.dropna(subset=["predicted_ms", "accuracy"])
    measured = drawn["measured_ms"]
    kept = int(front(measured.fillna(drawn["predicted_ms"]), drawn["accuracy"]).sum())
    known = int(measured.notna().sum())
    inside = int(((drawn["low_ms"] <= measured) & (measured <= drawn["high_ms"])).sum())
    return (
        f"No other is as fast and as accurate as {kept} of {counted(len(drawn), 'network')}; the "
        f"others are faint. {inside} of {known} measured latencies lie in the 90 % interval of "
        "their prediction."
    )


def held_out_sentence(held_out: pd.DataFrame) -> str:
    """How far predictions are off on networks that no model was fitted to."""
    within, known = within_band(held_out)
    measured = held_out["measured_ms"]
    inside = int(((held_out["low_ms"] <= measured) & (measured <= held_out["high_ms"])).sum())
    missing = len(held_out) - known
    return (
        f"{within} of {counted(known, 'network')} within 10 % of the measurement, "
        f"{inside} inside the interval of the prediction."
        + (f" {missing} more could not be measured and are not drawn." if missing else "")
        + " Each point is a network that the model was not fitted to; its bar is the 90 % interval "
        "of the prediction. On the line the prediction is exact, inside the band it is off by at "
        "most 10 % of the measurement."
    )


def _untimed_sentence(trajectory: pd.DataFrame) -> str:
    found = [run for run in runs(trajectory) if np.isfinite(run.seconds).all()]
    missing = sum(run.untimed for run in found)
    return f" The times of {counted(missing, 'evaluation')} are not known." if missing else ""


def _is_repeated(trajectory: pd.DataFrame) -> bool:
    return len(runs(trajectory)) > trajectory["strategy"].nunique()


def _sentence(clauses: list[str]) -> str:
    """Clauses as one sentence; its first letter becomes a capital."""
    text = "; ".join(clauses)
    return f"{text[:1].upper()}{text[1:]}."


def _ordinal(place: int) -> str:
    ending = (
        "th" if place % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(place % 10, "th")
    )
    return f"{place:,}{ending}"
