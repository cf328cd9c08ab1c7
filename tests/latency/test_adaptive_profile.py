"""Adaptive profiling on this machine: it stops as told, goes on after a cut, notes its draws."""

import numpy as np
import pytest
from latkit.devices.device import TimingProtocol
from latkit.devices.errors import DeviceError
from latkit.devices.options import DeviceOptions
from latkit.devices.registry import open_device
from latkit.latency import adaptive_profile
from latkit.latency.adaptive import Candidates
from latkit.latency.adaptive_profile import profile_adaptively
from latkit.latency.blocks import Pointwise
from latkit.latency.predicting import fit_predictor
from latkit.latency.profile import Profile
from latkit.latency.store import Store

pytestmark = pytest.mark.quiet

PROTOCOL = TimingProtocol(rounds=2, processes=1, runs=2)
BLOCKS = [
    Pointwise(in_channels=8 * read, out_channels=8 * written, height=8, width=8)
    for read in range(1, 8)
    for written in range(1, 6)
]


@pytest.fixture(autouse=True)
def few_first(monkeypatch):
    monkeypatch.setattr(adaptive_profile, "FIRST", 12)
    monkeypatch.setattr(adaptive_profile, "batch_size", lambda measured: 6)


@pytest.fixture(scope="module")
def device():
    return open_device("cpu", DeviceOptions())


def run(device, store, **wanted):
    wanted = {"wanted_error": 1e-6, "budget": 20, "seed": 1} | wanted
    return profile_adaptively(Candidates.of_blocks(BLOCKS), device, store, PROTOCOL, **wanted)


def test_it_stops_at_the_budget_and_notes_what_was_drawn(device, tmp_path):
    with Store(tmp_path / "s.sqlite") as store:
        outcome = run(device, store)
        assert (outcome.stopped, outcome.candidates) == ("budget spent", len(BLOCKS))
        assert [step.blocks for step in outcome.steps] == [12, 18, 20]
        picks = store.picks(device.setup)
        assert len(picks) == 20
        assert list(picks.values())[:12] == [True] * 12
        drawn = sum(picks.values())
        assert 12 < drawn < 20
        fitted = fit_predictor(store, device.setup)
        assert (fitted.blocks, fitted.at_random) == (20, drawn)
        assert len(fitted.predictor.residuals_) == drawn


def test_it_stops_when_the_error_is_small_enough_or_the_time_is_spent(device, tmp_path):
    with Store(tmp_path / "s.sqlite") as store:
        assert run(device, store, wanted_error=100.0).stopped == "wanted error reached"
        outcome = run(device, store, budget_minutes=0.0)
        assert outcome.stopped == "time spent"
        assert [step.blocks for step in outcome.steps] == [12]
        assert len(store.picks(device.setup)) == 12


def test_a_run_that_was_cut_off_goes_on_with_what_it_had_picked(device, tmp_path, monkeypatch):
    with Store(tmp_path / "s.sqlite") as store:
        run(device, store, budget=12)
        real = adaptive_profile.profile
        monkeypatch.setattr(adaptive_profile, "profile", _cut_off_after(real, calls=1))
        with pytest.raises(KeyboardInterrupt):
            run(device, store)
        picked = store.picks(device.setup)
        assert len(picked) == 18 and len(store.measurements(device.setup)) == 12
        monkeypatch.setattr(adaptive_profile, "profile", real)
        outcome = run(device, store)
        assert outcome.steps[0].blocks == 18
        assert list(store.picks(device.setup))[:18] == list(picked)
        assert len(store.measurements(device.setup)) == 20


def test_nothing_left_to_measure_ends_it(device, tmp_path):
    candidates = Candidates.of_blocks(BLOCKS[:14])
    with Store(tmp_path / "s.sqlite") as store:
        outcome = profile_adaptively(
            candidates, device, store, PROTOCOL, wanted_error=1e-6, budget=100
        )
    assert outcome.stopped == "all measured"
    assert outcome.steps[-1].blocks == 14
    assert np.isfinite(outcome.steps[-1].error)


def test_a_device_on_which_nothing_runs_says_so(device, tmp_path, monkeypatch):
    nothing = Profile({}, {("block", 0): "it does not fit"})
    monkeypatch.setattr(adaptive_profile, "profile", lambda *_, **__: nothing)
    with Store(tmp_path / "s.sqlite") as store, pytest.raises(DeviceError, match="does not fit"):
        run(device, store)


def _cut_off_after(real, calls):
    def cut(*arguments, **named):
        nonlocal calls
        calls -= 1
        if calls < 0:
            raise KeyboardInterrupt
        return real(*arguments, **named)

    return cut
