"""Recipes from images and a cost to an architecture: each in its own space, made small."""

from dataclasses import replace
from functools import partial

import pytest
from latkit.devices.errors import UnreachableTargetError, UsageError
from latkit.latency.network import block_graph
from latkit.latency.ops import multiply_adds
from latkit.latency.pricing import cost_model
from latkit.search.data import load_data
from latkit.search.elasticity import is_scalable
from latkit.search.log import read_log
from latkit.search.recipes import RECIPES, run
from latkit.search.recipes.learning import controlled, single_path
from latkit.search.recipes.strategies import (
    coarse_to_fine,
    evolution,
    lstm_ppo,
    lstm_reinforce,
    random_search,
)
from latkit.search.spaces import Scale
from latkit.search.spaces.darts import DartsSpace
from latkit.search.spaces.enas import EnasMacroSpace
from latkit.search.spaces.enas_micro import EnasMicroSpace
from latkit.search.spaces.mobile import MobileSpace, mobile_stage
from latkit.search.spaces.nasbench201 import NasBench201Space
from latkit.search.spaces.nasnet import NasNetSpace
from latkit.search.spaces.nasrl import NasRLSpace
from latkit.search.training import Trainer, fingerprint, set_threads
from staged_cases import small_space

TINY = Scale(width=0.05, resolutions=(8,), unit_strides=4)
SHORT = {
    "quick": {"strategy": partial(evolution, population=3, rounds=2)},
    "spos": {"strategy": partial(evolution, population=3, rounds=2)},
    "bignas": {"strategy": partial(coarse_to_fine, budget=6)},
    "oneshot": {"strategy": partial(random_search, budget=4)},
    "enas": {"train": partial(controlled, controller_steps=2, per_step=2, derived=3)},
    "enas_macro": {"train": partial(controlled, controller_steps=1, per_step=2, skip_weight=0.8)},
    "nasrl": {"strategy": partial(lstm_reinforce, steps=2, per_step=2)},
    "nasnet": {"strategy": partial(lstm_ppo, steps=1, per_step=3)},
}
EVALUATIONS = {"quick": 6, "spos": 6, "bignas": 6, "oneshot": 4, "nasrl": 4, "nasnet": 3}
STAND_ALONE = {"nasrl", "nasnet"}
SPACES = {
    "quick": MobileSpace(
        stages=(mobile_stage((16, 32), 2, 1), mobile_stage((32, 48), 2, 2)), resolution=8
    ),
    "darts": DartsSpace(10, TINY, cells=3, channels=16),
    "oneshot": NasBench201Space(10, TINY, cells=1),
    "enas": EnasMicroSpace(10, TINY, cells=3, channels=8, nodes=2),
    "enas_macro": EnasMacroSpace(10, TINY, layers=3),
    "nasrl": NasRLSpace(10, TINY, layers=2),
    "nasnet": NasNetSpace(10, TINY, cells=3, channels=8, nodes=1),
}
SPACES["darts_second_order"] = SPACES["darts"]


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    set_threads(1)


@pytest.fixture(scope="module")
def data():
    found = load_data(image_size=8)
    few = found.train.only(found.train.labels.argsort()[::16])
    return replace(found, train=few, key="few")


def cost_ms(block):
    return multiply_adds(block_graph(block)) / 1e5


def short(name, **changes):
    """The recipe with one epoch of small batches, and a short search."""
    recipe = RECIPES[name]
    settings = replace(recipe.settings, epochs=1, batch_size=16, learning_rate=0.02)
    return replace(recipe, settings=settings, **SHORT.get(name, {}), **changes)


def middle(space):
    cost = cost_model(space, cost_ms)
    return (cost.minimum()[0] + cost.maximum()[0]) / 2


def space_of(name):
    return SPACES.get(name) or RECIPES[name].space(10, TINY)


@pytest.mark.parametrize("name", RECIPES)
def test_ends_with_an_architecture_of_the_space_its_cost_and_its_weights(name, data, tmp_path):
    space = space_of(name)
    target_ms = middle(space)
    steps = []
    found = run(
        short(name), data, cost_ms, target_ms, tmp_path, constant_ms=0.5, space=space,
        progress=lambda *at: steps.append(at),
    )  # fmt: skip
    space.validate(found.architecture)
    blocks = space.network(found.architecture).blocks
    assert found.latency_ms == pytest.approx(0.5 + sum(map(cost_ms, blocks)))
    assert 0 <= found.accuracy <= 1
    if name in STAND_ALONE:
        assert found.weights is None
    else:
        logits = found.weights.extract(found.architecture)(data.inputs(data.test.read(range(2))))
        assert logits.shape == (2, 10)
    assert found.evaluations == EVALUATIONS.get(name, 0)
    if name in EVALUATIONS:
        _, entries = read_log(tmp_path / "search.jsonl")
        assert len(entries) == found.evaluations
        accuracies = {entry.architecture: entry.accuracy for entry in entries}
        assert found.accuracy == accuracies[found.architecture.choices]
        if name not in STAND_ALONE:
            assert found.meets_target and found.accuracy == max(accuracies.values())
    assert {step[0].split()[-1] for step in steps} == {"training"} | (
        {"search"} if name in EVALUATIONS else set()
    )


