import json
import os
import random
import sqlite3
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from latkit.devices.device import Placement, Round, Setup, Summary, TimingProtocol, Visit
from latkit.devices.errors import DamagedFileError, DeviceError, LatkitError, UsageError
from latkit.latency import database, rows
from latkit.latency.blocks import ConvBlock
from latkit.latency.store import Store
from latkit.latency.subject import subject_id

SETUP = Setup("cpu:test", "onnxruntime", "1.0.1", cores=(0, 1))
OTHER = replace(SETUP, threads=2)
PROTOCOL = TimingProtocol(rounds=6, processes=3, runs=3)
INFO = {"processor": "test", "caches": [1, 2]}


def blocks(count):
    return [
        ConvBlock(in_channels=8 * index, height=8, width=8, out_channels=8)
        for index in range(1, count + 1)
    ]


def round_of(visits, index=0, run_id="run", accepted=True, attempt=0, failures=None, canary=1000):
    return Round(
        run_id=run_id,
        process=index // 2,
        index=index,
        attempt=attempt,
        accepted=accepted,
        started_at=1.7e9 + index / 3,
        duration_s=0.1 + index,
        canary_ns=(canary, canary + 1, canary + 2),
        canary_drift=0.01 / 3,
        visits=visits,
        failures=failures or {},
        context={"load_average": [0.1, 0.2], "steal_ticks": None},
    )


def visit(*samples, preempted=None):
    return Visit(tuple(samples), preempted)


def filled(path, count=3, rounds=6, setup=SETUP):
    """A store with `rounds` rounds of `count` blocks."""
    store = Store(path)
    keys = store.add_subjects(blocks(count))
    for index in range(rounds):
        visits = {
            (key, 0): visit(*(1000 * (number + 1) + 7 * index + run for run in range(3)))
            for number, key in enumerate(keys)
        }
        store.add_round(setup, PROTOCOL, INFO, round_of(visits, index))
    return store


def everything(store):
    """All that can be read out of a store."""
    return [
        (setup, store.rounds(setup), store.device_info(setup), store.finished_rounds(setup))
        for setup in store.setups()
    ] + [sorted(store.subjects().items())]


def test_rounds_come_back_as_they_were_stored(tmp_path):
    first, second = (subject_id(block) for block in blocks(2))
    stored = [
        round_of(
            {
                (first, 0): visit(10, 11, 2**40, preempted=(False, True, False)),
                (first, 4096): visit(20, 21),
                (second, 0): visit(30),
            }
        ),
        round_of(
            {(first, 0): visit(12)}, 1, accepted=False, failures={(second, 0): "broke \udcff"}
        ),
        round_of({(first, 0): visit(12)}, 1, attempt=1),
    ]
    with Store(tmp_path / "s.sqlite") as store:
        store.add_subjects(blocks(2))
        for item in stored:
            store.add_round(SETUP, PROTOCOL, INFO, item)
    with Store(tmp_path / "s.sqlite") as store:
        found = store.rounds(SETUP)
        assert found[1].failures == {(second, 0): "broke ?"}
        assert [replace(item, failures={}) for item in found] == [
            replace(item, failures={}) for item in stored
        ]
        assert store.rounds(SETUP, (first, 4096)) == [
            replace(stored[0], visits={(first, 4096): visit(20, 21)})
        ]
        assert store.rounds(OTHER) == []
        assert store.setups() == [SETUP]
        assert store.subject(first) == blocks(1)[0]
        assert store.device_info(SETUP) == INFO
        assert store.finished_rounds(SETUP) == {(first, 0): 2, (first, 4096): 1, (second, 0): 1}


def test_numpy_values_are_stored_as_numbers(tmp_path):
    with Store(tmp_path / "s.sqlite") as store:
        (key,) = store.add_subjects(blocks(1))
        samples = tuple(np.array([5, 6], np.int64))
        item = replace(round_of({(key, 0): visit(*samples)}), context={"load": np.float64(0.5)})
        store.add_round(SETUP, PROTOCOL, INFO, item)
        (found,) = store.rounds(SETUP)
        assert found.visits[key, 0].samples_ns == (5, 6)
        assert found.context == {"load": 0.5}


