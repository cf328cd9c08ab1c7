"""A whole search with a phone that counts operations: what it chooses from, and lands on."""

from dataclasses import replace

import pytest
from counting_phone import TABLE_MS_PER_FLOP, Phone, table_of
from latkit.devices.device import TimingProtocol
from latkit.latency.store import Store
from latkit.search.data import load_data
from latkit.search.log import read_log
from latkit.search.pipeline import Search, SearchSettings, default_target_ms
from latkit.search.spaces import Scale
from latkit.search.spaces.darts import DartsSpace
from latkit.search.spaces.mobile import MobileSpace, mobile_stage
from latkit.search.spaces.nasbench201 import NasBench201Space
from latkit.search.training import TrainingSettings
from rich.progress import Progress

TINY = Scale(width=0.25, resolutions=(8,))
SPACES = {
    "nasbench201": NasBench201Space(10, TINY, cells=1),
    "darts": DartsSpace(10, TINY, cells=3),
    "mobile": MobileSpace(
        stages=(mobile_stage((16, 32), 2, 1), mobile_stage((32, 48), 2, 2)), resolution=8
    ),
}


@pytest.fixture(scope="module")
def data():
    found = load_data(image_size=8)
    few = [part.only(part.labels.argsort()[::8]) for part in (found.train, found.validation)]
    return replace(found, train=few[0], validation=few[1], key="few")


def search(name, data, folder, strategy="evolution"):
    space = SPACES[name]
    phone = Phone(TABLE_MS_PER_FLOP)
    table = table_of(space, phone.setup)
    table.save(folder / "table.json")
    training = TrainingSettings(1, 16)
    settings = SearchSettings(
        default_target_ms(space, table), strategy, 3, 2, 0, 1, training, training
    )
    with Store(folder / "store.sqlite") as store, Progress(disable=True) as progress:
        return Search(
            space, name, table, folder / "table.json", phone, store,
            TimingProtocol(rounds=6, processes=3, runs=3), data, settings, folder / "search",
            progress,
        ).run()  # fmt: skip


@pytest.mark.parametrize("name", ["nasbench201", "darts"])
@pytest.mark.parametrize("strategy", ["evolution", "reinforce"])
def test_without_widths_to_scale_the_winner_is_chosen_within_the_target_and_stays(
    name, strategy, data, tmp_path
):
    result = search(name, data, tmp_path, strategy)
    _, entries = read_log(tmp_path / "search" / "search.jsonl")
    assert result.limit_ms == result.target_ms
    for finalist in result.finalists:
        own = [item for item in entries if item.strategy == finalist.strategy]
        assert finalist.architecture.choices == finalist.searched_choices
        assert finalist.architecture.expanded_channels is None
        assert finalist.corrections == 0
        if any(item.predicted_ms <= result.target_ms for item in own):
            assert finalist.predicted_ms <= result.target_ms


def test_with_widths_to_scale_the_winner_is_chosen_above_the_target_and_lands(data, tmp_path):
    result = search("mobile", data, tmp_path)
    assert result.limit_ms > result.target_ms
    for finalist in result.finalists:
        assert finalist.architecture.expanded_channels is not None
        assert finalist.measured_ms == pytest.approx(result.target_ms, rel=0.05)
