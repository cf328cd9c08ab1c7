"""Profiling of what a predictor needs most, until it is good enough or the budget is spent."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
from rich.progress import Progress

from ..devices.console import stderr, stdout
from ..devices.device import Device, Setup, TimingProtocol
from ..devices.errors import DeviceError, LatkitError
from .adaptive import FIRST, AdaptiveChoice, Candidates, batch_size, random_part
from .blocks import Block
from .calibration import conformal_share
from .one_speed import at_one_speed
from .predictor import FEWEST_SAMPLES, LatencyPredictor
from .profile import profile
from .store import Store
from .subject import subject_id

Stop = Literal["wanted error reached", "budget spent", "time spent", "all measured"]


@dataclass(frozen=True)
class AdaptiveStep:
    """A predictor fitted on the way: to how many blocks, and within what error (90 % of blocks)."""

    blocks: int
    at_random: int
    error: float


@dataclass(frozen=True)
class AdaptiveOutcome:
    """What adaptive profiling came to; `failures` names the cause of each block that failed."""

    setup: Setup
    eviction_bytes: int
    candidates: int
    stopped: Stop
    steps: tuple[AdaptiveStep, ...]
    failures: Mapping[str, str] = field(default_factory=dict)

    def json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return asdict(self)

    def print(self) -> None:
        """For people."""
        last = self.steps[-1]
        text = (
            f"{self.setup.key}\n{last.blocks} of {self.candidates} blocks measured, "
            f"{last.at_random} of them drawn at random; {len(self.failures)} failed\n"
            f"{_error_text(last)}\nstopped: {self.stopped}"
        )
        stdout.print(text, markup=False, highlight=False)

    def error(self) -> LatkitError | None:
        """What must end the command after it was shown."""
        if not self.failures:
            return None
        block, cause = next(iter(self.failures.items()))
        return DeviceError(f"{len(self.failures)} blocks failed. The first, {block}: {cause}")


def profile_adaptively(
    candidates: Candidates,
    device: Device,
    store: Store,
    protocol: TimingProtocol,
    progress: Progress | None = None,
    *,
    wanted_error: float,
    budget: int,
    budget_minutes: float | None = None,
    eviction_bytes: int = 0,
    seed: int = 0,
    label: str = "",
) -> AdaptiveOutcome:
    """Measure blocks until 90 % of those drawn at random are predicted within `wanted_error`.

    Stops too when `budget` blocks were picked, earlier runs included, when this run took
    `budget_minutes`, or when there is nothing left to measure. The store keeps the picks before
    they are measured, so that a run that was cut off goes on where it was. Raises `DeviceError`
    where fewer than `FEWEST_SAMPLES` blocks could be timed.
    """
    started = time.monotonic()
    named = {subject_id(block): block for block in candidates.blocks}
    choice = AdaptiveChoice(candidates, seed, _picked(store, device.setup, named, eviction_bytes))
    steps: list[AdaptiveStep] = []
    while True:
        if not choice.picked:
            _note(store, device, choice.at_random(min(FIRST, budget)), eviction_bytes, True)
        result = profile(
            device,
            [(block, eviction_bytes) for block in choice.picked],
            store,
            protocol,
            progress=progress,
            description=f"{label}{len(choice.picked)} blocks",
        )
        timed = at_one_speed(result.measurements)
        measured = {named[key]: item.median_ms for (key, _), item in timed.items()}
        if len(measured) < FEWEST_SAMPLES:
            causes = "; ".join(sorted(set(result.failures.values()))[:3])
            raise DeviceError(
                f"only {len(measured)} of {len(choice.picked)} blocks could be timed, and "
                f"{FEWEST_SAMPLES} are needed. {causes}"
            )
        predictor, step = _fit(device.setup, eviction_bytes, measured, choice.picked, seed)
        steps.append(step)
        stderr.print(f"{label}{_error_text(step)}", markup=False, highlight=False)
        stopped: Stop | None = None
        if step.error <= wanted_error:
            stopped = "wanted error reached"
        elif choice.is_exhausted:
            stopped = "all measured"
        elif len(choice.picked) >= budget:
            stopped = "budget spent"
        elif budget_minutes is not None and time.monotonic() - started > 60 * budget_minutes:
            stopped = "time spent"
        if stopped is not None:
            failures = {str(named[key]): cause for (key, _), cause in result.failures.items()}
            return AdaptiveOutcome(
                device.setup, eviction_bytes, len(named), stopped, tuple(steps), failures
            )
        count = min(batch_size(len(measured)), budget - len(choice.picked))
        drawn = choice.at_random(random_part(count))
        _note(store, device, drawn, eviction_bytes, True)
        unsure = choice.unsure(predictor, list(measured), count - random_part(count))
        _note(store, device, unsure, eviction_bytes, False)


def _picked(
    store: Store, setup: Setup, named: Mapping[str, Block], eviction_bytes: int
) -> dict[Block, bool]:
    return {
        named[key]: at_random
        for (key, size), at_random in store.picks(setup).items()
        if size == eviction_bytes and key in named
    }


def _note(
    store: Store, device: Device, blocks: list[Block], eviction_bytes: int, at_random: bool
) -> None:
    keys = store.add_subjects(blocks)
    store.add_picks(device.setup, [(key, eviction_bytes) for key in keys], at_random=at_random)


def _fit(
    setup: Setup,
    eviction_bytes: int,
    measured: Mapping[Block, float],
    picked: Mapping[Block, bool],
    seed: int,
) -> tuple[LatencyPredictor, AdaptiveStep]:
    """A predictor of what was measured, and its error on what was drawn at random."""
    blocks = list(measured)
    latency_ms = np.array(list(measured.values()))
    drawn = np.array([picked[block] for block in blocks])
    predictor = LatencyPredictor(setup, eviction_bytes).fit(
        blocks, latency_ms, seed, at_random=drawn.tolist()
    )
    relative = predictor.left_out_ms_[drawn] / latency_ms[drawn] - 1
    return predictor, AdaptiveStep(len(blocks), int(drawn.sum()), conformal_share(relative))


def _error_text(step: AdaptiveStep) -> str:
    return f"{step.blocks} blocks: 90 % of random ones are predicted within {step.error:.1%}"
