"""Kernel profiling: networks are timed once each, stored as they come, and repeated if slow."""

import sqlite3
from dataclasses import replace

import pytest
from latkit.devices.device import Setup
from latkit.devices.errors import DamagedFileError, DeviceError, LatkitError, UsageError
from latkit.devices.options import DeviceOptions
from latkit.devices.registry import open_device
from latkit.latency.counts import Kernel
from latkit.latency.kernel_run import KernelRun
from latkit.latency.models import kernel_profile
from latkit.latency.models.kernel_profile import MOST_FAILURES, profile_kernels, splits_at_one_speed
from latkit.latency.models.probe_networks import probe_name
from latkit.latency.splitting.model_split import NamedKernel, Split
from latkit.latency.store import Store

pytestmark = pytest.mark.quiet

INFO = {"processor": "test"}


@pytest.fixture(scope="module")
def device():
    return open_device("cpu", DeviceOptions())


@pytest.fixture(scope="module")
def setup(device):
    return device.setup


class Named:
    """A device of another setup."""

    def __init__(self, setup):
        self.setup = setup

    def info(self):
        return INFO


def kernel(index=0, layout=""):
    return Kernel(
        "conv", "Conv+Relu", 100 + index, 36, 400, 400, 1, 1, 10, 10, 10, 10, layout=layout
    )


def split_of(whole_ms=1.0, kernels=3, canary_ns=(100.0, 101.0)):
    named = tuple(NamedKernel(f"k{index}", kernel(index), 0.3) for index in range(kernels))
    return Split(named, "runtime", whole_ms, canary_ns)


def run_of(seed=0, accepted=True, **changes):
    run = KernelRun(probe_name(seed), accepted, 1.7e9, 0.5, (100, 101), 0.01, split_of())
    return replace(run, **changes)


@pytest.fixture
def quick(monkeypatch):
    """Timing that answers at once, always alike; the numbers of the networks in order."""
    asked = []

    def timed(path, device, *, runs):
        del device, runs
        asked.append(int(path.stem))
        return split_of()

    monkeypatch.setattr(kernel_profile, "device_split", timed)
    monkeypatch.setattr(kernel_profile, "PAUSE_S", 0.0)
    return asked


def test_networks_are_really_timed_kernel_by_kernel(tmp_path, device, setup):
    with Store(tmp_path / "s.sqlite") as store:
        result = profile_kernels(device, store, networks=2)
        runs = [run for run in store.kernel_runs(setup) if run.accepted]
    assert result.networks == len(runs) == 2
    assert result.kernels == sum(len(run.split.kernels) for run in runs) > 20
    for run in runs:
        assert run.split.source == "runtime"
        assert all(item.median_ms > 0 for item in run.split.kernels)
        assert run.split.whole_ms > 0 and run.duration_s > 0 and run.canary_ns
    assert result.seconds == sum(run.duration_s for run in store.kernel_runs(setup))


def test_nothing_is_timed_twice(tmp_path, device, setup, quick):
    with Store(tmp_path / "s.sqlite") as store:
        profile_kernels(device, store, networks=3)
        profile_kernels(device, store, networks=3)
        profile_kernels(device, store, networks=5)
    assert quick == [0, 1, 2, 3, 4]


def test_a_killed_run_goes_on_where_it_was(tmp_path, device, setup, quick, monkeypatch):
    timed = kernel_profile.device_split

    def killed(path, device, *, runs):
        if len(quick) == 2:
            raise KeyboardInterrupt
        return timed(path, device, runs=runs)

    with Store(tmp_path / "s.sqlite") as store:
        with monkeypatch.context() as patched:
            patched.setattr(kernel_profile, "device_split", killed)
            with pytest.raises(KeyboardInterrupt):
                profile_kernels(device, store, networks=4)
        assert len(store.kernel_runs(setup)) == 2
        assert profile_kernels(device, store, networks=4).networks == 4
    assert quick == [0, 1, 2, 3]


def test_minutes_bound_the_time_of_all_calls_together(tmp_path, device, setup, quick):
    with Store(tmp_path / "s.sqlite") as store:
        store.add_kernel_run(setup, INFO, run_of(0, duration_s=59.9999))
        result = profile_kernels(device, store, minutes=1.0)
        assert quick
        count = len(quick)
        profile_kernels(device, store, minutes=1.0)
    assert len(quick) == count
    assert result.seconds >= 60


def test_a_network_that_fails_is_kept_with_its_cause_and_others_go_on(
    tmp_path, device, setup, quick, monkeypatch
):
    timed = kernel_profile.device_split

    def failing(path, device, *, runs):
        if path.stem == "1":
            raise DeviceError("no such operation")
        return timed(path, device, runs=runs)

    monkeypatch.setattr(kernel_profile, "device_split", failing)
    with Store(tmp_path / "s.sqlite") as store:
        result = profile_kernels(device, store, networks=3)
    assert result.networks == 3
    assert result.failures == {probe_name(1): "no such operation"}
    assert quick == [0, 2, 3]


