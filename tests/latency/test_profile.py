import uuid
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from latkit.devices.device import Round, Setup, TimingProtocol, Visit
from latkit.devices.errors import DeviceError, UnstableError
from latkit.latency.blocks import ConvBlock
from latkit.latency.profile import BATCH_SIZE, profile
from latkit.latency.store import Store
from latkit.latency.subject import ModelFile, subject_id
from rich.progress import Progress

PROTOCOL = TimingProtocol(rounds=6, processes=3, runs=3)


class Phone:
    """Stands where a phone would: yields rounds as the protocol asks, and remembers the calls.

    `canaries` are the canary's times of each call in turn, `broken` fail with a cause, of
    `spreading` every second round takes twice as long, and after `lost_after` rounds the device is
    gone.
    """

    def __init__(self, canaries=(1000,), broken=(), spreading=(), lost_after=None):
        self.setup = Setup("phone", "litert", "2.0")
        self.calls = []
        self.canaries = list(canaries)
        self.broken = set(broken)
        self.spreading = set(spreading)
        self.lost_after = lost_after
        self.given = 0
        self.closed = 0

    def info(self):
        return {"calls": len(self.calls)}

    def measure(self, models, protocol):
        for model in models:
            onnx.checker.check_model(onnx.load(model.path))
        self.calls.append(([model.key for model in models], protocol))
        run_id = uuid.uuid4().hex
        canary = self.canaries[min(len(self.calls), len(self.canaries)) - 1]
        random = np.random.default_rng(protocol.seed)
        try:
            for index in range(protocol.rounds):
                if self.lost_after is not None and self.given == self.lost_after:
                    raise DeviceError("the phone is gone")
                self.given += 1
                yield Round(
                    run_id=run_id,
                    process=index * protocol.processes // protocol.rounds,
                    index=index,
                    attempt=0,
                    accepted=True,
                    started_at=float(index),
                    duration_s=0.1,
                    canary_ns=(canary,) * 5,
                    canary_drift=0.0,
                    visits={
                        model.key: Visit(self.samples(model.id, index, random), None)
                        for model in models
                        if model.id not in self.broken
                    },
                    failures={
                        model.key: "no such kernel" for model in models if model.id in self.broken
                    },
                )
        finally:
            self.closed += 1

    def samples(self, model_id, index, random):
        base = 10**6 * (1 + index % 2) if model_id in self.spreading else 10**6
        return tuple(map(int, base + random.integers(0, 99, 3)))


def blocks(count):
    return [
        ConvBlock(in_channels=index, height=2, width=2, out_channels=1, kernel=1)
        for index in range(1, count + 1)
    ]


def requests(count, eviction_bytes=0):
    return [(block, eviction_bytes) for block in blocks(count)]


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path / "s.sqlite") as opened:
        yield opened


def test_all_models_are_measured_for_all_rounds(store):
    phone = Phone()
    wanted = [*requests(3), *requests(2, 4096)]
    result = profile(phone, wanted, store, PROTOCOL)
    assert list(result.measurements) == [(subject_id(block), size) for block, size in wanted]
    assert not result.failures
    assert all(len(item.rounds) == 6 for item in result.measurements.values())
    assert len(phone.calls) == 1


def test_nothing_is_measured_twice(store):
    profile(Phone(), requests(3), store, PROTOCOL)
    again = Phone()
    result = profile(again, [*requests(4), requests(1)[0]], store, PROTOCOL)
    assert [keys for keys, _ in again.calls] == [[(subject_id(blocks(4)[3]), 0)]]
    assert len(result.measurements) == 4
    unneeded = Phone()
    profile(unneeded, requests(4), store, PROTOCOL)
    assert unneeded.calls == []


def test_lost_device_is_raised_and_the_next_run_measures_what_is_left(store):
    with pytest.raises(DeviceError, match="the phone is gone"):
        profile(Phone(lost_after=4), requests(3), store, PROTOCOL)
    before = store.rounds(Phone().setup)
    assert len(before) == 4
    phone = Phone()
    result = profile(phone, requests(3), store, PROTOCOL)
    ((_, protocol),) = phone.calls
    assert protocol.rounds == 2
    assert protocol.processes == 2
    assert protocol.seed != PROTOCOL.seed
    assert store.rounds(phone.setup)[:4] == before
    assert {len(item.rounds) for item in result.measurements.values()} == {6}


def test_more_rounds_are_added_to_those_there(store):
    profile(Phone(), requests(2), store, PROTOCOL)
    phone = Phone()
    result = profile(phone, requests(2), store, replace(PROTOCOL, rounds=10))
    assert [protocol.rounds for _, protocol in phone.calls] == [4]
    assert {len(item.rounds) for item in result.measurements.values()} == {10}


def test_what_spreads_too_much_is_timed_twice_as_long_and_no_longer(store):
    noisy = subject_id(blocks(2)[1])
    phone = Phone(spreading=(noisy,))
    profile(phone, requests(2), store, PROTOCOL)
    steady = subject_id(blocks(1)[0])
    assert store.finished_rounds(phone.setup) == {(steady, 0): 6, (noisy, 0): 12}
    profile(phone, requests(2), store, PROTOCOL)
    assert len(phone.calls) == 2


