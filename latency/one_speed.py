"""Latencies as if the device had been equally fast whenever they were measured.

A device's clock moves between rounds and from day to day, by one or two per cent on a quiet one,
and whatever runs on its processors moves with it: the canary too. So each measurement is
multiplied by what the canary usually takes over what it took beside it. Blocks and networks that
were measured at different times are then comparable.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping

from ..devices.device import ModelKey
from ..devices.measurement import Measurement
from .table_entry import Entry


def at_one_speed(
    measurements: Mapping[ModelKey, Measurement], usual: Iterable[ModelKey] | None = None
) -> dict[ModelKey, Entry]:
    """The measurements, at the speed that the device had in the middle one of `usual`.

    `usual` are all by default; those that were not measured count for nothing. What was measured
    without a canary is taken as it is.
    """
    keys = measurements.keys() if usual is None else measurements.keys() & set(usual)
    canaries = [measurements[key].canary_ns for key in keys]
    known = [canary_ns for canary_ns in canaries if canary_ns is not None]
    usual_ns = statistics.median(known) if known else None
    return {key: _entry(item, usual_ns) for key, item in measurements.items()}


def _entry(item: Measurement, usual_ns: float | None) -> Entry:
    factor = 1.0
    if usual_ns is not None and item.canary_ns is not None:
        factor = usual_ns / item.canary_ns
    verdict = item.verdict
    return Entry(
        factor * item.median_ms,
        factor * item.low_ms,
        factor * item.high_ms,
        verdict.kind,
        verdict.reasons,
    )
