"""Values as the report's readers see them: numbers with units, and mappings as rows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

NOT_MEASURED = "not measured"
REASON_ENDINGS = ("_reason", "_why", "_error")
"""What follows a key's name in the key that says why its value is missing."""

SHARES = ("bias", "drift", "error", "inside", "residuals", "rmspe", "share", "spread", "within")
"""Words in a key whose number is a share of 1, shown as a percentage."""

LABELS = {
    "bias": "Mean error (bias)",
    "held_out": "Held-out networks",
    "inside": "Inside the prediction's interval",
    "leave_one_out": "Calibration networks, each left out",
    "loo": "Calibration networks, each left out",
    "plain": "Calibration networks, plain sums",
    "rmspe": "Root mean square error",
    "spearman": "Rank correlation (Spearman)",
    "within_5": "Within 5 % of the measurement",
    "within_10": "Within 10 % of the measurement",
}
"""Keys whose words alone would not tell a reader enough."""

LONGEST_LIST = 12


@dataclass(frozen=True)
class Row:
    """A labelled value, or a labelled group of rows."""

    label: str
    value: str
    children: tuple[Row, ...] = ()


def is_known(value: Any) -> bool:
    """Whether there is a value at all: not `None`, not NaN, not infinite."""
    if value is None:
        return False
    return not isinstance(value, (float, np.floating)) or math.isfinite(value)


def number(value: float, digits: int = 4) -> str:
    """A number with this many significant digits, and all digits before its point."""
    if not is_known(value):
        return NOT_MEASURED
    if abs(value) >= 10 ** (digits - 1):
        return f"{value:,.0f}"
    if value and abs(value) < 1e-4:
        return f"{value:.{digits - 1}e}"
    return f"{value:#.{digits}g}" if value else "0"


def latency(value_ms: float) -> str:
    """A latency with its unit: `7.930 ms`."""
    return f"{number(value_ms)} ms" if is_known(value_ms) else NOT_MEASURED


def interval(low_ms: float, high_ms: float) -> str:
    """An interval of latencies: `7.610 to 8.210 ms`; empty where a limit is missing."""
    if not (is_known(low_ms) and is_known(high_ms)):
        return ""
    return f"{number(low_ms)} to {number(high_ms)} ms"


def deviation(value: float, reference: float) -> str:
    """By how much `value` differs from `reference`, signed, in percent: `+1.2 %`."""
    if not (is_known(value) and is_known(reference)) or reference == 0:
        return NOT_MEASURED
    return f"{value / reference - 1:+.1%}".replace("%", " %")


def share(value: float) -> str:
    """A share of 1 in percent: `97.12 %`."""
    return f"{value:.2%}".replace("%", " %") if is_known(value) else NOT_MEASURED


def amount(value: float) -> str:
    """A large count in short: `12.34 M`."""
    if not is_known(value):
        return NOT_MEASURED
    for size, name in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if abs(value) >= size:
            return f"{value / size:.2f}{name}"
    return f"{value:.0f}"


def counted(value: int, noun: str) -> str:
    """A count and its noun: `1 network`, `24 networks`."""
    return f"{value:,} {noun}" + ("" if value == 1 else "s")


def reason_text(reasons: Any) -> str:
    """Reasons, given as one text or several, as one line."""
    if isinstance(reasons, (list, tuple)):
        return "; ".join(str(reason) for reason in reasons)
    return str(reasons) if is_known(reasons) else ""


def rows(values: Mapping[str, Any]) -> tuple[Row, ...]:
    """A mapping, nested or not, as rows; a missing value stands with its reason if it has one."""
    found = []
    for key, value in values.items():
        if _explains_another(str(key), values):
            continue
        label = label_of(str(key))
        if isinstance(value, Mapping):
            children = rows(value)
            found.append(Row(label, "" if children else "none", children))
        elif _is_list_of_groups(value):
            parts = {str(place): part for place, part in enumerate(value, start=1)}
            found.append(Row(label, "", rows(parts)))
        elif is_known(value):
            found.append(Row(label, _text(str(key), value)))
        else:
            found.append(Row(label, _missing(str(key), values)))
    return tuple(found)


def calibration_rows(calibration: Mapping[str, Any]) -> tuple[Row, ...]:
    """Rows of a calibration, less its errors; `terms` and `coefficients` become pairs."""
    terms: Any = calibration.get("terms")
    coefficients: Any = calibration.get("coefficients")
    left = {key: value for key, value in calibration.items() if not _is_errors(value)}
    if _is_list(terms) and _is_list(coefficients) and len(terms) == len(coefficients):
        del left["terms"]
        left["coefficients"] = dict(zip(map(str, terms), coefficients, strict=True))
    return rows(left)


def error_table(calibration: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    """The errors of a calibration side by side: heads first, then a line for each kind of error.

    Errors are the mappings that hold an `rmspe`. Empty where there are none.
    """
    groups = {str(key): value for key, value in calibration.items() if _is_errors(value)}
    if not groups:
        return []
    kinds = list(dict.fromkeys(str(kind) for group in groups.values() for kind in group))
    lines = [("", [label_of(name) for name in groups])]
    for kind in kinds:
        values = [group.get(kind) for group in groups.values()]
        shown = [_text(kind, value) if is_known(value) else NOT_MEASURED for value in values]
        lines.append((label_of(kind), shown))
    return lines


def label_of(key: str) -> str:
    """A key as words: `canary_drift` becomes `Canary drift`."""
    if key in LABELS:
        return LABELS[key]
    words = key.replace("_", " ").strip()
    return words[:1].upper() + words[1:]


def _text(key: str, value: Any) -> str:
    if isinstance(value, (bool, np.bool_)):
        return "yes" if value else "no"
    if isinstance(value, (int, np.integer)):
        whole = int(value)
        return f"{whole:,}" if abs(whole) >= 10_000 else str(whole)
    if isinstance(value, (float, np.floating)):
        is_share = any(word in SHARES for word in key.lower().replace("-", "_").split("_"))
        return share(float(value)) if is_share else number(float(value))
    if _is_list(value):
        shown = [_text(key, part) if is_known(part) else NOT_MEASURED for part in value]
        more = len(shown) - LONGEST_LIST
        text = ", ".join(shown[:LONGEST_LIST])
        return f"{text} and {more} more" if more > 0 else text or "none"
    return str(value)


def _missing(key: str, values: Mapping[str, Any]) -> str:
    for ending in REASON_ENDINGS:
        if is_known(values.get(key + ending)):
            return f"{NOT_MEASURED}: {reason_text(values[key + ending])}"
    return NOT_MEASURED


def _explains_another(key: str, values: Mapping[str, Any]) -> bool:
    """Whether `key` only says why the value of another key is missing."""
    for ending in REASON_ENDINGS:
        named = key.removesuffix(ending)
        if named != key and named in values and not is_known(values[named]):
            return True
    return False


def _is_errors(value: Any) -> bool:
    return isinstance(value, Mapping) and "rmspe" in value


def _is_list(value: Any) -> bool:
    return isinstance(value, (Sequence, set, frozenset)) and not isinstance(value, (str, bytes))


def _is_list_of_groups(value: Any) -> bool:
    return _is_list(value) and any(isinstance(part, Mapping) for part in value)
