"""Several phones at once: one store, one command, and phones that disappear, stall, or wait."""

import io
import json
import signal
import socket
import subprocess
import sys
import time

import pytest
from latkit.devices.adb import Adb
from latkit.devices.adb import link as adb_link
from latkit.devices.device import TimingProtocol
from latkit.devices.errors import DeviceError
from latkit.devices.options import DeviceOptions
from latkit.devices.phone import kind as phone_kind
from latkit.devices.phone import settings as phone_settings
from latkit.devices.phone import shell as phone_shell
from latkit.latency.blocks import ConvBlock
from latkit.latency.outcome import time_models
from latkit.latency.several import on_each
from latkit.latency.store import Store, round_key
from latkit.latency.subject import subject_to_json
from phone import libraries
from phone.faults import CutAt, StallAt
from phone.fixtures import both_adb_versions
from phone.sandbox import Core
from rich.console import Console
from rich.progress import Progress

pytestmark = pytest.mark.timeout(200)

ROUNDS = 5
"""Fewer than a verdict needs: nothing is timed twice as long because it is unsteady."""

PROTOCOL = TimingProtocol(
    rounds=ROUNDS, processes=2, runs=3, warmups=1, warmup_ms=1, max_repeats=0, max_wait_s=0
)
BLOCKS = [ConvBlock(in_channels=8, height=size, width=size, out_channels=8) for size in (16, 32)]
KEYS = {(block.key, 0) for block in BLOCKS}
READING_STATE = "mark low_power"
"""What only the command that reads a phone's state has in it: at first, and after each round."""

DEADLINE_S = 100
STALLED_S = 2.0
"""Bound of calls where a phone stalls."""

INTERRUPTED = 130
LATKIT = [sys.executable, "-c", "from latkit.search.cli import main; main()"]


@pytest.fixture
def phones(make_phone):
    """Two phones whose fast cores are different ones of this host."""
    fast, slow = Core(2_800_000, 1024), Core(1_800_000, 400)
    return (
        make_phone(model="First", cores=(slow, fast)),
        make_phone(model="Second", manufacturer="Other", cores=(fast, slow)),
    )


