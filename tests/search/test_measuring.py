"""Networks of a search, timed once: what is kept, and what is refused."""

from dataclasses import replace

import numpy as np
import pytest
from counting_phone import TABLE_MS_PER_FLOP, Phone, table_of
from latkit.devices.device import TimingProtocol
from latkit.devices.errors import DamagedFileError, UsageError
from latkit.latency.calibration import is_timed
from latkit.latency.store import Store
from latkit.search.measuring import PROCESSES, ROUNDS, Networks, thorough
from latkit.search.spaces import Scale
from latkit.search.spaces.nasbench201 import NasBench201Space

SPACE = NasBench201Space(10, Scale(width=0.25, resolutions=(8,)), cells=1)
ARCHITECTURES = [SPACE.sample(np.random.default_rng(seed)) for seed in range(3)]


@pytest.fixture
def networks(tmp_path):
    """Makes what times networks of a phone, as a search that begins or goes on would."""
    with Store(tmp_path / "store.sqlite") as store:

        def make(phone):
            return Networks(
                SPACE, table_of(SPACE, phone.setup), phone, store, TimingProtocol(rounds=2),
                tmp_path / "networks.json",
            )  # fmt: skip

        yield make


def test_a_network_is_timed_once_and_stays_what_it_was_then(networks):
    phone = Phone(TABLE_MS_PER_FLOP)
    first = networks(phone).measure(ARCHITECTURES[:2])
    phone.ms_per_flop *= 2
    again = networks(phone)
    assert again.measure(ARCHITECTURES[:2]) == first
    assert len(phone.calls) == 1
    both = again.measure(ARCHITECTURES)
    assert {**first, **both} == both
    assert len(phone.calls) == 2 and len(phone.calls[1]) == 1
    assert networks(phone).measure(ARCHITECTURES) == both


def test_what_decides_is_timed_in_many_processes():
    assert thorough(TimingProtocol(rounds=3, processes=1)) == TimingProtocol(ROUNDS, PROCESSES)
    longer = TimingProtocol(rounds=40, processes=20)
    assert thorough(longer) == longer


def test_networks_of_another_device_are_refused(networks):
    phone = Phone(TABLE_MS_PER_FLOP)
    networks(phone).measure(ARCHITECTURES[:1])
    phone.setup = replace(phone.setup, device="another phone")
    with pytest.raises(UsageError, match="another phone"):
        networks(phone)


def test_a_damaged_file_is_refused(networks, tmp_path):
    phone = Phone(TABLE_MS_PER_FLOP)
    networks(phone).measure(ARCHITECTURES[:1])
    path = tmp_path / "networks.json"
    path.write_bytes(path.read_bytes().replace(b"median_ms", b"median_s"))
    with pytest.raises(DamagedFileError):
        networks(phone)


def test_blocks_timed_with_networks_stay_what_they_were_then(networks):
    """The table holds them only once the networks that have them are asked for, now as before."""
    phone = Phone(TABLE_MS_PER_FLOP)
    first = networks(phone)
    has = [block for block in SPACE.network(ARCHITECTURES[0]).blocks if is_timed(block)]
    first.table = replace(
        first.table, entries={b: e for b, e in first.table.entries.items() if b not in has}
    )
    lacking = first.table
    first.measure(ARCHITECTURES[:1])
    found = {block: first.table.entries[block] for block in has}
    phone.canary_ns = 1500  # a faster clock, to which all that is timed together is brought
    again = networks(phone)
    again.table = lacking
    assert not any(block in again.table.entries for block in has)
    others = [SPACE.sample(np.random.default_rng(seed)) for seed in range(10, 40)]
    again.measure([*ARCHITECTURES[:1], *others])
    assert {block: again.table.entries[block] for block in has} == found
