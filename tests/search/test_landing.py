from itertools import count as counter

import numpy as np
import pytest
from counting_phone import TABLE_MS_PER_FLOP, Phone, table_of
from latkit.devices.device import Setup, TimingProtocol
from latkit.devices.errors import UnreachableTargetError
from latkit.latency.store import Store
from latkit.search.landing import CORRECTIONS, TOLERANCE, land, scale_by_table
from latkit.search.spaces import Scale, mobile_space
from latkit.search.spaces.nasbench201 import NasBench201Space

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


@pytest.mark.parametrize("factor", [1.0, 0.94, 1.12])
def test_a_biased_table_is_corrected_until_the_measured_network_lands(tmp_path, factor):
    phone = Phone(factor * TABLE_MS_PER_FLOP)
    before = table_of(SPACE, phone.setup)
    target_ms = 2.0
    with Store(tmp_path / "store.sqlite") as store:
        landings, after = land(
            {"winner": roomy(before, target_ms)},
            SPACE, before, phone, store, PROTOCOL, target_ms,
        )  # fmt: skip
    landing = landings["winner"]
    assert landing.measured_ms == pytest.approx(target_ms, rel=TOLERANCE)
    assert landing.corrections == (0 if factor == 1.0 else pytest.approx(1, abs=CORRECTIONS - 1))
    network = SPACE.network(landing.architecture)
    assert all(block in after.entries for block in network.blocks)
    assert set(before.entries) <= set(after.entries)


def test_a_network_that_lands_at_once_is_measured_once(tmp_path):
    phone = Phone(TABLE_MS_PER_FLOP)
    with Store(tmp_path / "store.sqlite") as store:
        land(
            {"winner": roomy(table_of(SPACE, phone.setup), 2.0)},
            SPACE, table_of(SPACE, phone.setup), phone, store, PROTOCOL, 2.0,
        )  # fmt: skip
    assert len(phone.calls) == 1


@pytest.mark.parametrize("factor", [0.9, 1.2])
def test_an_architecture_without_widths_to_scale_is_measured_as_it_is(tmp_path, factor):
    """Whether it meets the target or not: nothing about it can change."""
    space = NasBench201Space(10, Scale(resolutions=(8,)), cells=1)
    architecture = space.sample(np.random.default_rng(0))
    phone = Phone(TABLE_MS_PER_FLOP)
    latency = table_of(space, phone.setup)
    predicted_ms = latency.network(space.network(architecture)).latency_ms
    target_ms = factor * predicted_ms
    with Store(tmp_path / "store.sqlite") as store:
        landings, _ = land(
            {"winner": architecture}, space, latency, phone, store, PROTOCOL, target_ms
        )
    landing = landings["winner"]
    assert (landing.architecture, landing.corrections) == (architecture, 0)
    assert landing.measured_ms == pytest.approx(predicted_ms, rel=0.05)
    assert len(phone.calls) == 1


def test_scaling_stays_within_the_target_by_the_table():
    latency = table_of(SPACE, Setup("phone", "onnxruntime", "1"))
    architecture = roomy(latency, 2.0)
    scaled = scale_by_table(architecture, SPACE, latency, 2.0)
    assert latency.network(SPACE.network(scaled)).latency_ms <= 2.0


def test_a_target_below_what_widths_can_reach_is_unreachable():
    latency = table_of(SPACE, Setup("phone", "onnxruntime", "1"))
    with pytest.raises(UnreachableTargetError):
        scale_by_table(roomy(latency, 2.0), SPACE, latency, 0.2)