@pytest.fixture
def profile_command(phones, tmp_path):
    """Start `latkit profile` for both phones; its standard output is JSON."""
    file = tmp_path / "blocks.json"
    file.write_text(json.dumps([subject_to_json(block) for block in BLOCKS]))

    def start(rounds=ROUNDS):
        words = [*LATKIT, "profile", "--blocks", file, "--store", tmp_path / "s.sqlite", "--json"]
        words += [word for phone in phones for word in ("--device", address(phone))]
        words += ["--runtime-library", libraries.onnxruntime_library()]
        words += ["--rounds", rounds, "--processes", 2, "--runs", 3]
        return subprocess.Popen(
            [str(word) for word in words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
            start_new_session=True,
        )

    return start


def address(phone):
    return f"adb:{phone.serial}"


def ended(process):
    """Exit code, data and messages of a command."""
    try:
        stdout, stderr = process.communicate(timeout=DEADLINE_S)
    finally:
        process.kill()
    return process.returncode, json.loads(stdout) if stdout else None, stderr


def settings_of(phone):
    names = ("settings/global/stay_on_while_plugged_in", "fixed_performance")
    return [phone.state(name) for name in names]


def stored(path):
    """The rounds of each phone, by the model that it names."""
    with Store(path) as store:
        return {
            model: store.rounds(setup)
            for setup in store.setups()
            for model in ("First", "Second")
            if model in setup.device
        }


def accepted(rounds):
    """How many accepted rounds each model has, no round counted twice."""
    by_key = {round_key(item): item for item in rounds}
    assert len(by_key) == len(rounds)
    return {
        key: sum(item.accepted and key in item.visits for item in rounds)
        for item in rounds
        for key in item.visits
    }


@both_adb_versions
def test_a_phone_that_disappears_stops_no_other_and_the_same_command_completes_it(
    phones, profile_command, tmp_path
):
    first, second = phones
    before = [settings_of(phone) for phone in phones]
    second.arm(CutAt("open", 3, READING_STATE))
    code, data, told = ended(profile_command())
    assert second.fired
    assert code == 3
    assert address(second) in told
    assert address(first) not in told
    assert len(data["devices"][address(first)]["measurements"]) == len(BLOCKS)
    assert list(data["devices"]) == [address(first)]
    assert list(data["failed"]) == [address(second)]
    rounds = stored(tmp_path / "s.sqlite")
    assert accepted(rounds["First"]) == dict.fromkeys(KEYS, ROUNDS)
    assert 1 <= len(rounds["Second"]) < ROUNDS
    second.remove()
    code, data, told = ended(profile_command())
    assert (code, list(data["failed"])) == (3, [address(second)])
    assert f"no phone {second.serial}" in told
    assert stored(tmp_path / "s.sqlite") == rounds
    second.reconnect()
    code, data, told = ended(profile_command())
    assert (code, told) == (0, "")
    assert sorted(data["devices"]) == sorted(map(address, phones))
    assert data["failed"] == {}
    completed = stored(tmp_path / "s.sqlite")
    assert completed["First"] == rounds["First"]
    assert completed["Second"][: len(rounds["Second"])] == rounds["Second"]
    assert accepted(completed["Second"]) == dict.fromkeys(KEYS, ROUNDS)
    assert [settings_of(phone) for phone in phones] == before


@pytest.mark.skipif(
    signal.getsignal(signal.SIGINT) is signal.SIG_IGN,
    reason="interrupts are ignored here, as a shell has it for what runs in its background",
)
def test_after_an_interrupt_each_phone_finishes_its_round_and_is_restored(
    phones, profile_command, tmp_path
):
    before = [settings_of(phone) for phone in phones]
    many = 3000
    process = profile_command(rounds=many)
    deadline = time.monotonic() + DEADLINE_S
    while process.poll() is None and time.monotonic() < deadline:
        if (tmp_path / "s.sqlite").exists() and len(stored(tmp_path / "s.sqlite")) == 2:
            break
        time.sleep(0.1)
    assert process.poll() is None, process.communicate()
    assert [settings_of(phone) for phone in phones] != before
    process.send_signal(signal.SIGINT)
    code, data, told = ended(process)
    assert code == INTERRUPTED
    assert data is None
    assert told.startswith("stopping: each device finishes the round")
    assert [settings_of(phone) for phone in phones] == before
    rounds = stored(tmp_path / "s.sqlite")
    for model in ("First", "Second"):
        assert set(accepted(rounds[model])) == KEYS
        assert len(rounds[model]) < many
    more = max(len(found) for found in rounds.values()) + 1
    code, _, told = ended(profile_command(rounds=more))
    assert (code, told) == (0, "")
    for model, found in stored(tmp_path / "s.sqlite").items():
        assert found[: len(rounds[model])] == rounds[model]
        assert min(accepted(found).values()) >= more


def profile_both(phones, path, progress=None):
    """The outcomes and errors of both phones, timed by threads of this process."""
    shown = progress or Progress(disable=True)
    options = DeviceOptions(runtime_library=libraries.onnxruntime_library())
    requests = [(block, 0) for block in BLOCKS]
    with Store(path) as store:
        return on_each(
            [address(phone) for phone in phones],
            options,
            lambda device, label: time_models(
                device, requests, store, PROTOCOL, False, False, shown, label
            ),
        )


@both_adb_versions
def test_a_phone_that_stalls_is_given_up_and_stops_no_other(phones, tmp_path, monkeypatch):
    monkeypatch.setattr(phone_kind, "Adb", lambda path: Adb(path, timeout_s=STALLED_S))
    monkeypatch.setattr(phone_settings, "RESTORE_TIMEOUT_S", STALLED_S)
    monkeypatch.setattr(adb_link, "END_REMOTE_TIMEOUT_S", STALLED_S)
    monkeypatch.setitem(phone_shell.read_sections.__kwdefaults__, "timeout_s", STALLED_S)
    first, second = phones
    second.arm(StallAt("open", 3, READING_STATE))
    outcomes, failures = profile_both(phones, tmp_path / "s.sqlite")
    assert list(outcomes) == [address(first)]
    assert list(failures) == [address(second)]
    assert isinstance(failures[address(second)], DeviceError)
    assert second.serial in str(failures[address(second)])
    rounds = stored(tmp_path / "s.sqlite")
    assert accepted(rounds["First"]) == dict.fromkeys(KEYS, ROUNDS)
    assert 1 <= len(rounds["Second"]) < ROUNDS
    second.reconnect()
    outcomes, failures = profile_both(phones, tmp_path / "s.sqlite")
    assert not failures
    completed = stored(tmp_path / "s.sqlite")
    assert completed["First"] == rounds["First"]
    assert accepted(completed["Second"]) == dict.fromkeys(KEYS, ROUNDS)


def test_each_phone_has_its_own_line_of_progress(phones, tmp_path):
    written = io.StringIO()
    console = Console(file=written, force_terminal=True, width=200)
    with Progress(console=console) as progress:
        profile_both(phones, tmp_path / "s.sqlite", progress)
    assert {task.description: task.completed for task in progress.tasks} == {
        f"{address(phone)}: profile": ROUNDS * len(BLOCKS) for phone in phones
    }
    assert progress.finished
    for phone in phones:
        assert address(phone) in written.getvalue()


def test_a_phone_that_can_t_be_opened_stops_no_other(phones, tmp_path):
    first, second = phones
    second.become_unauthorized()
    outcomes, failures = profile_both(phones, tmp_path / "s.sqlite")
    assert list(outcomes) == [address(first)]
    assert "unauthorized" in str(failures[address(second)])


@both_adb_versions
def test_phones_are_asked_for_one_after_the_other_where_no_adb_server_runs_yet(
    adb_server, monkeypatch
):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = str(taken.getsockname()[1])
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", port)
    addresses = ["adb:ONE", "adb:TWO", "adb:THREE"]
    try:
        _, failures = on_each(addresses, DeviceOptions(), lambda device, label: None)
    finally:
        adb_server.run("-P", port, "kill-server")
    for address, error in failures.items():
        assert f"no phone {address.removeprefix('adb:')} on adb" in str(error)
    assert sorted(failures) == sorted(addresses)