def test_profiling_ends_where_every_network_fails(tmp_path, device, setup, quick, monkeypatch):
    def failing(path, device, *, runs):
        raise DeviceError("the runtime is broken")

    monkeypatch.setattr(kernel_profile, "device_split", failing)
    with (
        Store(tmp_path / "s.sqlite") as store,
        pytest.raises(LatkitError, match=f"{MOST_FAILURES} probe networks.*runtime is broken"),
    ):
        profile_kernels(device, store, networks=3)


def test_an_interrupted_network_is_timed_again_and_both_are_kept(
    tmp_path, device, setup, quick, monkeypatch
):
    timed = kernel_profile.device_split

    def interrupted(path, device, *, runs):
        found = timed(path, device, runs=runs)
        return replace(found, whole_ms=3.0) if quick == [0] else found

    monkeypatch.setattr(kernel_profile, "device_split", interrupted)
    with Store(tmp_path / "s.sqlite") as store:
        assert profile_kernels(device, store, networks=2).networks == 2
        runs = store.kernel_runs(setup)
    assert [(run.network, run.accepted) for run in runs] == [
        (probe_name(0), False),
        (probe_name(0), True),
        (probe_name(1), True),
    ]


def test_a_network_beside_a_slow_canary_is_timed_again_within_bounds(
    tmp_path, device, setup, quick, monkeypatch
):
    timed = kernel_profile.device_split

    def slow(path, device, *, runs):
        found = timed(path, device, runs=runs)
        return found if len(quick) < 3 else replace(found, canary_ns=(150.0, 151.0))

    monkeypatch.setattr(kernel_profile, "device_split", slow)
    with Store(tmp_path / "s.sqlite") as store:
        assert profile_kernels(device, store, networks=40).networks == 40
        runs = store.kernel_runs(setup)
    repeated = sum(not run.accepted for run in runs)
    assert 0 < repeated < 20
    assert all(run.canary_drift > 0.4 for run in runs if not run.accepted)


@pytest.mark.parametrize(
    "other",
    [
        Setup("adb:phone", "litert", "2.3"),
        Setup("cuda:0", "torch", "2.13"),
        Setup("cpu:test", "onnxruntime", "1", precision="int8"),
        Setup("cpu:test", "onnxruntime", "1", batch_size=2),
    ],
    ids=lambda item: item.key,
)
def test_devices_that_cannot_tell_kernels_are_refused(tmp_path, other):
    with Store(tmp_path / "s.sqlite") as store, pytest.raises(UsageError):
        profile_kernels(Named(other), store, networks=1)


def test_runs_come_back_as_they_were_stored(tmp_path, setup):
    failed = run_of(1, split=None, cause="\udcff bad bytes")
    with Store(tmp_path / "s.sqlite") as store:
        store.add_kernel_run(setup, INFO, run_of())
        store.add_kernel_run(setup, INFO, failed)
    with Store(tmp_path / "s.sqlite") as store:
        assert store.kernel_runs(setup) == [run_of(), replace(failed, cause="? bad bytes")]
        assert store.kernel_runs(replace(setup, threads=2)) == []
        assert store.setups() == [setup]
        assert store.device_info(setup) == INFO


def test_a_changed_row_is_noticed(tmp_path, setup):
    path = tmp_path / "s.sqlite"
    with Store(path) as store:
        store.add_kernel_run(setup, INFO, run_of())
    with sqlite3.connect(path) as raw:
        raw.execute("UPDATE splits SET json = replace(json, '0.3', '0.4')")
    raw.close()
    with Store(path) as store, pytest.raises(DamagedFileError, match="checksum"):
        store.kernel_runs(setup)


def test_a_store_of_version_2_takes_kernel_runs(tmp_path, setup):
    path = tmp_path / "s.sqlite"
    Store(path).close()
    with sqlite3.connect(path) as raw:
        raw.execute("DROP TABLE splits")
        raw.execute("UPDATE meta SET version = 2")
    raw.close()
    with Store(path) as store:
        assert store.kernel_runs(setup) == []
        store.add_kernel_run(setup, INFO, run_of())
        assert len(store.kernel_runs(setup)) == 1
    with sqlite3.connect(path) as raw:
        assert raw.execute("SELECT version FROM meta").fetchall() == [(4,)]
    raw.close()


def test_times_of_slow_and_quick_phases_are_brought_to_one_speed():
    usual = [run_of(seed, canary_ns=(100, 100)) for seed in range(3)]
    slow, quick = run_of(3, canary_ns=(125, 125)), run_of(4, canary_ns=(80, 80))
    left_out = run_of(5, accepted=False)
    without = run_of(6, canary_ns=())
    found = splits_at_one_speed([*usual, quick, slow, left_out, without])
    assert [item.whole_ms for item in found] == [1.0, 1.0, 1.0, 1.25, 0.8, 1.0]
    assert [item.median_ms for item in found[4].kernels] == pytest.approx([0.24] * 3)
    assert splits_at_one_speed([]) == []