def test_rounds_cover_batches_of_bounded_and_equal_size(store):
    phone = Phone()
    count = 2 * BATCH_SIZE + 2
    profile(phone, requests(count), store, replace(PROTOCOL, rounds=1))
    sizes = [len(keys) for keys, _ in phone.calls]
    assert len(sizes) == 3
    assert sum(sizes) == count
    assert max(sizes) - min(sizes) <= 1
    assert len({key for keys, _ in phone.calls for key in keys}) == count


def test_model_that_failed_is_in_the_result_and_not_tried_again(store):
    broken = subject_id(blocks(2)[1])
    result = profile(Phone(broken=[broken]), requests(2), store, PROTOCOL)
    assert result.failures == {(broken, 0): "no such kernel"}
    assert list(result.measurements) == [(subject_id(blocks(1)[0]), 0)]
    phone = Phone()
    assert profile(phone, requests(2), store, PROTOCOL).failures == result.failures
    assert phone.calls == []
    healed = profile(phone, requests(2), store, PROTOCOL, retry_failed=True)
    assert [keys for keys, _ in phone.calls] == [[(broken, 0)]]
    assert not healed.failures
    assert len(healed.measurements) == 2


def test_strict_discards_rounds_of_a_run_whose_canary_differs(store):
    with pytest.raises(DeviceError):
        profile(Phone(canaries=[1100], lost_after=4), requests(2), store, PROTOCOL)
    phone = Phone(canaries=[1000, 1000])
    result = profile(phone, requests(2), store, PROTOCOL, strict=True)
    assert [protocol.rounds for _, protocol in phone.calls] == [2, 4]
    assert {item.verdict.kind for item in result.measurements.values()} == {"stable"}
    canaries = {item.canary_ns[0] for item in store.rounds(phone.setup)}
    assert canaries == {1000}


def test_without_strict_slower_rounds_are_kept_and_the_verdict_tells(store):
    with pytest.raises(DeviceError):
        profile(Phone(canaries=[1100], lost_after=4), requests(2), store, PROTOCOL)
    phone = Phone()
    result = profile(phone, requests(2), store, PROTOCOL)
    for item in result.measurements.values():
        reasons = "; ".join(item.verdict.reasons)
        assert "4 of 12 rounds left out: the canary was slow by up to 10.0%" in reasons
    assert len(store.rounds(phone.setup)) == 12


def test_strict_keeps_earlier_runs_whose_canary_agrees(store):
    with pytest.raises(DeviceError):
        profile(Phone(canaries=[1020], lost_after=4), requests(2), store, PROTOCOL)
    phone = Phone()
    profile(phone, requests(2), store, PROTOCOL, strict=True)
    assert [protocol.rounds for _, protocol in phone.calls] == [2]


def test_strict_gives_up_after_measuring_again_once(store):
    spreading = [subject_id(block) for block in blocks(2)]
    with pytest.raises(DeviceError):
        profile(Phone(canaries=[1200], lost_after=4), requests(2), store, PROTOCOL)
    phone = Phone(canaries=[1100, 1000, 1000], spreading=spreading)
    with pytest.raises(UnstableError, match="spread"):
        profile(phone, requests(2), store, PROTOCOL, strict=True)
    assert len(phone.calls) == 3
    assert set(store.finished_rounds(phone.setup).values()) == {12}


def test_a_call_is_told_what_the_quiet_canary_took(store):
    profile(Phone(canaries=[1000]), requests(1), store, PROTOCOL)
    phone = Phone(canaries=[1200])
    profile(phone, requests(2), store, PROTOCOL)
    assert phone.calls[0][1].quiet_canary_ns == 1000


def test_strict_with_too_few_rounds_is_unstable_and_all_is_stored(store):
    phone = Phone()
    with pytest.raises(UnstableError, match="only 2 rounds"):
        profile(phone, requests(2), store, replace(PROTOCOL, rounds=2), strict=True)
    assert len(store.rounds(phone.setup)) == 2


def test_device_is_let_go_when_storing_fails(store, monkeypatch):
    phone = Phone()

    def full(*_):
        raise DeviceError("full")

    monkeypatch.setattr(store, "add_round", full)
    with pytest.raises(DeviceError, match="full"):
        profile(phone, requests(2), store, PROTOCOL)
    assert phone.closed == 1


def test_progress_counts_models_times_rounds(store):
    with pytest.raises(DeviceError):
        profile(Phone(lost_after=2), requests(3), store, PROTOCOL)
    progress = Progress(disable=True)
    profile(Phone(), requests(5), store, PROTOCOL, progress=progress)
    (task,) = progress.tasks
    assert task.total == 3 * 4 + 2 * 6
    assert task.completed == task.total


def test_model_files_are_measured_where_they_lie(store, tmp_path):
    phone = Phone()
    profile(phone, requests(1), store, PROTOCOL)
    (written,) = store.model_folder.iterdir()
    model = ModelFile.read(Path(written))
    result = profile(phone, [(model, 0)], store, PROTOCOL)
    assert list(result.measurements) == [(f"file:{model.sha256}", 0)]
    assert store.subject(model.key) == model


def test_each_batch_files_its_own_device_information(store):
    phone = Phone()
    profile(phone, requests(2), store, PROTOCOL)
    profile(phone, requests(3), store, PROTOCOL)
    assert store.device_info(phone.setup) == {"calls": 1}
