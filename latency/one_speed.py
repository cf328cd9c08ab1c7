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
    usual_ns = usual_canary_ns(measurements[key] for key in keys)
    return {key: at_speed(item, usual_ns) for key, item in measurements.items()}


def usual_canary_ns(measurements: Iterable[Measurement]) -> float | None:
    """What the canary took beside the middle one of them; `None` where it stood beside none."""
    known = [item.canary_ns for item in measurements if item.canary_ns is not None]
    return statistics.median(known) if known else None


def at_speed(item: Measurement, usual_ns: float | None) -> Entry:
    """A measurement as it had been, had the canary taken `usual_ns`; as it is for `None`."""
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
