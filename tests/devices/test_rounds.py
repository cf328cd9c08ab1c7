from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from latkit.devices import Model, Setup, TimingProtocol, UsageError, Visit
from latkit.devices.backend import Loaded, Visited, WorkerLostError
from latkit.devices.errors import DeviceError
from latkit.devices.job import CANARY
from latkit.devices.measurement import measurement
from latkit.devices.rounds import (
    canary_ns,
    canary_spots,
    measure_rounds,
    round_plan,
    visiting_order,
)

MODELS = [Model(name, Path(name)) for name in ("one", "two", "three")]
PROTOCOL = TimingProtocol(rounds=4, processes=2, runs=3, max_repeats=4, max_wait_s=0)


class Board:
    """A device whose canary, heat and crashes a test scripts; it measures nothing."""

    setup = Setup("board", "abacus", "1")
    timeout_s = 1.0

    def __init__(self, canaries=(), heat=(), crashes=(), refused=()):
        self.canaries = list(canaries)
        self.heat = list(heat)
        self.crashes = list(crashes)
        self.refused = refused
        self.cooled = []
        self.plans = []
        self.ended = 0
        self.sessions = []

    @contextlib.contextmanager
    def session(self):
        self.sessions.append("begin")
        yield {"prepared": True}
        self.sessions.append("end")

    def deliver(self, models):
        return [
            UsageError(f"no {path}") if str(path) in self.refused else str(path) for path in models
        ]

    def canary(self):
        return "canary"

    def worker(self, job, folder):
        return BoardWorker(self, job)

    def state(self):
        return {"heat": self.heat[0] if self.heat else 0}

    def throttled(self, before, after, visited, drift):
        heat = self.heat.pop(0) if self.heat else 0
        return f"heat {heat}" if heat else None

    def cool(self, before):
        self.cooled.append(before)
        return 0.0


class BoardWorker:
    def __init__(self, board, job):
        self.board = board
        self.job = job

    def load(self, timeout_s):
        count = len(self.job.models)
        return Loaded({}, {number: 10 for number in range(count) if number not in self.job.skip})

    def visit(self, plan, timeout_s):
        self.board.plans.append(list(plan))
        crash = self.board.crashes.pop(0) if self.board.crashes else None
        if crash is not None:
            raise crash
        times = self.board.canaries.pop(0) if self.board.canaries else (100,)
        canary = [runs for number, runs in plan if number == CANARY]
        times = [*times, *[times[-1]] * (len(canary) - len(times))]
        return Visited(
            0.0,
            1.0,
            tuple(Visit((time,) * runs, None) for time, runs in zip(times, canary, strict=False)),
            {number: Visit((50,) * runs, None) for number, runs in plan if number != CANARY},
        )

    def end(self):
        self.board.ended += 1


def rounds_of(board, models=MODELS, protocol=PROTOCOL):
    return list(measure_rounds(board, models, protocol))


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**31), st.integers(0, 1000), st.integers(0, 20), st.integers(0, 300))
def test_a_round_visits_every_model_once_in_an_order_of_its_own(seed, index, attempt, count):
    order = visiting_order(seed, index, attempt, count)
    assert sorted(order) == list(range(count))
    assert order == visiting_order(seed, index, attempt, count)
    if count > 50:
        assert order != visiting_order(seed, index + 1, attempt, count)
        assert order != visiting_order(seed, index, attempt + 1, count)
        assert order != visiting_order(seed + 1, index, attempt, count)


@given(st.integers(0, 5000))
def test_the_canary_runs_first_and_last_and_between(count):
    spots = canary_spots(count)
    assert {0, count} <= spots <= set(range(count + 1))
    if count >= 4:
        assert len(spots) == 5
        gaps = np.diff(sorted(spots))
        assert gaps.max() - gaps.min() <= 1
    plan = round_plan(range(count), 7)
    assert plan[0][0] == plan[-1][0] == CANARY
    assert [number for number, _ in plan if number != CANARY] == list(range(count))


def test_preempted_canaries_count_only_where_there_are_no_others():
    hit, clean = Visit((9, 5), (True, False)), Visit((7,), (True,))
    assert canary_ns([hit, clean]) == (5,)
    assert canary_ns([clean]) == (7,)
    assert canary_ns([Visit((3, 4), None)]) == (3, 4)


