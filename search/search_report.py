"""From a finished search's folder to the input of its report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from ..devices.device import Setup
from ..devices.errors import DeviceError, UsageError
from ..devices.measurement import Measurement
from ..latency.blocks import Block, MBConv
from ..latency.counts import block_counts
from ..latency.space_plan import Plan
from ..latency.space_profile import NetworkCheck, build_space_profile
from ..latency.store import Store
from ..latency.subject import subject_label
from ..latency.table import LatencyTable
from .chosen_options import option_shares
from .evaluations import evaluations
from .log import read_log
from .report_input import ReportInput, Winner
from .result import Finalist, SearchResult, Target
from .space import SearchSpace

DIGITS_NOTE = (
    "The digits only prove that the whole chain runs: accuracies on them are near each other, and "
    "no strategy is better than another because of them."
)

UNFINISHED_NOTE = (
    "This search is not finished: it goes on where it was when the same `latkit search` is run "
    "again. Which architectures it may choose is known at its end; here all of them count."
)


def report_input(folder: Path) -> ReportInput:
    """All that the report of the search in `folder` shows.

    Of a search that is not finished, these are its evaluations so far. Raises `UsageError` where
    there are none, or the store or table of a finished one is gone.
    """
    path = folder / "result.json"
    if not path.exists():
        return _unfinished(folder)
    result = SearchResult.load(path)
    table = LatencyTable.load(Path(result.table_file))
    from .recipes.spaces import searched_space  # its recipes import torch

    space = searched_space(result)
    with Store(result.store, create=False) as store:
        measured = store.all_measurements(table.setup)
        subjects = store.subjects()
        info = store.device_info(table.setup)
        logs = [folder / log for log in result.targets[0].logs]
        trajectory = evaluations(logs, result.limit_ms, store)
        held_out, lacking = _held_out_networks(store, table.setup, space)
    labels = {key: subject_label(subjects[key[0]]) for key in measured}
    return ReportInput(
        title=f"{result.space} within {_listed(result.targets)} on {table.setup.device}",
        context=_context(result, table, info),
        verdicts=pd.DataFrame([_verdict(labels[key], item) for key, item in measured.items()]),
        calibration=asdict(table.calibration),
        held_out=held_out,
        blocks=pd.DataFrame([_block(block, entry.median_ms) for block, entry in _timed(table)]),
        trajectory=trajectory,
        winners=[_winner(item, result, space) for item in _shown(result)],
        notes=[*_notes(result), *lacking],
        options=_options(trajectory, result, space),
        budgets=_budgets(result),
    )


def _shown(result: SearchResult) -> Sequence[Finalist]:
    """All finalists of one target; of several, where each is a column, the winners."""
    return result.finalists if len(result.targets) == 1 else result.winners


def _listed(targets: Sequence[Target]) -> str:
    return ", ".join(f"{target.target_ms:.4g}" for target in targets) + " ms"


def _budgets(result: SearchResult) -> pd.DataFrame:
    """What each strategy ended with for each of several targets."""
    if len(result.targets) == 1:
        return pd.DataFrame()
    rows = [
        {
            "name": _name(item, result),
            "accuracy": item.test_accuracy,
            **{name: getattr(item, name) for name in ("target_ms", "predicted_ms")},
            **{name: getattr(item, name) for name in ("low_ms", "high_ms", "measured_ms")},
            **{name: getattr(item, name) for name in ("measured_low_ms", "measured_high_ms")},
        }
        for item in result.finalists
    ]
    return pd.DataFrame(rows)


def _name(item: Finalist, result: SearchResult) -> str:
    """What a finalist is called among the others."""
    several = len(result.targets) > 1
    return f"{item.strategy}, {item.target_ms:.4g} ms" if several else item.strategy


def _unfinished(folder: Path) -> ReportInput:
    """What there is to show of a search that still runs, or was cut off: its evaluations."""
    log = folder / "search.jsonl"
    settings, entries = read_log(log) if log.exists() else ({}, [])
    if not entries:
        raise UsageError(
            f"{folder} holds no search that has evaluated anything; run `latkit search` first"
        )
    nothing = pd.DataFrame()
    return ReportInput(
        title=f"{settings.get('space', folder)}: a search that is not finished",
        context={"search": settings},
        verdicts=nothing,
        calibration={},
        held_out=nothing,
        blocks=nothing,
        trajectory=evaluations([log]),
        winners=(),
        notes=[UNFINISHED_NOTE],
    )


def _context(result: SearchResult, table: LatencyTable, info: dict[str, Any]) -> dict[str, Any]:
    return {
        "setup": {**asdict(table.setup), "cores": table.setup.cores or "not pinned"},
        "eviction_bytes": table.eviction_bytes,
        "channel_grid": table.channel_grid,
        "search": dict(result.settings),
        "data": result.data,
        "seconds": {name: round(value, 1) for name, value in result.seconds.items()},
        "device": info,
    }


def _verdict(label: str, item: Measurement) -> dict[str, Any]:
    evicted = f", {item.eviction_bytes / 2**20:g} MiB evicted" if item.eviction_bytes else ""
    return {
        "model": label + evicted,
        "median_ms": item.median_ms,
        "low_ms": item.low_ms,
        "high_ms": item.high_ms,
        "verdict": item.verdict.kind,
        "reasons": "; ".join(item.verdict.reasons),
    }


def _held_out_networks(
    store: Store, setup: Setup, space: SearchSpace
) -> tuple[pd.DataFrame, list[str]]:
    """Networks that the model was not fitted to; where the store lacks them, a note that says so.

    A table may come from another store than the search's.
    """
    try:
        checks = build_space_profile(store, setup, space, Plan.draw(space)).checks
    except DeviceError as error:
        return pd.DataFrame(), [f"How far predictions are off can't be shown: {error}"]
    return pd.DataFrame([_held_out(check) for check in checks if check.held_out]), []


def _held_out(check: NetworkCheck) -> dict[str, Any]:
    return {
        "network": check.network.key,
        "predicted_ms": check.estimate.latency_ms,
        "low_ms": check.estimate.low_ms,
        "high_ms": check.estimate.high_ms,
        "measured_ms": check.measured_ms,
        "verdict": check.verdict,
    }


def _timed(table: LatencyTable) -> list[tuple[Block, Any]]:
    return sorted(table.entries.items(), key=lambda item: item[0].key)


def _block(block: Block, latency_ms: float) -> dict[str, Any]:
    return {
        "kind": block_kind(block),
        "label": subject_label(block),
        "flops": block_counts(block).flops,
        "latency_ms": latency_ms,
    }


def block_kind(block: Block) -> str:
    """What blocks of one curve in a plot have in common: `MBConv 5x5, stride 2`."""
    if isinstance(block, MBConv):
        return f"MBConv {block.kernel}x{block.kernel}, stride {block.stride}"
    return type(block).__name__


def _options(trajectory: pd.DataFrame, result: SearchResult, space: SearchSpace) -> pd.DataFrame:
    """Which options the winner's strategy evaluated, early and late."""
    winner = result.finalists[0]
    evaluated = trajectory["architecture"][trajectory["strategy"] == winner.strategy]
    if evaluated.empty:
        return pd.DataFrame()
    return option_shares(space, list(evaluated), winner.searched_choices)


