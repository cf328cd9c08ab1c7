import numpy as np
from latkit.search.spaces.mobile import mobile_space
from latkit.search.strategies.breeding import changed, crossed, redrawn

SPACE = mobile_space()
PARENTS = SPACE.sample_choices(2000, np.random.default_rng(0)).astype(np.int64)


def test_changed_differs_in_one_choice_and_reaches_every_other_option():
    children = changed(PARENTS, SPACE.option_counts, np.random.default_rng(1))
    differs = children != PARENTS
    assert (differs.sum(axis=1) == 1).all()
    assert (children < SPACE.option_counts).all() and (children >= 0).all()
    for position, count in enumerate(SPACE.option_counts):
        moved = differs[:, position]
        steps = (children[moved, position] - PARENTS[moved, position]) % count
        assert {*steps.tolist()} == {*range(1, count)}


def test_changed_leaves_choices_of_one_option_alone():
    parents = np.array([[0, 1], [0, 0]])
    assert changed(parents, (1, 2), np.random.default_rng(0)).tolist() == [[0, 0], [0, 1]]
    assert changed(parents[:1] * 0, (1, 1), np.random.default_rng(0)).tolist() == [[0, 0]]


def test_crossed_takes_each_choice_from_either_parent():
    mothers, fathers = PARENTS[:1000], PARENTS[1000:]
    children = crossed(mothers, fathers, np.random.default_rng(2))
    assert ((children == mothers) | (children == fathers)).all()
    from_mother = (children == mothers)[mothers != fathers]
    assert 0.45 < from_mother.mean() < 0.55


def test_redrawn_leaves_all_or_draws_all_at_the_ends_of_its_probability():
    random = np.random.default_rng(3)
    assert (redrawn(SPACE, PARENTS, 0.0, random) == PARENTS).all()
    assert (redrawn(SPACE, PARENTS, 1.0, random) != PARENTS).any(axis=1).mean() > 0.99