def test_setups_are_never_mixed(tmp_path):
    filled(tmp_path / "s.sqlite").close()
    with Store(tmp_path / "s.sqlite") as store:
        (key,) = store.add_subjects(blocks(1))
        store.add_round(OTHER, PROTOCOL, INFO, round_of({(key, 0): visit(5)}, run_id="other"))
        assert store.setups() == [SETUP, OTHER]
        assert store.measurement(OTHER, (key, 0)).median_ns == 5
        assert store.measurement(SETUP, (key, 0)).sample_count == 18


def test_measurement_is_a_query_over_accepted_rounds(tmp_path):
    with filled(tmp_path / "s.sqlite", count=2) as store:
        key = store.add_subject(blocks(1)[0])
        noise = round_of({(key, 0): visit(10**9)}, 6, accepted=False)
        store.add_round(SETUP, PROTOCOL, INFO, noise)
        found = store.measurement(SETUP, (key, 0))
        assert found.median_ns == 1000 + 1 + 7 * 2.5
        many = store.measurements(SETUP, 0)
        assert many[key].median_ns == found.median_ns
        assert len(many) == 2
        assert store.measurement(SETUP, (key, 4096)) is None
        assert store.measurement(OTHER, (key, 0)) is None


def test_measurements_at_several_eviction_sizes_ask_for_one(tmp_path):
    with filled(tmp_path / "s.sqlite") as store:
        key = store.add_subject(blocks(1)[0])
        item = round_of({(key, 4096): visit(5)}, run_id="other")
        store.add_round(SETUP, PROTOCOL, INFO, item)
        with pytest.raises(UsageError, match="0, 4096"):
            store.measurements(SETUP)
        assert set(store.measurements(SETUP, 4096)) == {key}
        assert store.eviction_sizes(SETUP) == [0, 4096]


def test_model_that_failed_is_an_error_with_its_cause(tmp_path):
    with Store(tmp_path / "s.sqlite") as store:
        first, second = store.add_subjects(blocks(2))
        item = round_of({(first, 0): visit(5)}, failures={(second, 0): "no such kernel"})
        store.add_round(SETUP, PROTOCOL, INFO, item)
        with pytest.raises(DeviceError, match="no such kernel"):
            store.measurement(SETUP, (second, 0))
        assert set(store.measurements(SETUP, 0)) == {first}
        assert store.failures(SETUP) == {(second, 0): "no such kernel"}
        store.add_round(SETUP, PROTOCOL, INFO, round_of({(second, 0): visit(7)}, 1))
        assert store.failures(SETUP) == {}


def test_discarded_rounds_are_skipped_and_stay_stored(tmp_path):
    path = tmp_path / "s.sqlite"
    with filled(path) as store:
        rounds = store.rounds(SETUP)
        store.discard(rounds[:2], "the canary moved")
        store.discard(rounds[:1], "again")
        assert store.rounds(SETUP) == rounds[2:]
        assert set(store.finished_rounds(SETUP).values()) == {4}
        assert all(len(item.rounds) == 4 for item in store.measurements(SETUP, 0).values())
        with pytest.raises(UsageError, match="no round"):
            store.discard([replace(rounds[0], run_id="another")], "")
    with sqlite3.connect(path) as raw:
        assert raw.execute("SELECT count(*) FROM rounds").fetchone() == (6,)
        assert raw.execute("SELECT reason FROM discards").fetchall() == [("the canary moved",)] * 2


def test_round_with_an_unknown_subject_is_refused_whole(tmp_path):
    with Store(tmp_path / "s.sqlite") as store:
        (key,) = store.add_subjects(blocks(1))
        with pytest.raises(UsageError, match="nobody"):
            item = round_of({(key, 0): visit(5), ("nobody", 0): visit(6)})
            store.add_round(SETUP, PROTOCOL, INFO, item)
        assert store.setups() == []
        assert store.rounds(SETUP) == []


