"""A whole search with a phone that counts operations: what it chooses from, and ends with."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from counting_phone import TABLE_MS_PER_FLOP, Phone, table_of
from latkit.devices.device import TimingProtocol
from latkit.devices.errors import DeviceError, UnreachableTargetError, UsageError
from latkit.latency.costs import parameters_cost
from latkit.latency.pricing import cost_model
from latkit.latency.store import Store
from latkit.search.aim import Aim
from latkit.search.data import load_data
from latkit.search.log import read_log
from latkit.search.pipeline import Search, SearchSettings, default_aim
from latkit.search.recalibration import SupernetEvaluator
from latkit.search.recipes import RECIPES
from latkit.search.recipes.strategies import STRATEGIES
from latkit.search.report import write_report
from latkit.search.result import SearchResult
from latkit.search.results_shown import require_met
from latkit.search.search_report import report_input
from latkit.search.spaces import Scale
from latkit.search.spaces.darts import DartsSpace
from latkit.search.spaces.mobile import MobileSpace, mobile_stage
from latkit.search.spaces.nasbench201 import NasBench201Space
from latkit.search.training import TrainingSettings
from latkit.search.trajectory import trajectories
from rich.progress import Progress

TINY = Scale(width=0.25, resolutions=(8,))
ONE_EPOCH = TrainingSettings(1, 16)
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


def search(name, data, folder, *, aims=None, recipe=None, phone=None, **settings):
    """A search of seconds on a phone for which the table is right, unless another is given."""
    space = SPACES[name]
    phone = phone or Phone(TABLE_MS_PER_FLOP)
    table = table_of(space, phone.setup)
    folder.mkdir(exist_ok=True)
    table.save(folder / "table.json")
    with Store(folder / "store.sqlite") as store, Progress(disable=True) as progress:
        return Search(
            recipe or short(), space, name, Scale(), table, folder / "table.json", phone, store,
            TimingProtocol(rounds=6, processes=3, runs=3), data,
            SearchSettings(
                aims or (default_aim(space, table),), threads=1, retraining=ONE_EPOCH, **settings
            ),
            folder / "search", progress,
        ).run()  # fmt: skip


def short(name="quick", strategy="evolution", **options):
    """A recipe with one epoch of small batches, choosing by few evaluations."""
    recipe = RECIPES[name]
    if strategy == "evolution":
        options = {"population": 3, "rounds": 2, **options}
    if strategy is not None:
        recipe = replace(recipe, strategy=partial(STRATEGIES[strategy], **options))
    return replace(recipe, settings=ONE_EPOCH)


def logged(result, folder, index=0):
    """All entries of the logs of a target, a list for each."""
    return [read_log(folder / "search" / log)[1] for log in result.targets[index].logs]


def reported(name, folder, monkeypatch):
    """The input of the search's report; these spaces are smaller than those that are registered."""
    monkeypatch.setattr("latkit.search.recipes.spaces.searched_space", lambda _: SPACES[name])
    return report_input(folder / "search")


def at(name, share):
    """The latency that lies at this share between the table's smallest and largest."""
    table = table_of(SPACES[name], Phone(TABLE_MS_PER_FLOP).setup)
    cost = cost_model(SPACES[name], table.block_cost_ms, table.calibration.constant_ms)
    smallest, largest = cost.minimum()[0], cost.maximum()[0]
    return smallest + share * (largest - smallest)


@pytest.mark.parametrize("name", ["nasbench201", "darts"])
@pytest.mark.parametrize("strategy", ["evolution", "reinforce"])
def test_without_widths_to_scale_the_winner_is_chosen_within_the_target_and_stays(
    name, strategy, data, tmp_path
):
    steps = {"steps": 6} if strategy == "reinforce" else {}
    result = search(name, data, tmp_path, recipe=short(strategy=strategy, **steps))
    assert result.limit_ms == result.target_ms
    assert [item.strategy for item in result.finalists] == [strategy, "random"]
    (logged_once,) = logged(result, tmp_path)
    for finalist in result.finalists:
        entries = [item for item in logged_once if item.strategy == finalist.strategy]
        assert finalist.architecture.choices == finalist.searched_choices
        assert finalist.architecture.expanded_channels is None
        assert finalist.corrections == 0
        if any(item.predicted_ms <= result.target_ms for item in entries):
            assert finalist.predicted_ms <= result.target_ms


def test_with_widths_to_scale_the_winner_is_chosen_above_the_target_and_lands(data, tmp_path):
    result = search("mobile", data, tmp_path, recipe=short(population=8))
    assert result.limit_ms > result.target_ms
    for finalist in result.finalists:
        assert finalist.architecture.expanded_channels is not None
        assert finalist.measured_ms == pytest.approx(result.target_ms, rel=0.03)
        assert finalist.meets_target == (abs(finalist.miss) <= 0.01)


