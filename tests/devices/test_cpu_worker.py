from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from latkit.devices.backend import WorkerLostError
from latkit.devices.canary import build_canary
from latkit.devices.job import CANARY, HostJob, Job, Progress, read_progress
from latkit.devices.runtimes import find_runtime
from latkit.devices.worker import Evictor, switch_counter, timed_runs
from latkit.devices.worker_process import WorkerProcess

numbers = st.integers(0, 2**31)


def make_job(tmp_path, canary, runtime="onnxruntime", models=None, skip=()):
    models = ((str(canary), 0), (str(canary), 4096)) if models is None else models
    job = Job(str(canary), models, skip, warmups=1, warmup_ms=0.0)
    return HostJob(runtime, 1, None, str(tmp_path / "progress"), job)


@pytest.fixture
def canary(tmp_path):
    onnx.save(build_canary(), tmp_path / "canary.onnx")
    return tmp_path / "canary.onnx"


@given(st.integers(0, 10_000))
def test_eviction_writes_to_every_cache_line_and_no_further(size_bytes):
    evictor = Evictor(16_384)
    lines = evictor.lines(size_bytes)
    lines += np.uint64(1)
    words = evictor._words
    touched = {int(word) * 8 // 64 for word in np.flatnonzero(words == 2)}
    assert touched == set(range(-(-size_bytes // 64)))


def test_a_walk_is_timed_where_there_is_memory_to_walk_through():
    assert Evictor(0).timed_walk_ns() is None
    assert Evictor(1 << 20).timed_walk_ns() > 0


def test_timed_runs_gives_one_sample_for_each_run(canary):
    session = find_runtime("onnxruntime").load(canary, 1)
    lines = Evictor(1 << 16).lines(1 << 16)
    samples, preempted = timed_runs(session, lines, 1, 0.0, 5, switch_counter(1))
    assert len(samples) == len(preempted) == 5
    assert min(samples) > 1000
    assert timed_runs(session, lines, 0, 0.0, 1, None)[1] is None


@pytest.mark.parametrize("threads", [1, 2])
def test_switch_counter_never_runs_backwards(threads):
    counter = switch_counter(threads)
    first = counter()
    sum(range(100_000))
    assert 0 <= first <= counter()


@settings(deadline=None)
@given(
    st.tuples(numbers, numbers),
    st.one_of(st.none(), st.lists(numbers, max_size=3).map(tuple)),
    st.lists(st.tuples(st.text(), numbers), max_size=4).map(tuple),
)
def test_a_job_survives_json(values, cores, models):
    job = Job("canary", models, (1, 2), values[0], 1.5)
    told = HostJob("litert", 2, cores, "progress", job)
    assert HostJob.from_json(json.loads(json.dumps(told.to_json()))) == told


def test_progress_is_read_back_and_advances(tmp_path):
    progress = Progress(tmp_path / "progress")
    assert read_progress(tmp_path / "progress") is None
    progress.at(12345, "settle")
    assert read_progress(tmp_path / "progress") == (1, 12345, "settle")
    progress.at(CANARY, "run")
    assert read_progress(tmp_path / "progress") == (2, CANARY, "run")


def test_a_worker_visits_what_it_is_told_to_and_ends(tmp_path, canary):
    worker = WorkerProcess(make_job(tmp_path, canary), tmp_path)
    try:
        loaded = worker.load(60)
        assert set(loaded.first_run_ns) == {0, 1} and not loaded.failures
        visited = worker.visit([(CANARY, 4), (1, 2), (0, 3), (CANARY, 1)], lambda number: 60)
        counts = {number: len(visit.samples_ns) for number, visit in visited.visits.items()}
        assert counts == {0: 3, 1: 2}
        assert list(visited.visits) == [1, 0]
        assert [len(visit.samples_ns) for visit in visited.canary] == [4, 1]
    finally:
        worker.end()
    assert worker._process.poll() is not None


def test_a_worker_skips_what_is_known_to_fail(tmp_path, canary):
    models = (("/nowhere.onnx", 0), (str(canary), 0))
    worker = WorkerProcess(make_job(tmp_path, canary, models=models, skip=(0,)), tmp_path)
    try:
        assert worker.load(60).failures == {}
        assert set(worker.visit([(1, 1)], lambda number: 60).visits) == {1}
    finally:
        worker.end()


def test_a_worker_that_can_not_start_is_lost_with_what_it_said(tmp_path, canary):
    worker = WorkerProcess(make_job(tmp_path, canary, runtime="abacus"), tmp_path)
    with pytest.raises(WorkerLostError, match="no runtime 'abacus'") as caught:
        worker.load(60)
    worker.end()
    assert caught.value.number is None


def test_a_missing_canary_blames_no_model(tmp_path, canary):
    worker = WorkerProcess(make_job(tmp_path, tmp_path / "none.onnx"), tmp_path)
    with pytest.raises(WorkerLostError) as caught:
        worker.load(60)
    worker.end()
    assert caught.value.number is None