def _winner(item: Finalist, result: SearchResult, space: SearchSpace) -> Winner:
    network = space.network(item.architecture)
    times = [
        {**_block(block, latency_ms), "block": subject_label(block)}
        for block, latency_ms in zip(network.blocks, item.block_ms, strict=True)
    ]
    constant_ms = item.predicted_ms - sum(item.block_ms)
    if abs(constant_ms) > 1e-6 * item.predicted_ms:
        whole = "the whole network's constant"
        times.append({"block": whole, "kind": whole, "latency_ms": constant_ms, "flops": 0})
    return Winner(
        name=_name(item, result),
        architecture=item.description,
        target_ms=item.target_ms,
        predicted_ms=item.predicted_ms,
        low_ms=item.low_ms,
        high_ms=item.high_ms,
        measured_ms=item.measured_ms,
        measured_low_ms=item.measured_low_ms,
        measured_high_ms=item.measured_high_ms,
        verdict=item.verdict,
        verdict_reasons=item.verdict_reasons,
        validation_accuracy=item.validation_accuracy,
        test_accuracy=item.test_accuracy,
        flops=item.flops,
        parameters=item.parameters,
        evaluations=item.evaluations,
        block_times=pd.DataFrame(times),
        searched_ms=item.searched_ms,
        searched_accuracy=item.supernet_accuracy,
    )


def _notes(result: SearchResult) -> list[str]:
    notes = []
    if result.data == "digits":
        notes.append(DIGITS_NOTE)
    if len(result.targets) > 1:
        notes.append(f"How the search went is shown for the first of {_listed(result.targets)}.")
    notes += [
        f"The measured latency of {_name(item, result)} lies outside of the 90 % interval of its "
        "prediction."
        for item in result.finalists
        if not item.inside
    ]
    return notes