@pytest.mark.parametrize("factor", [0.7, 1.0, 1.3])
def test_a_table_that_is_off_is_corrected_until_the_best_within_the_budget_is_found(
    factor, data, tmp_path, monkeypatch
):
    scored = []
    accuracy = SupernetEvaluator.calibrated
    monkeypatch.setattr(
        SupernetEvaluator, "calibrated", lambda *at: (scored.append(at[1]), accuracy(*at))[1]
    )
    target_ms = at("nasbench201", 0.5)
    result = search(
        "nasbench201", data, tmp_path, aims=(Aim(target_ms),), random_search=False,
        phone=Phone(factor * TABLE_MS_PER_FLOP), recipe=short(rounds=6),
    )  # fmt: skip
    target, winner = result.targets[0], result.finalists[0]
    assert target.factor == pytest.approx(factor, rel=0.05)
    assert winner.measured_ms <= target_ms and winner.meets_target
    assert winner.corrections < len(target.logs) == (1 if factor == 1 else 2)
    last = logged(result, tmp_path)[-1]
    assert max(item.predicted_ms for item in last) <= target_ms
    assert winner.supernet_accuracy >= max(item.accuracy for item in last) - 0.2
    # Scored once, whatever the number of searches; retraining begins from the winner's network.
    evaluated = {item.architecture for log in logged(result, tmp_path) for item in log}
    assert len(scored) == len(evaluated) + 1
    require_met(result)


def test_further_limits_are_kept(data, tmp_path):
    space = SPACES["nasbench201"]
    parameters = parameters_cost(space)
    rows = space.sample_choices(200, np.random.default_rng(0))
    most = float(np.quantile(parameters.latency_ms(rows), 0.3))
    other = str(tmp_path / "other.json")
    table_of(space, Phone(TABLE_MS_PER_FLOP).setup).save(tmp_path / "other.json")
    also = (f"parameters={most}", f"{other}={at('nasbench201', 0.4)}")
    result = search("nasbench201", data, tmp_path, aims=(Aim(at("nasbench201", 0.6)),), limits=also)
    assert len(result.finalists) == 2
    entries = [item for log in logged(result, tmp_path) for item in log]
    asked = np.array([item.architecture for item in entries])
    assert parameters.latency_ms(asked).max() <= most
    assert max(item.predicted_ms for item in entries) <= at("nasbench201", 0.4)


@pytest.mark.parametrize(
    ("recipe", "limit", "error", "told"),
    [
        (("quick", "evolution"), "parameters=1", UnreachableTargetError, "smallest reachable"),
        (("tunas", None), "parameters=1e9", UsageError, "chooses while it trains"),
        (("quick", "reinforce"), "flops=1e12", UsageError, "keeps no other limit"),
        (("quick", "evolution"), "weight=3", UsageError, "weight is neither a file"),
        (("quick", "evolution"), "flops=few", UsageError, "NAME=MOST is needed"),
    ],
)
def test_limits_that_can_not_be_kept_are_refused_before_training(
    recipe, limit, error, told, data, tmp_path
):
    with pytest.raises(error, match=told):
        search(
            "nasbench201", data, tmp_path, aims=(Aim(at("nasbench201", 0.6)),),
            recipe=short(*recipe), limits=(limit,),
        )  # fmt: skip
    assert [*(tmp_path / "search").rglob("*.checkpoint")] == []


def test_where_nothing_timed_is_fast_enough_the_closest_is_kept_and_said(data, tmp_path):
    target_ms = at("nasbench201", 0.1)
    result = search(
        "nasbench201", data, tmp_path, aims=(Aim(target_ms),), random_search=False,
        phone=Phone(30 * TABLE_MS_PER_FLOP),
    )  # fmt: skip
    (winner,) = result.finalists
    assert not winner.meets_target and winner.measured_ms > target_ms
    kept = SearchResult.load(tmp_path / "search" / "result.json")
    assert (kept.finalists, kept.targets) == (result.finalists, result.targets)
    with pytest.raises(UnreachableTargetError, match=f"closest took {winner.measured_ms:.4g}"):
        require_met(result)


def test_one_supernet_serves_several_budgets_and_each_winner_is_measured(
    data, tmp_path, monkeypatch
):
    aims = tuple(Aim(at("nasbench201", share)) for share in (0.3, 0.6, 0.9))
    result = search("nasbench201", data, tmp_path, aims=aims)
    assert len([*(tmp_path / "search").rglob("weights.checkpoint")]) == 1
    assert [item.target_ms for item in result.winners] == [aim.target_ms for aim in aims]
    for target, winner in zip(result.targets, result.winners, strict=True):
        assert winner.measured_ms <= target.target_ms
        assert [item.strategy for item in result.of(target)] == ["evolution", "random"]
        assert (tmp_path / "search" / winner.onnx_file).stat().st_size > 1000
        for log in target.logs:
            assert (tmp_path / "search" / log).exists()
    assert len({item.onnx_file for item in result.finalists}) == 6
    shown = reported("nasbench201", tmp_path, monkeypatch)
    assert shown.budgets["measured_ms"].tolist() == [item.measured_ms for item in result.finalists]
    assert [item.target_ms for item in shown.winners] == [aim.target_ms for aim in aims]
    first = [len(entries) for entries in logged(result, tmp_path)]
    assert len(shown.trajectory) == sum(first) and shown.trajectory["seconds"].notna().all()
    assert write_report(shown, tmp_path / "report").stat().st_size > 100_000
    assert (tmp_path / "report" / "budgets.png").exists()


