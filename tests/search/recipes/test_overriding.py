"""Constants of recipes by name: read by their types, refused with what would have been right."""

from functools import partial

import pytest
from latkit.devices.errors import UsageError
from latkit.search.recipes import RECIPES, override
from latkit.search.recipes.learning import bilevel
from latkit.search.recipes.strategies import STRATEGIES, with_strategy
from latkit.search.settings import RETRAINING_SETTINGS
from latkit.search.spaces import SMALL_IMAGES, Scale

REWARDED = {"reinforce", "lstm_reinforce", "lstm_ppo"}


def overridden(recipe, *assignments):
    return override(RECIPES[recipe], RETRAINING_SETTINGS, assignments)


def test_nothing_given_changes_nothing():
    found = overridden("bignas")
    assert found.recipe == RECIPES["bignas"]
    assert (found.retraining, found.scale) == (RETRAINING_SETTINGS, Scale())


def test_values_are_read_by_the_type_of_what_they_override():
    found = overridden(
        "darts_second_order",
        "train.betas=0.4,0.9", "train.second_order=false", "settings.epochs=3",
        "settings.learning_rate=5e-2", "settings.schedule=linear", "settings.flip=true",
        "retraining.epochs=2",
    )  # fmt: skip
    assert isinstance(found.recipe.train, partial) and found.recipe.train.func is bilevel
    assert found.recipe.train.keywords == {"betas": (0.4, 0.9), "second_order": False}
    settings = found.recipe.settings
    assert (settings.epochs, settings.learning_rate, settings.schedule) == (3, 0.05, "linear")
    assert settings.flip is True and settings.batch_size == RECIPES["darts"].settings.batch_size
    assert found.retraining.epochs == 2 and found.retraining.schedule == "cosine"


def test_a_strategys_options_are_its_classs_whoever_the_recipe_is_of():
    found = override(
        with_strategy(RECIPES["tunas"], "evolution"),
        RETRAINING_SETTINGS,
        ["strategy.population=8", "strategy.mutations=none"],
    )
    assert found.recipe.strategy.keywords == {"population": 8, "mutations": None}
    assert overridden("oneshot", "strategy.budget=7").recipe.strategy.keywords == {"budget": 7}
    found = override(
        with_strategy(RECIPES["quick"], "reinforce"),
        RETRAINING_SETTINGS,
        ["strategy.steps=9", "strategy.reward=soft"],
    )
    assert found.recipe.strategy.keywords == {"steps": 9, "reward": "soft"}


@pytest.mark.parametrize("name", RECIPES)
def test_what_a_recipe_sets_of_its_parts_can_be_set(name):
    recipe = RECIPES[name]
    for part, function in (("train", recipe.train), ("strategy", recipe.strategy)):
        for option, value in getattr(function, "keywords", {}).items():
            text = "none" if value is None else str(value)
            found = override(recipe, RETRAINING_SETTINGS, [f"{part}.{option}={text}"]).recipe
            assert getattr(found, part).keywords[option] == value


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_how_long_each_strategy_searches_can_be_set(strategy):
    chosen = with_strategy(RECIPES["quick"], strategy)
    name = {
        "evolution": "rounds",
        "reinforce": "steps",
        "lstm_reinforce": "steps",
        "lstm_ppo": "steps",
    }
    option = name.get(strategy, "budget")
    found = override(chosen, RETRAINING_SETTINGS, [f"strategy.{option}=7"])
    assert found.recipe.strategy.keywords == {option: 7}


def test_a_scale_is_set_field_by_field():
    scale = overridden(
        "tunas", "scale.width=0.25", "scale.resolutions=32", "scale.unit_strides=2"
    ).scale
    assert scale == SMALL_IMAGES


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("recipe", RECIPES)
def test_seeds_and_what_the_task_gives_are_no_options(recipe, strategy):
    chosen = with_strategy(RECIPES[recipe], strategy)
    for name in (
        "settings.seed",
        "train.seed",
        "strategy.seed",
        "train.constant",
        "train.target_ms",
    ):
        with pytest.raises(UsageError, match=f"has no {name}"):
            override(chosen, RETRAINING_SETTINGS, [f"{name}=1"])


@pytest.mark.parametrize(
    ("assignment", "told"),
    [
        ("settings.epoch=3", "settings.epochs"),
        ("epochs=3", "settings.epochs"),
        ("strategy.budge=3", "strategy.budget"),
        ("nothing=3", r"retraining\.\*, scale\.\*"),
        ("settings.epochs=few", "integer"),
        ("settings.epochs=1.5", "integer"),
        ("settings.optimiser=adam", "'sgd' or 'rmsprop'"),
        ("settings.epochs", "NAME=VALUE"),
        ("settings.epochs=0", "at least 1 epoch"),
    ],
)
def test_what_can_not_be_set_is_refused_with_what_could(assignment, told):
    with pytest.raises(UsageError, match=told):
        overridden("quick", assignment)
