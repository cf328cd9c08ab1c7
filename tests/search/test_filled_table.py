"""Tables with gaps: predicted where nothing like a block was measured, alike in every process."""

from dataclasses import replace

import pytest
from counting_phone import TABLE_MS_PER_FLOP, Phone, table_of
from latkit.devices.device import TimingProtocol
from latkit.devices.errors import UsageError
from latkit.latency.interpolation import family
from latkit.latency.profile import profile
from latkit.latency.store import Store
from latkit.search.filled_table import FilledTable, without_gaps
from latkit.search.spaces.mobile import MobileSpace, mobile_stage

SPACE = MobileSpace(
    stages=(mobile_stage((16, 32), 2, 1), mobile_stage((32, 48), 2, 2)), resolution=8
)
PROTOCOL = TimingProtocol(rounds=2, processes=1, runs=3)


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path / "store.sqlite") as opened:
        yield opened


def with_a_gap(table):
    """The table without one kind of block, and a network that has such a block."""
    network = SPACE.sample_networks(1, seed=0)[0]
    missing = family(network.blocks[1])
    entries = {block: item for block, item in table.entries.items() if family(block) != missing}
    return replace(table, entries=entries), network


def measure(phone, store, blocks):
    profile(phone, [(block, 0) for block in blocks], store, PROTOCOL)


@pytest.mark.parametrize(
    "space", [SPACE, MobileSpace(stages=(mobile_stage((16,), 1, 1),), resolution=8)]
)
def test_a_table_that_knows_the_space_stays_as_it_is(space, store, tmp_path):
    table = table_of(space, Phone(TABLE_MS_PER_FLOP).setup)
    assert without_gaps(table, space, store, tmp_path / "predictor.json") is table
    assert not (tmp_path / "predictor.json").exists()


def test_what_was_never_measured_is_predicted_and_again_alike_when_more_is(store, tmp_path):
    phone, path = Phone(TABLE_MS_PER_FLOP), tmp_path / "search" / "predictor.json"
    whole = table_of(SPACE, phone.setup)
    table, network = with_a_gap(whole)
    with pytest.raises(UsageError):
        table.network(network)
    measure(phone, store, table.entries)
    filled = without_gaps(table, SPACE, store, path)
    found = filled.network(network)
    assert found.source == "predicted" and "predicted" in found.reason
    assert found.latency_ms == pytest.approx(whole.network(network).latency_ms, rel=0.5)
    known = next(iter(table.entries))
    assert filled.estimate(known) == table.estimate(known)
    measure(phone, store, network.blocks)
    again = without_gaps(table, SPACE, store, path)
    assert isinstance(again, FilledTable)
    assert again.network(network) == found
    # What is timed on the way is measured from then on.
    entry = whole.entries[network.blocks[1]]
    later = replace(filled, entries={**filled.entries, network.blocks[1]: entry})
    assert later.estimate(network.blocks[1]).source == "measured"


def test_a_store_with_too_little_to_predict_from_is_refused(store, tmp_path):
    table, _ = with_a_gap(table_of(SPACE, Phone(TABLE_MS_PER_FLOP).setup))
    with pytest.raises(UsageError, match="predictor needs"):
        without_gaps(table, SPACE, store, tmp_path / "predictor.json")