def test_rounds_are_spread_over_processes_in_one_session():
    board = Board()
    rounds = rounds_of(board)
    assert [(item.index, item.process, item.accepted) for item in rounds] == [
        (0, 0, True),
        (1, 0, True),
        (2, 1, True),
        (3, 1, True),
    ]
    assert board.ended == 2
    assert board.sessions == ["begin", "end"]
    assert rounds[0].context["prepared"] is True
    assert all(set(item.visits) == {model.key for model in MODELS} for item in rounds)


def test_a_slow_canary_repeats_its_round():
    rounds = rounds_of(Board(canaries=[(100,), (105,)]))
    assert [(item.index, item.attempt, item.accepted) for item in rounds][:3] == [
        (0, 0, True),
        (1, 0, False),
        (1, 1, True),
    ]
    assert rounds[1].canary_drift == pytest.approx(0.05)


def test_a_canary_that_is_far_slower_at_the_end_and_stays_so_discards_the_round():
    board = Board(canaries=[(100,), (100, 100, 100, 150), (150,)])
    rounds = rounds_of(board)
    assert [item.accepted for item in rounds] == [True, False, True, True, True]
    assert rounds[1].canary_drift == 0  # its median says nothing of it


def test_a_canary_that_is_slow_at_the_end_only_once_is_let_pass():
    board = Board(canaries=[(100,), (100, 100, 100, 150), (100,)])
    assert all(item.accepted for item in rounds_of(board))


def test_what_throttles_is_cooled_and_repeated():
    board = Board(heat=[0, 3, 0])
    rounds = rounds_of(board)
    assert [item.accepted for item in rounds] == [True, False, True, True, True]
    assert board.cooled == [{"heat": 0}]  # to what it was before the round
    assert rounds[1].context["throttled"] == "heat 3"
    assert rounds[1].context["state"] == [{"heat": 0}, {"heat": 3}]
    assert measurement(("one", 0), board.setup, rounds).verdict.kind == "noisy"  # 2 processes


def test_what_throttles_to_the_end_has_that_verdict():
    board = Board(heat=[2] * 50)
    rounds = rounds_of(board)
    assert sum(not item.accepted for item in rounds) == PROTOCOL.max_repeats
    assert [item.index for item in rounds if item.accepted] == [0, 1, 2, 3]
    found = measurement(("one", 0), board.setup, rounds)
    assert found.verdict.kind == "throttled"
    assert "throttled in 4 of 4 rounds: heat 2" in found.verdict.reasons


def test_a_model_that_takes_the_worker_with_it_fails_alone():
    board = Board(crashes=[None, WorkerLostError(1, "run", "ended by SIGSEGV")])
    rounds = rounds_of(board)
    assert len(rounds) == 4
    assert rounds[1].failures == {("two", 0): "run: ended by SIGSEGV"}
    assert set(rounds[1].visits) == {("one", 0), ("three", 0)}
    assert 1 not in dict(board.plans[-1])


def test_a_worker_lost_at_no_model_or_by_a_kill_ends_the_call():
    with pytest.raises(DeviceError, match="Nothing of the batch was at fault"):
        rounds_of(Board(crashes=[WorkerLostError(None, "start", "died")]))
    with pytest.raises(DeviceError, match="memory runs out"):
        rounds_of(Board(crashes=[WorkerLostError(0, "run", "died by SIGKILL", killed=True)]))


def test_a_lost_device_ends_the_call_and_keeps_the_rounds_before():
    board = Board(crashes=[None, None, DeviceError("the link is lost")])
    kept = []
    rounds = measure_rounds(board, MODELS, PROTOCOL)
    with pytest.raises(DeviceError, match="link is lost"):
        for item in rounds:
            kept.append(item)
    assert [item.index for item in kept] == [0, 1]
    assert board.ended == 2


def test_a_model_that_can_not_be_delivered_is_a_failure_of_every_round():
    rounds = rounds_of(Board(refused=("two",)))
    assert all(item.failures == {("two", 0): "no two"} for item in rounds)
    assert all(len(item.visits) == 2 for item in rounds)


@pytest.mark.parametrize(
    ("models", "protocol"),
    [
        ([MODELS[0], MODELS[0]], PROTOCOL),
        ([Model("x", Path("x"), -1)], PROTOCOL),
        (MODELS, TimingProtocol(rounds=0)),
        (MODELS, TimingProtocol(max_wait_s=-1)),
    ],
)
def test_what_can_not_be_asked_is_refused_before_the_device_is_touched(models, protocol):
    board = Board()
    with pytest.raises(UsageError):
        measure_rounds(board, models, protocol)
    assert board.sessions == []
