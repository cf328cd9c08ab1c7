import numpy as np
from latkit.search.choices import Choice
from latkit.search.space import SearchSpace
from latkit.search.spaces.tfnas import tfnas
from latkit.search.strategies.breeding import changed, crossed, redrawn


def plain(*counts):
    """A space whose choices are all on."""
    choices = [Choice(f"c{index}", tuple(range(count))) for index, count in enumerate(counts)]
    return SearchSpace("plain", choices, [])


SPACE = plain(2, 3, 4, 7)
PARENTS = SPACE.sample_choices(2000, np.random.default_rng(0)).astype(np.int64)

DEEP = tfnas()
"""Depths switch its layers on and off."""

SHALLOW = np.array(
    [DEEP.canonical(row) for row in DEEP.sample_choices(3000, np.random.default_rng(5)).tolist()]
)
ON = np.array([DEEP.active(row) for row in SHALLOW.tolist()])


def test_changed_differs_in_one_choice_and_reaches_every_other_option():
    children = changed(SPACE, PARENTS, np.random.default_rng(1))
    differs = children != PARENTS
    assert (differs.sum(axis=1) == 1).all()
    assert (children < SPACE.option_counts).all() and (children >= 0).all()
    for position, count in enumerate(SPACE.option_counts):
        moved = differs[:, position]
        steps = (children[moved, position] - PARENTS[moved, position]) % count
        assert {*steps.tolist()} == {*range(1, count)}


def test_changed_leaves_choices_of_one_option_alone():
    parents = np.array([[0, 1], [0, 0]])
    assert changed(plain(1, 2), parents, np.random.default_rng(0)).tolist() == [[0, 0], [0, 1]]
    alone = changed(plain(1, 1), parents[:1] * 0, np.random.default_rng(0))
    assert alone.tolist() == [[0, 0]]


def test_crossed_takes_each_choice_from_either_parent():
    mothers, fathers = PARENTS[:1000], PARENTS[1000:]
    children = crossed(SPACE, mothers, fathers, np.random.default_rng(2))
    assert ((children == mothers) | (children == fathers)).all()
    from_mother = (children == mothers)[mothers != fathers]
    assert 0.45 < from_mother.mean() < 0.55


def test_redrawn_leaves_all_or_draws_all_at_the_ends_of_its_probability():
    random = np.random.default_rng(3)
    assert (redrawn(SPACE, PARENTS, 0.0, random) == PARENTS).all()
    moved = redrawn(SPACE, PARENTS, 1.0, random) != PARENTS
    assert 0.95 < moved.any(axis=1).mean() < 1


def test_choices_that_are_off_in_the_parent_are_drawn_anew():
    """Their canonical form is the first option, which would be favoured where they come on."""
    random = np.random.default_rng(4)
    halves = SHALLOW[:1500], SHALLOW[1500:]
    for children, off in (
        (redrawn(DEEP, SHALLOW, 0.0, random), ~ON),
        (crossed(DEEP, *halves, random), ~ON[:1500] & ~ON[1500:]),
    ):
        for position, count in enumerate(DEEP.option_counts):
            drawn = children[off[:, position], position]
            shares = np.bincount(drawn, minlength=count) / max(1, len(drawn))
            assert np.allclose(shares, 1 / count, atol=3 / np.sqrt(max(1, len(drawn))))
    assert (~ON).sum() > 1000


def test_crossed_takes_a_choice_from_the_parent_that_has_it_on():
    mothers, fathers = SHALLOW[:1500], SHALLOW[1500:]
    children = crossed(DEEP, mothers, fathers, np.random.default_rng(6))
    for on, off, parent in ((ON[:1500], ON[1500:], mothers), (ON[1500:], ON[:1500], fathers)):
        only = on & ~off
        assert only.sum() > 100
        assert (children[only] == parent[only]).all()