def test_device_information_is_stored_once_for_all_rounds(tmp_path):
    path = tmp_path / "s.sqlite"
    filled(path).close()
    with sqlite3.connect(path) as raw:
        assert raw.execute("SELECT count(*) FROM contexts").fetchone() == (1,)


def test_frame_has_a_row_for_each_measurement_and_goes_through_csv(tmp_path):
    with filled(tmp_path / "s.sqlite") as store:
        frame = store.frame()
        frame.to_csv(tmp_path / "s.csv", index=False)
        again = pd.read_csv(tmp_path / "s.csv", keep_default_na=False)
        pd.testing.assert_frame_equal(frame, again)
        assert len(frame) == 3
        assert set(frame.verdict) == {"stable"}
        assert set(frame.cores) == {"0 1"}
        found = store.measurements(SETUP, 0)
        assert {key: item.median_ms for key, item in found.items()} == dict(
            zip(frame.model, frame.median_ms, strict=True)
        )


def test_frame_of_an_empty_store_has_columns(tmp_path):
    with Store(tmp_path / "s.sqlite") as store:
        assert "median_ms" in store.frame().columns


def test_many_models_are_read_in_one_pass_over_the_store(tmp_path):
    with filled(tmp_path / "s.sqlite", count=300, rounds=8) as store:
        statements = []
        original = database.Database.reading

        def counted(self):
            statements.append(1)
            return original(self)

        database.Database.reading = counted
        try:
            found = store.measurements(SETUP, 0)
        finally:
            database.Database.reading = original
        assert len(found) == 300
        assert len(statements) == 1


# --- files that are not what they should be


@pytest.mark.parametrize("keep", [0.0005, 0.1, 0.5, 0.9, 0.99])
def test_truncated_store_is_damaged(tmp_path, keep):
    path = tmp_path / "s.sqlite"
    filled(path).close()
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content))])
    with pytest.raises(DamagedFileError, match=r"s\.sqlite is damaged") as caught:
        Store(path)
    assert caught.value.exit_code == 5


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """The bytes of a store and what is in it."""
    path = tmp_path_factory.mktemp("damage") / "s.sqlite"
    with filled(path) as store:
        store.discard(store.rounds(SETUP)[:1], "first")
        whole = everything(store)
    return path.read_bytes(), whole


@given(st.data())
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_flipped_byte_is_noticed_or_changes_nothing(stored, tmp_path, data):
    content, whole = stored
    position = data.draw(st.integers(0, len(content) - 1))
    damaged = bytearray(content)
    damaged[position] ^= data.draw(st.integers(1, 255))
    path = tmp_path / "s.sqlite"
    for stale in tmp_path.glob("s.sqlite*"):
        stale.unlink()
    path.write_bytes(damaged)
    try:
        with Store(path) as store:
            found = everything(store)
    except DamagedFileError:
        return
    assert found == whole


def test_many_flipped_bytes_are_noticed(stored, tmp_path):
    content, _ = stored
    positions = random.Random(3)
    path = tmp_path / "s.sqlite"
    for _ in range(10):
        damaged = bytearray(content)
        for _ in range(200):
            damaged[positions.randrange(len(damaged))] ^= positions.randrange(1, 256)
        path.write_bytes(damaged)
        with pytest.raises(DamagedFileError):
            Store(path)


def test_file_of_another_kind_is_damaged(tmp_path):
    path = tmp_path / "s.sqlite"
    path.write_text("not a database at all, but long enough to be read as one\n" * 100)
    with pytest.raises(DamagedFileError, match="not a database"):
        Store(path)
    assert path.read_text().startswith("not a database at all")


def test_other_database_is_left_alone(tmp_path):
    path = tmp_path / "s.sqlite"
    with sqlite3.connect(path) as raw:
        raw.execute("CREATE TABLE mine (a)")
    raw.close()
    with pytest.raises(UsageError, match="no latkit store"):
        Store(path)
    with sqlite3.connect(path) as raw:
        assert raw.execute("SELECT name FROM sqlite_master").fetchall() == [("mine",)]


