"""What a report is made from: plain values and data frames, filled in by whoever ran the search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import nan
from typing import Any

import pandas as pd


@dataclass(frozen=True)
class Winner:
    """What one way of searching found, trained and measured.

    `low_ms` to `high_ms` is the 90 % interval of the prediction, `measured_low_ms` to
    `measured_high_ms` the 95 % interval of the measured median. Accuracies are shares of 1, NaN
    where there is none. `block_times` has the columns block (a readable label), kind, latency_ms
    (the block's share of the predicted latency) and flops, in the network's order.

    Where the winner was changed after it was chosen (widths scaled, weights trained anew),
    `searched_ms` and `searched_accuracy` are what the search knew: its predicted latency then and
    its accuracy on the scale of `ReportInput.trajectory`. NaN: nothing was changed.
    """

    name: str
    architecture: str
    target_ms: float
    predicted_ms: float
    low_ms: float
    high_ms: float
    measured_ms: float
    measured_low_ms: float
    measured_high_ms: float
    verdict: str
    verdict_reasons: tuple[str, ...]
    validation_accuracy: float
    test_accuracy: float
    flops: int
    parameters: int
    evaluations: int
    block_times: pd.DataFrame
    searched_ms: float = nan
    searched_accuracy: float = nan


@dataclass(frozen=True)
class ReportInput:
    """All that a report shows. A frame without rows leaves its part out.

    `context` and `calibration` may nest mappings. A `None` in them may carry its cause beside it:
    `{"temperature": None, "temperature_reason": "no sensor"}`. Shares in `calibration` (errors,
    bias, within_5, within_10) are shares of 1.

    Columns: `verdicts`: model, median_ms, low_ms, high_ms, verdict, reasons; `held_out`: network,
    predicted_ms, low_ms, high_ms, measured_ms, verdict; `blocks`: kind, label, flops, latency_ms;
    `trajectory`: strategy, index, predicted_ms, accuracy, feasible (whether the search may choose
    it), and what else `search.curves` names. The first of `winners` is the one that the report is
    about; `options` tells which options its strategy preferred, as `option_shares` gives them.
    `budgets` are the networks found for several targets: name, target_ms, predicted_ms, low_ms,
    high_ms, measured_ms, measured_low_ms, measured_high_ms, accuracy (on test images); empty
    where there is one.
    """

    title: str
    context: Mapping[str, Any]
    verdicts: pd.DataFrame
    calibration: Mapping[str, Any]
    held_out: pd.DataFrame
    blocks: pd.DataFrame
    trajectory: pd.DataFrame
    winners: Sequence[Winner]
    notes: Sequence[str]
    options: pd.DataFrame = field(default_factory=pd.DataFrame)
    budgets: pd.DataFrame = field(default_factory=pd.DataFrame)
