"""What TFLite's benchmark program tells of its runs: its text in all known forms, its result file.

Whatever is missing, damaged or impossible is an error with the end of the text, never a number.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from ..device import Summary
from ..errors import DeviceError

Statistic = Literal["median", "mean"]

UNITS_NS = {"ns": 1.0, "us": 1e3, "ms": 1e6, "s": 1e9}
"""Nanoseconds in each unit that the program prints."""

ROUNDING = 1e-5
"""Six digits are printed of an average, so that it may pass the largest run by this share."""

MEGABYTE = 1 << 20
TAIL_CHARACTERS = 600

_NUMBER = r"[-+]?(?:\d+\.?\d*(?:[eE][-+]?\d+)?|nan|inf)"
_COUNT = re.compile(r"\bcount=(\d{1,9})\b(.*)")
_PROFILED = re.compile(r"(?:Timings|Memory|nodes observed) *\(")
"""The same figures of single operations, in a profile."""

_PAIR = re.compile(rf"(\w+)=({_NUMBER})")
_TIMINGS = re.compile(r"[Ii]nference timings in (\w+):(.*)")
_MEAN_IN_TIMINGS = re.compile(rf"(?:Inference \(avg\)|no stats): ({_NUMBER})")
_LINE = re.compile(rf"\bInference \((\w+)\): +({_NUMBER})(?: (\w+))?(?: \((\d{{1,9}}) runs\))?")
_PEAK = re.compile(
    r"(?:Overall peak memory footprint \(MB\) via periodic monitoring: |"
    rf"Peak memory footprint \(MB\): init=\S+ overall=|Peak memory: +)({_NUMBER})"
)
_KEYS = {"avg": "mean", "std": "deviation", "min": "minimum", "max": "maximum"}
_METRICS = {1: "mean", 2: "minimum", 3: "maximum", 4: "deviation", 5: "median", 6: "p5", 7: "p95"}
"""Numbers of the fields of LatencyMetrics, all of them milliseconds."""


@dataclass(frozen=True, slots=True)
class Told:
    """The figures of the timed runs, in nanoseconds, and the program's own peak of memory."""

    count: int
    times_ns: Mapping[str, float]
    peak_memory_bytes: int | None = None


def read_result_file(content: bytes) -> Told:
    """Read a file that `--result_file_path` made (a BenchmarkResult, in protobuf's wire format).

    Raises `DeviceError` where it is damaged or tells of no run.
    """
    try:
        result = _fields(content)
        latency = _fields(_bytes(result.get(2)))
        memory = _fields(_bytes(result.get(3)))
        runs = _fields(_bytes(result.get(4))).get(2, 0)
        times_ns = {
            name: _float(latency[number]) * UNITS_NS["ms"]
            for number, name in _METRICS.items()
            if number in latency
        }
        peak_mb = _float(memory[3]) if 3 in memory else None
    except (ValueError, struct.error) as error:
        raise DeviceError(
            f"the benchmark program's result file can't be read ({error}); time the model again"
        ) from error
    if not isinstance(runs, int) or not 0 < runs < 1 << 31 or not times_ns:
        raise DeviceError(
            "the benchmark program's result file tells of no timed run; time the model again"
        )
    return Told(runs, times_ns, _peak_bytes(peak_mb))


def read_text(text: str) -> Told:
    """Read what the program printed; the warm-up's own figures come first and are left out.

    Raises `DeviceError`, with the end of the text, where it does not tell of finished runs.
    """
    lines = text.splitlines()
    counts = [
        match for line in lines if (match := _COUNT.search(line)) and not _PROFILED.search(line)
    ]
    unit, mean = _mean_in_timings(lines)
    block, runs = _read_block(text)
    if mean is not None and unit not in UNITS_NS:
        raise unreadable(f"its times are in an unknown unit, {unit}", text)
    if mean is None and "mean" not in block:
        raise unreadable("it does not tell that its timed runs were finished", text)
    mean_ns = block["mean"] if mean is None else mean * UNITS_NS[unit]
    peak = _PEAK.search(text)
    peak_bytes = _peak_bytes(float(peak[1]) if peak else None)
    if not counts:
        if runs is None:
            raise unreadable("it does not tell how many runs it timed", text)
        return Told(runs, block, peak_bytes)
    if len(counts) != 2:
        raise unreadable(
            f"it tells {len(counts)} times of a count of runs, where once of the warm-up and once "
            "of the timed runs is expected",
            text,
        )
    count, times_ns = _read_count(counts[1], UNITS_NS[unit])
    # The last digit of what is printed in milliseconds is 10 microseconds.
    allowed_ns = abs(mean_ns) * 1e-3 if mean is not None else 0.005 * UNITS_NS["ms"] * 1.01
    if "mean" in times_ns and not abs(times_ns["mean"] - mean_ns) <= allowed_ns:
        raise unreadable("it tells of two different averages", text)
    if runs is not None and runs != count:
        raise unreadable("it tells of two different numbers of runs", text)
    return Told(count, times_ns, peak_bytes)