def test_newer_store_names_both_versions(tmp_path):
    path = tmp_path / "s.sqlite"
    filled(path).close()
    with sqlite3.connect(path) as raw:
        raw.execute("UPDATE meta SET version = 99")
    raw.close()
    with pytest.raises(DamagedFileError, match=r"version 99.*reads up to 4.*newer latkit"):
        Store(path)


def test_missing_folder_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match="no folder"):
        Store(tmp_path / "none" / "s.sqlite")


def test_folder_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match="folder"):
        Store(tmp_path)


def test_place_that_takes_no_file_is_a_usage_error():
    with pytest.raises(UsageError, match="can't open the store"):
        Store("/proc/latkit.sqlite")


def test_store_that_must_exist_is_not_made(tmp_path):
    with pytest.raises(UsageError, match="there is no store"):
        Store(tmp_path / "s.sqlite", create=False)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("url", ["nosuch://x/y", "sqlite://", "sqlite:///:memory:"])
def test_bad_url_is_a_usage_error(url):
    with pytest.raises(UsageError):
        Store(url)


def test_url_of_a_file_is_the_file(tmp_path):
    path = tmp_path / "s.sqlite"
    filled(path).close()
    with Store(f"sqlite:///{path}") as store:
        assert len(store.rounds(SETUP)) == 6


# --- full disks, and other processes


