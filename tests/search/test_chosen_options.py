"""Shares of options: counted where a choice is on, early and late."""

import numpy as np
import pytest
from latkit.devices.errors import UsageError
from latkit.latency.spaces import load_space
from latkit.search.choices import Choice
from latkit.search.chosen_options import option_shares
from latkit.search.space import SearchSpace


@pytest.fixture
def space():
    choices = [
        Choice("layer", ("keep", "skip")),
        Choice("kernel", (3, 5, 7), when={"layer": ("keep",)}),
        Choice("fixed", (1,)),
    ]
    return SearchSpace("small", choices, ())


def test_shares_count_the_architectures_in_which_the_choice_is_on(space):
    evaluated = [(1, 0, 0), (0, 2, 0), (0, 1, 0)] + [(0, 0, 0)] * 3 + [(1, 0, 0)] * 3
    shares = option_shares(space, evaluated, (0, 1, 0)).set_index(["choice", "option"])
    first = shares["first_third"]
    assert first["layer"].to_dict() == pytest.approx({"keep": 2 / 3, "skip": 1 / 3})
    assert first["kernel"].to_dict() == {"3": 0, "5": 0.5, "7": 0.5}
    last = shares["last_third"]
    assert last["layer"].to_dict() == {"keep": 0, "skip": 1}
    assert last["kernel"].isna().all()
    assert shares.index[shares["chosen"]].tolist() == [("layer", "keep"), ("kernel", "5")]
    assert "fixed" not in shares.index


def test_a_choice_that_is_off_in_what_was_chosen_is_not_marked(space):
    shares = option_shares(space, [(1, 0, 0)], (1, 0, 0))
    assert shares[shares["chosen"]]["option"].tolist() == ["skip"]


def test_without_evaluations_no_share_is_known(space):
    shares = option_shares(space, [])
    assert shares[["first_third", "last_third"]].isna().all(axis=None)
    assert not shares["chosen"].any()


def test_architectures_of_another_space_are_refused(space):
    with pytest.raises(UsageError, match="3 choices"):
        option_shares(space, [(0, 1)])


def test_shares_of_a_choice_add_up_to_one():
    space = load_space("mobile", classes=10)
    rows = space.sample_choices(31, np.random.default_rng(0))
    evaluated = [space.canonical(tuple(map(int, row))) for row in rows]
    shares = option_shares(space, evaluated)
    sums = shares.groupby("choice")[["first_third", "last_third"]].sum(min_count=1)
    assert np.allclose(sums, 1)