def is_median_told(text: str) -> bool:
    """Whether this program prints medians, if only that of the warm-up."""
    return "median=" in text or "Inference (median)" in text


def summarize(told: Told, statistic: Statistic, text: str) -> Summary:
    """The figures as a summary by this statistic. Raises `DeviceError` where they are impossible.

    `text` is what the message ends with.
    """
    times = dict(told.times_ns)
    if told.count < 1:
        raise unreadable("it timed no run", text)
    if statistic not in times:
        raise unreadable(
            f"it tells no {statistic}, which this runtime's other latencies are; means and medians "
            "are never mixed",
            text,
        )
    for name, value_ns in times.items():
        if not math.isfinite(value_ns) or value_ns < 0 or (value_ns == 0 and name != "deviation"):
            raise unreadable(f"its {name} is impossible, {value_ns:g} ns", text)
    value_ns = times[statistic]
    order = [times.get("minimum"), value_ns, times.get("maximum")]
    if statistic == "median":
        order[1:2] = [times.get("p5"), value_ns, times.get("p95")]
    known = [item for item in order if item is not None]
    if any(low > high * (1 + ROUNDING) for low, high in pairwise(known)):
        raise unreadable("its minimum, average and maximum are out of order", text)
    return Summary(
        statistic=statistic,
        value_ns=value_ns,
        count=told.count,
        minimum_ns=times.get("minimum"),
        maximum_ns=times.get("maximum"),
        deviation_ns=times.get("deviation"),
        p5_ns=times.get("p5"),
        p95_ns=times.get("p95"),
    )


def unreadable(cause: str, text: str) -> DeviceError:
    """The error for an output that gives no latency, with the end of it."""
    tail = text.strip()[-TAIL_CHARACTERS:] or "nothing"
    return DeviceError(
        f"the benchmark program gave no latency: {cause}. Its output ends with:\n{tail}"
    )


def _mean_in_timings(lines: list[str]) -> tuple[str, float | None]:
    """The unit and the mean of the line that ends a run; microseconds where there is none."""
    for line in reversed(lines):
        timings = _TIMINGS.search(line)
        if timings and (mean := _MEAN_IN_TIMINGS.search(timings[2])):
            return timings[1], float(mean[1])
    return "us", None


def _read_block(text: str) -> tuple[dict[str, float], int | None]:
    """LiteRT's lines of milliseconds, in nanoseconds, and its count of runs."""
    times_ns: dict[str, float] = {}
    runs: int | None = None
    for name, value, unit, count in _LINE.findall(text):
        if unit and unit not in UNITS_NS:
            continue
        # Only the deviation's unit is sometimes left out; it is that of all the others.
        if unit or (name == "std" and times_ns):
            times_ns[_KEYS.get(name, name)] = float(value) * UNITS_NS[unit or "ms"]
        if name == "avg" and count:
            runs = int(count)
    return times_ns, runs


def _read_count(match: re.Match[str], unit_ns: float) -> tuple[int, dict[str, float]]:
    """One `count=` line; where all runs took the same, only that time is printed."""
    count = int(match[1])
    values = {name: float(value) * unit_ns for name, value in _PAIR.findall(match[2])}
    times_ns = {
        _KEYS.get(name, name): value
        for name, value in values.items()
        if name not in ("first", "curr")
    }
    if "avg" not in values and "curr" in values and (count == 1 or "(all same)" in match[2]):
        same = dict.fromkeys(("mean", "median", "minimum", "maximum"), values["curr"])
        times_ns = {**same, **times_ns}
    return count, times_ns


def _peak_bytes(megabytes: float | None) -> int | None:
    if megabytes is None or not 0 < megabytes < 1e9:
        return None
    return round(megabytes * MEGABYTE)


def _fields(message: bytes) -> dict[int, int | bytes]:
    """The fields of a protobuf message by number; of one that is repeated, the last."""
    return dict(_read_fields(message))


def _read_fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    place = 0
    while place < len(message):
        key, place = _varint(message, place)
        kind = key & 7
        if kind == 0:
            number, place = _varint(message, place)
            yield key >> 3, number
            continue
        if kind == 2:
            size, place = _varint(message, place)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise ValueError(f"unknown wire type {kind}")
        if place + size > len(message):
            raise ValueError("it is cut off")
        yield key >> 3, message[place : place + size]
        place += size


def _varint(message: bytes, place: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if place >= len(message):
            raise ValueError("it is cut off")
        byte = message[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
    raise ValueError("a number in it has no end")


def _bytes(value: int | bytes | None) -> bytes:
    if value is None:
        return b""
    if isinstance(value, int):
        raise ValueError("a message is expected where a number stands")
    return value


def _float(value: int | bytes) -> float:
    return float(struct.unpack("<f", _bytes(value))[0])
