"""Heat maps of options: panels, labels, what is marked, in every space of the kit."""

from importlib.metadata import entry_points

import numpy as np
import pandas as pd
import pytest
from latkit.latency.spaces import load_space
from latkit.search import plots
from latkit.search.chosen_options import option_shares


def shares(*choices):
    rows = [
        (name, str(option), 1 / len(options), float(index == 0), index == 0)
        for name, options in choices
        for index, option in enumerate(options)
    ]
    return pd.DataFrame(rows, columns=["choice", "option", "first_third", "last_third", "chosen"])


def panels(figure):
    """Axes of the heat maps, less the colour bar: pairs of early and late."""
    axes = figure.axes[:-1]
    return list(zip(axes[::2], axes[1::2], strict=True))


def cells(axes):
    mesh = axes.collections[1]
    values = np.ma.filled(mesh.get_array().astype(float), np.nan)
    return np.atleast_2d(values).tolist()


def labels(ticks):
    return [label.get_text() for label in ticks]


def test_choices_of_one_sort_share_a_panel_and_its_rows():
    figure = plots.chosen_options(
        shares(
            ("a.layer1", ("conv", "pool")),
            ("a.kernel", (3, 5)),
            ("a.layer2", ("conv", "pool", "skip")),
        ),
        "evolution",
    )
    (layers, late), (kernels, _) = panels(figure)
    assert labels(layers.get_xticklabels()) == ["a.layer1", "a.layer2"]
    assert labels(layers.get_yticklabels()) == ["conv", "pool", "skip"]
    assert labels(kernels.get_xticklabels()) == ["a"]
    assert np.allclose(
        cells(layers), [[1 / 2, 1 / 3], [1 / 2, 1 / 3], [np.nan, 1 / 3]], equal_nan=True
    )
    assert np.allclose(cells(late), [[1, 1], [0, 0], [np.nan, 0]], equal_nan=True)


def test_options_that_differ_stand_in_their_cells():
    figure = plots.chosen_options(shares(("a.width", (8, 16)), ("b.width", (24, 32))), "evolution")
    ((early, _),) = panels(figure)
    assert [text.get_text() for text in early.texts] == ["8", "16", "24", "32"]
    assert labels(early.get_yticklabels()) == []


def test_what_was_chosen_is_marked_late_alone():
    figure = plots.chosen_options(shares(("layer1", ("conv", "pool"))), "evolution")
    ((early, late),) = panels(figure)
    assert len(early.collections) == 2
    assert late.collections[2].get_offsets().tolist() == [[0.5, 0.5]]


def test_many_choices_are_named_in_part():
    figure = plots.chosen_options(
        shares(*((f"layer{place}", ("no", "yes")) for place in range(105))), "evolution"
    )
    ((early, _),) = panels(figure)
    assert labels(early.get_xticklabels()) == [f"layer{place}" for place in range(0, 105, 4)]


SPACES = sorted({item.name for item in entry_points(group="latkit.spaces")})


@pytest.mark.parametrize("name", SPACES)
def test_every_space_can_be_drawn(name):
    space = load_space(name, classes=10)
    rows = space.sample_choices(6, np.random.default_rng(0))
    evaluated = [space.canonical(tuple(map(int, row))) for row in rows]
    found = option_shares(space, evaluated, evaluated[-1])
    figure = plots.chosen_options(found, "evolution")
    assert sum(len(cells(early)) for early, _ in panels(figure)) > 1
    marks = [axes.collections[2] for _, axes in panels(figure) if len(axes.collections) > 2]
    assert sum(len(mark.get_offsets()) for mark in marks) == found["chosen"].sum()