@pytest.mark.parametrize("name", ["spos", "tunas", "bignas", "darts", "enas"])
def test_a_run_that_was_killed_anywhere_ends_as_one_that_was_not(name, data, tmp_path, monkeypatch):
    monkeypatch.setitem(Trainer.__init__.__kwdefaults__, "checkpoint_seconds", 0.0)
    space = small_space()
    recipe, target_ms = short(name), middle(space)
    whole = run(recipe, data, cost_ms, target_ms, tmp_path / "whole", space=space)
    start = partial(run, recipe, data, cost_ms, target_ms, tmp_path / "killed", space=space)
    seen = []

    def killed_in(what, done):
        def stop(*at):
            seen.append(at[:2])
            if at[0].endswith(what) and at[1] >= done:
                raise KeyboardInterrupt

        return stop

    places = [("training", 1), ("training", 2)] + [("search", 1)] * (name in EVALUATIONS)
    for what, done in places:
        with pytest.raises(KeyboardInterrupt):
            start(progress=killed_in(what, done))
    assert seen[:3] == [("training", 1), ("training", 1), ("training", 2)]
    again = start(progress=lambda *at: seen.append(at[:2]))
    assert seen.count(("training", 3)) <= 1 and seen.count(("training", 1)) == 2
    assert (again.architecture, again.accuracy) == (whole.architecture, whole.accuracy)
    assert fingerprint(again.weights) == fingerprint(whole.weights)


@pytest.mark.parametrize("name", ["nasrl", "nasnet"])
def test_a_search_that_trains_each_network_goes_on_where_it_was_killed(
    name, data, tmp_path, monkeypatch
):
    monkeypatch.setitem(Trainer.__init__.__kwdefaults__, "checkpoint_seconds", 0.0)
    space = SPACES[name]
    start = partial(run, short(name), data, cost_ms, middle(space), space=space)
    steps = []
    whole = start(folder=tmp_path / "whole", progress=lambda *at: steps.append(at))
    for place in (2, len(steps) // 2, len(steps)):
        folder = tmp_path / f"killed{place}"
        seen = []

        def stop(*at, seen=seen, place=place):
            seen.append(at)
            if len(seen) == place:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            start(folder=folder, progress=stop)
        again = start(folder=folder, progress=lambda *at, seen=seen: seen.append(at))
        assert (again.architecture, again.accuracy) == (whole.architecture, whole.accuracy)
        logs = [(at / "search.jsonl").read_bytes() for at in (folder, tmp_path / "whole")]
        assert logs[0] == logs[1]
        # At most the step in which it was killed is trained twice.
        trained = [[at for at in found if at[0] == "training"] for found in (seen, steps)]
        assert len(trained[0]) <= len(trained[1]) + 1


def test_networks_trained_with_other_settings_are_another_search(data, tmp_path):
    space = SPACES["nasrl"]
    run(short("nasrl"), data, cost_ms, middle(space), tmp_path, space=space)
    other = replace(short("nasrl").settings, learning_rate=0.01)
    with pytest.raises(UsageError, match=r"other settings \(weights\)"):
        run(short("nasrl"), data, cost_ms, middle(space), tmp_path, space=space, settings=other)


def test_widths_are_scaled_to_the_target_where_they_reach_it(data, tmp_path):
    space = small_space()
    cost = cost_model(space, cost_ms)
    largest = space.architecture(cost.maximum()[1])
    recipe = short(
        "tfnas", train=lambda task: replace(single_path(task), architecture=largest)
    )  # fmt: skip
    target_ms = 0.8 * cost.maximum()[0]
    landed = run(recipe, data, cost_ms, target_ms, tmp_path / "landed", space=space)
    assert landed.architecture.choices == largest.choices
    assert 0.95 * target_ms < landed.latency_ms <= target_ms and landed.meets_target
    missed = run(recipe, data, cost_ms, cost.minimum()[0], tmp_path / "missed", space=space)
    assert missed.architecture == largest and not missed.meets_target


def test_a_target_out_of_reach_is_refused_before_training(data, tmp_path):
    with pytest.raises(UnreachableTargetError):
        run(short("darts"), data, cost_ms, 1e-6, tmp_path, space=SPACES["darts"])
    assert not [*tmp_path.iterdir()]


def test_another_run_in_the_same_folder_is_refused(data, tmp_path):
    space = small_space()
    run(short("spos"), data, cost_ms, 3.0, tmp_path, space=space)
    with pytest.raises(UsageError, match=r"other settings \(cost\)"):
        run(short("spos"), data, lambda block: 1.01 * cost_ms(block), 3.0, tmp_path, space=space)
    longer = replace(short("spos"), strategy=partial(evolution, population=3, rounds=3))
    with pytest.raises(UsageError, match=r"other settings \(options\)"):
        run(longer, data, cost_ms, 3.0, tmp_path, space=space)
    with pytest.raises(UsageError, match="seed"):
        run(short("spos"), data, cost_ms, 3.0, tmp_path, space=space, seed=1)


def test_a_recipe_that_chooses_nothing_is_refused(data, tmp_path):
    with pytest.raises(UsageError, match="chooses nothing"):
        run(
            replace(short("bignas"), strategy=None),
            data, cost_ms, 3.0, tmp_path, space=small_space(),
        )  # fmt: skip


@pytest.mark.parametrize("name", RECIPES)
def test_spaces_at_full_scale_are_the_papers(name):
    space = RECIPES[name].space(7, Scale())
    assert is_scalable(space) == (name in ("quick", "tunas", "bignas", "tfnas"))
    pieces = {"spos": 22, "tunas": 24, "bignas": 28, "tfnas": 21}
    assert len(space.pieces) == pieces.get(name, len(space.pieces))
