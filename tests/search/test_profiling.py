"""Searches that are given no table: what the store lacks is timed, and nothing else."""

from dataclasses import replace

import pytest
from counting_phone import TABLE_MS_PER_FLOP, Phone
from latkit.devices.device import TimingProtocol
from latkit.devices.errors import UnreachableTargetError, UsageError
from latkit.latency.calibration import is_timed
from latkit.latency.store import Store
from latkit.latency.table import LatencyTable
from latkit.search.aim import Aim
from latkit.search.profiling import table_of
from latkit.search.spaces import Scale
from latkit.search.spaces.nasbench201 import NasBench201Space

SPACE = NasBench201Space(10, Scale(width=0.25, resolutions=(8,)), cells=1)
PROTOCOL = TimingProtocol(rounds=3, processes=1, runs=3)


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path / "store.sqlite") as opened:
        yield opened


def test_a_space_is_timed_once_and_its_table_is_kept_for_the_search_that_goes_on(store, tmp_path):
    phone, path = Phone(TABLE_MS_PER_FLOP), tmp_path / "search" / "table.json"
    table = table_of(SPACE, phone, store, PROTOCOL, (), path)
    assert {block for block in SPACE.blocks() if is_timed(block)} <= set(table.entries)
    assert LatencyTable.load(path) == table
    calls = len(phone.calls)
    assert calls > 0
    assert table_of(SPACE, phone, store, PROTOCOL, (), path) == table
    assert table_of(SPACE, phone, store, PROTOCOL, (), tmp_path / "another.json") == table
    assert len(phone.calls) == calls


def test_a_target_out_of_reach_ends_before_timing_where_the_store_has_all_blocks(store, tmp_path):
    phone, path = Phone(TABLE_MS_PER_FLOP), tmp_path / "table.json"
    with pytest.raises(UnreachableTargetError, match="smallest reachable latency is"):
        table_of(SPACE, phone, store, PROTOCOL, [Aim(1e-9)], path)
    assert phone.calls and not path.exists()  # there was nothing to know it from
    phone.calls.clear()
    with pytest.raises(UnreachableTargetError, match="smallest reachable latency is"):
        table_of(SPACE, phone, store, TimingProtocol(), [Aim(1.0), Aim(1e-9)], path)
    assert phone.calls == []


def test_the_table_of_another_device_is_refused(store, tmp_path):
    phone, path = Phone(TABLE_MS_PER_FLOP), tmp_path / "table.json"
    table_of(SPACE, phone, store, PROTOCOL, (), path)
    phone.setup = replace(phone.setup, device="another phone")
    with pytest.raises(UsageError, match="another phone"):
        table_of(SPACE, phone, store, PROTOCOL, (), path)
