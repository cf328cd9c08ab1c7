from itertools import count as counter

import numpy as np
import onnx
import pytest
from latkit.devices.device import Round, Setup, TimingProtocol, Visit
from latkit.devices.errors import UnreachableTargetError
from latkit.latency.calibration import Calibration, is_timed
from latkit.latency.counts import block_counts, count
from latkit.latency.store import Store
from latkit.latency.table import Entry, LatencyTable
from latkit.search.landing import CORRECTIONS, TOLERANCE, land, scale_by_table
from latkit.search.spaces.mobile import mobile_space

SPACE = mobile_space()
PROTOCOL = TimingProtocol(rounds=6, processes=3, runs=3)
TABLE_MS_PER_FLOP = 1e-7


class Phone:
    """Stands where a phone would: every model takes `ms_per_flop`, to the nanosecond."""

    def __init__(self, ms_per_flop):
        self.setup = Setup("phone", "onnxruntime", "1")
        self.ms_per_flop = ms_per_flop
        self.calls = []

    def info(self):
        return {}

    def measure(self, models, protocol):
        self.calls.append([model.id for model in models])
        times = {
            model.key: round(count(onnx.load(model.path)).flops * self.ms_per_flop * 1e6)
            for model in models
        }
        for index in range(protocol.rounds):
            yield Round(
                run_id=str(len(self.calls)),
                process=index * protocol.processes // protocol.rounds,
                index=index,
                attempt=0,
                accepted=True,
                started_at=0.0,
                duration_s=0.1,
                canary_ns=(1000,) * 5,
                canary_drift=0.0,
                visits={key: Visit((time,) * 3, (False,) * 3) for key, time in times.items()},
            )


def table(setup):
    entries = {}
    for block in SPACE.blocks():
        if is_timed(block):
            median_ms = block_counts(block).flops * TABLE_MS_PER_FLOP
            entries[block] = Entry(median_ms, median_ms, median_ms)
    return LatencyTable(setup, 0, 16, entries, Calibration(interval_share=0.1))


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
    before = table(phone.setup)
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
            {"winner": roomy(table(phone.setup), 2.0)},
            SPACE, table(phone.setup), phone, store, PROTOCOL, 2.0,
        )  # fmt: skip
    assert len(phone.calls) == 1


def test_scaling_stays_within_the_target_by_the_table():
    latency = table(Setup("phone", "onnxruntime", "1"))
    architecture = roomy(latency, 2.0)
    scaled = scale_by_table(architecture, SPACE, latency, 2.0)
    assert latency.network(SPACE.network(scaled)).latency_ms <= 2.0


def test_a_target_below_what_widths_can_reach_is_unreachable():
    latency = table(Setup("phone", "onnxruntime", "1"))
    with pytest.raises(UnreachableTargetError):
        scale_by_table(roomy(latency, 2.0), SPACE, latency, 0.2)