def test_full_disk_loses_nothing(tmp_path, monkeypatch):
    path = tmp_path / "s.sqlite"
    with filled(path) as store:
        before = everything(store)
    original = database._set_up_sqlite

    def limited(connection, record):
        original(connection, record)
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages}")

    monkeypatch.setattr(database, "_set_up_sqlite", limited)
    with Store(path) as store:
        (key,) = store.add_subjects(blocks(1))
        large = round_of({(key, 0): visit(*range(100_000))}, 9)
        with pytest.raises(LatkitError, match=r"full.*Nothing is lost.*run the command again"):
            store.add_round(SETUP, PROTOCOL, INFO, large)
        assert everything(store) == before
    monkeypatch.undo()
    with Store(path) as store:
        assert everything(store) == before
        store.add_round(SETUP, PROTOCOL, INFO, large)
        assert len(store.rounds(SETUP)) == 7


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="mounts a small disk")
def test_a_disk_that_is_full_before_the_store_is_opened_is_named(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", disk])
    if mounted.returncode:
        pytest.skip("tmpfs can't be mounted here")
    try:
        with filled(disk / "s.sqlite") as store:
            before = everything(store)
        fill = disk / "fill"
        with pytest.raises(OSError, match="No space"):
            fill.write_bytes(bytes(2**20))
        with (
            pytest.raises(LatkitError, match=r"full.*Nothing is lost"),
            Store(disk / "s.sqlite") as store,
        ):
            store.add_round(SETUP, PROTOCOL, INFO, round_of({("new", 0): visit(1)}, 9))
        fill.unlink()
        with Store(disk / "s.sqlite") as store:
            assert everything(store) == before
    finally:
        subprocess.run(["umount", disk], check=True)


WRITER = """
import sys
sys.path.insert(0, sys.argv[3])
from test_store import INFO, PROTOCOL, SETUP, blocks, round_of, visit
from latkit.latency.store import Store

with Store(sys.argv[1]) as store:
    keys = store.add_subjects(blocks(5))
    for index in range(15):
        visits = {(key, 0): visit(index + 1) for key in keys}
        store.add_round(SETUP, PROTOCOL, INFO, round_of(visits, index, run_id=sys.argv[2]))
"""


def test_several_processes_write_one_new_store(tmp_path, request):
    path = tmp_path / "s.sqlite"
    here = str(request.path.parent)
    command = [sys.executable, "-c", WRITER, str(path)]
    running = [
        subprocess.Popen([*command, name, here], stderr=subprocess.PIPE, text=True)
        for name in ("one", "two", "three")
    ]
    for process in running:
        _, stderr = process.communicate(timeout=120)
        assert process.returncode == 0, stderr
    with Store(path) as store:
        rounds = store.rounds(SETUP)
        assert len(rounds) == 45
        assert {len(item.visits) for item in rounds} == {5}
        assert set(store.finished_rounds(SETUP).values()) == {45}
        assert len(store.subjects()) == 5


def test_store_can_be_read_while_another_writes(tmp_path):
    path = tmp_path / "s.sqlite"
    with filled(path) as writer, Store(path) as reader:
        with writer._database.writing() as connection:
            connection.exec_driver_sql("DELETE FROM visits WHERE round_id = 1")
            assert len(reader.rounds(SETUP)) == 6
            raise_after = len(reader.rounds(SETUP)[0].visits)
        assert raise_after == 3


def test_locked_store_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(database, "BUSY_TIMEOUT_S", 0.2)
    path = tmp_path / "s.sqlite"
    with filled(path) as store:
        (key,) = store.add_subjects(blocks(1))
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(LatkitError, match="locked by another process"):
            store.add_round(SETUP, PROTOCOL, INFO, round_of({(key, 0): visit(5)}, 9))
        other.close()
        store.add_round(SETUP, PROTOCOL, INFO, round_of({(key, 0): visit(5)}, 9))


def test_rows_are_plain_json(tmp_path):
    path = tmp_path / "s.sqlite"
    filled(path).close()
    with sqlite3.connect(path) as raw:
        (samples, preempted) = raw.execute("SELECT samples_ns, preempted FROM visits").fetchone()
        (protocol,) = raw.execute("SELECT protocol FROM rounds").fetchone()
    assert json.loads(samples) == [1000, 1001, 1002]
    assert preempted is None
    assert json.loads(protocol)["rounds"] == 6


def test_a_store_of_version_1_is_read_and_goes_on(tmp_path):
    path = tmp_path / "s.sqlite"
    with filled(path) as store:
        before = store.measurements(SETUP)
    with sqlite3.connect(path) as raw:
        raw.execute("DROP TABLE notes")
        raw.execute("UPDATE meta SET version = 1")
    raw.close()
    with Store(path) as store:
        assert store.measurements(SETUP) == before
        store.add_round(SETUP, PROTOCOL, INFO, round_of({}, index=9, run_id="later"))
    with sqlite3.connect(path) as raw:
        assert raw.execute("SELECT version FROM meta").fetchall() == [(4,)]
    raw.close()


def test_setups_of_older_versions_have_what_was_added_since(tmp_path):
    old = '{"device":"cpu:x","runtime":"litert","runtime_version":"1","accelerator":"cpu",'
    old += '"threads":1,"cores":[0],"precision":"float32"}'
    assert rows.read_setup(old) == Setup("cpu:x", "litert", "1", cores=(0,))


def test_summaries_and_placements_are_kept(tmp_path):
    summary = Summary("mean", 1500.5, 50, minimum_ns=1000.0, p95_ns=None)
    placement = Placement("gpu", 2, 10, 12)
    setup = replace(SETUP, accelerator="gpu")
    with Store(tmp_path / "s.sqlite") as store:
        (key, other) = store.add_subjects(blocks(2))
        for index in range(6):
            visits = {
                (key, 0): Visit((), None, placement, summary),
                (other, 0): Visit((10, 12), None, replace(placement, delegated=12)),
            }
            store.add_round(setup, PROTOCOL, INFO, round_of(visits, index))
    with Store(tmp_path / "s.sqlite") as store:
        found = store.measurements(setup)
        assert [item.visits for item in store.rounds(setup)] == [visits] * 6
        frame = store.frame().set_index("model")
    assert found[key].statistic == "mean" and found[key].median_ns == 1500.5
    assert found[key].placements == (placement,)
    assert found[other].statistic == "median"
    assert frame.loc[key, "statistic"] == "mean" and frame.loc[key, "samples"] == 300
    assert pd.isna(frame.loc[key, "p5_ms"])