def test_a_recipe_that_chooses_by_training_trains_for_each_budget(data, tmp_path, monkeypatch):
    aims = tuple(Aim(at("mobile", share)) for share in (0.3, 0.6))
    result = search(
        "mobile", data, tmp_path, aims=aims, recipe=short("tunas", None), random_search=False,
        phone=Phone(1.2 * TABLE_MS_PER_FLOP),
    )  # fmt: skip
    assert len([*(tmp_path / "search").rglob("weights.checkpoint")]) == 2
    for winner in result.winners:
        assert winner.strategy == "tunas"
        assert winner.measured_ms <= winner.target_ms
    assert reported("mobile", tmp_path, monkeypatch).trajectory.empty


@pytest.mark.parametrize(("share", "warned"), [(0.02, True), (1.0, False)])
def test_a_recipe_that_knows_no_target_ends_with_what_it_found(
    share, warned, data, tmp_path, capsys
):
    aims = (Aim(at("nasbench201", share)),)
    result = search(
        "nasbench201", data, tmp_path, aims=aims, recipe=short("darts", None), random_search=False
    )
    assert ("above the target" in " ".join(capsys.readouterr().out.split())) == warned
    (winner,) = result.finalists
    assert winner.strategy == "darts" and winner.corrections == 0
    assert winner.meets_target == (winner.measured_ms <= aims[0].target_ms)


def test_a_recipe_without_shared_weights_trains_what_it_evaluates(data, tmp_path):
    recipe = short("nasrl", "lstm_reinforce", steps=2, per_step=2, hidden=4)
    aims = (Aim(at("nasbench201", 0.8)),)
    result = search("nasbench201", data, tmp_path, aims=aims, recipe=recipe, random_search=False)
    (winner,) = result.finalists
    (entries,) = logged(result, tmp_path)
    kept = [*(tmp_path / "search" / "networks").glob("*.json")]
    assert len(kept) == len({item.architecture for item in entries}) == winner.evaluations
    assert winner.supernet_accuracy in [item.accuracy for item in entries]
    assert not (tmp_path / "search" / "weights.checkpoint").exists()


def test_every_evaluation_is_a_row_in_the_store(data, tmp_path):
    result = search("nasbench201", data, tmp_path, aims=(Aim(at("nasbench201", 0.6)),))
    (entries,) = logged(result, tmp_path)
    with Store(tmp_path / "store.sqlite") as store:
        rows = trajectories(store)
    assert list(rows["accuracy"]) == [item.accuracy for item in entries]
    measured = rows[rows["measured_ms"].notna()]
    for finalist in result.finalists:
        own = measured[measured["strategy"] == finalist.strategy]
        assert finalist.measured_ms in list(own["measured_ms"])


def test_one_budget_out_of_reach_is_refused_before_anything_is_trained_or_timed(data, tmp_path):
    phone = Phone(TABLE_MS_PER_FLOP)
    aims = (Aim(at("nasbench201", 0.5)), Aim(1e-9))
    with pytest.raises(UnreachableTargetError, match="smallest reachable latency is"):
        search("nasbench201", data, tmp_path, aims=aims, phone=phone)
    assert phone.calls == [] and not (tmp_path / "search").exists()


class Unplugged(Phone):
    """Fails in this call, once; and behaves then."""

    def __init__(self, fails_in, after_rounds):
        super().__init__(1.2 * TABLE_MS_PER_FLOP)
        self._fails_in, self._after_rounds = fails_in, after_rounds

    def measure(self, models, protocol):
        for item in super().measure(models, protocol):
            if len(self.calls) == self._fails_in and item.index == self._after_rounds:
                raise DeviceError("the cable is out")
            yield item


@pytest.mark.parametrize(("name", "kind"), [("nasbench201", "at most"), ("mobile", "exactly")])
def test_a_device_that_fails_in_the_middle_loses_nothing(name, kind, data, tmp_path):
    aims = (Aim(at(name, 0.5), kind),)
    phone = Phone(1.2 * TABLE_MS_PER_FLOP)
    whole = search(name, data, tmp_path / "whole", aims=aims, phone=phone)
    calls = len(phone.calls)
    assert calls >= 2
    for number in (1, calls):
        unplugged = Unplugged(number, 3)
        with pytest.raises(DeviceError, match="cable"):
            search(name, data, tmp_path / str(number), aims=aims, phone=unplugged)
        again = search(name, data, tmp_path / str(number), aims=aims, phone=unplugged)
        assert again.targets == whole.targets
        assert [item.architecture for item in again.finalists] == [
            item.architecture for item in whole.finalists
        ]
        for log in whole.targets[0].logs:
            written = [tmp_path / place / "search" / log for place in ("whole", str(number))]
            assert written[0].read_bytes() == written[1].read_bytes()
