from dataclasses import replace
from hashlib import sha256
from itertools import count as counter

import numpy as np
import pytest
from counting_phone import TABLE_MS_PER_FLOP, Phone, table_of
from latkit.devices.device import Setup, TimingProtocol
from latkit.devices.errors import UnreachableTargetError
from latkit.latency.store import Store
from latkit.search.landing import CORRECTIONS, TOLERANCE, land, scale_by_table
from latkit.search.measuring import Networks
from latkit.search.spaces import mobile_space

SPACE = mobile_space()
PROTOCOL = TimingProtocol(rounds=6, processes=3, runs=3)


def roomy(latency, target_ms):
    """An architecture that is somewhat slower than the target."""
    random = np.random.default_rng(0)
    for _ in counter():
        architecture = SPACE.sample(random)
        ratio = latency.network(SPACE.network(architecture)).latency_ms / target_ms
        if 1.1 < ratio < 1.2:
            return architecture
    raise AssertionError


def networks(phone, store, folder, latency):
    return Networks(SPACE, latency, phone, store, PROTOCOL, folder / "networks.json")


@pytest.mark.parametrize("factor", [1.0, 0.94, 1.12])
def test_a_biased_table_is_corrected_until_the_measured_network_lands(tmp_path, factor):
    phone = Phone(factor * TABLE_MS_PER_FLOP)
    before = table_of(SPACE, phone.setup)
    target_ms = 2.0
    with Store(tmp_path / "store.sqlite") as store:
        timed = networks(phone, store, tmp_path, before)
        landing = land({"winner": roomy(before, target_ms)}, timed, target_ms)["winner"]
    assert landing.timed.median_ms == pytest.approx(target_ms, rel=TOLERANCE)
    assert landing.corrections == (0 if factor == 1.0 else pytest.approx(1, abs=CORRECTIONS - 1))
    network = SPACE.network(landing.architecture)
    assert all(block in timed.table.entries for block in network.blocks)
    assert set(before.entries) <= set(timed.table.entries)


def test_a_network_that_lands_at_once_is_measured_once_also_in_a_search_that_goes_on(tmp_path):
    phone = Phone(TABLE_MS_PER_FLOP)
    latency = table_of(SPACE, phone.setup)
    with Store(tmp_path / "store.sqlite") as store:
        first, again = (
            land({"winner": roomy(latency, 2.0)}, networks(phone, store, tmp_path, latency), 2.0)
            for _ in range(2)
        )
    assert first == again
    assert len(phone.calls) == 1


def test_a_known_factor_makes_the_first_scaling_land(tmp_path):
    phone = Phone(1.12 * TABLE_MS_PER_FLOP)
    latency = table_of(SPACE, phone.setup)
    with Store(tmp_path / "store.sqlite") as store:
        timed = networks(phone, store, tmp_path, latency)
        landing = land({"winner": roomy(latency, 2.0)}, timed, 2.0, {"winner": 1.12})["winner"]
    assert (landing.corrections, landing.correction) == (0, 1.12)
    assert landing.timed.median_ms == pytest.approx(2.0, rel=TOLERANCE)


class Jittery(Phone):
    """Takes up to 2 % longer for some networks, and shorter for others, whatever their size."""

    def measure(self, models, protocol):
        for item in super().measure(models, protocol):
            yield replace(item, visits={key: self._off(key, at) for key, at in item.visits.items()})

    def _off(self, key, visit):
        share = 1 + 0.02 * (2 * (int(sha256(repr(key).encode()).hexdigest(), 16) % 101) / 100 - 1)
        times = tuple(round(share * time) for time in visit.samples_ns)
        return replace(visit, samples_ns=times)


def test_where_the_table_is_off_differently_for_each_state_the_closest_one_is_kept(tmp_path):
    phone = Jittery(1.05 * TABLE_MS_PER_FLOP)
    latency = table_of(SPACE, phone.setup)
    with Store(tmp_path / "store.sqlite") as store:
        timed = networks(phone, store, tmp_path, latency)
        landing = land({"winner": roomy(latency, 2.0)}, timed, 2.0)["winner"]
    assert len(phone.calls) <= CORRECTIONS + 1
    assert landing.timed.median_ms == pytest.approx(2.0, rel=0.01)


def test_scaling_stays_within_the_target_by_the_table():
    latency = table_of(SPACE, Setup("phone", "onnxruntime", "1"))
    architecture = roomy(latency, 2.0)
    scaled = scale_by_table(architecture, SPACE, latency, 2.0)
    assert latency.network(SPACE.network(scaled)).latency_ms <= 2.0


def test_a_target_below_what_widths_can_reach_is_unreachable():
    latency = table_of(SPACE, Setup("phone", "onnxruntime", "1"))
    with pytest.raises(UnreachableTargetError):
        scale_by_table(roomy(latency, 2.0), SPACE, latency, 0.2)
