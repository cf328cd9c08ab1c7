"""Networks for several budgets: the front, what is faint, and points without a measurement."""

import pandas as pd
import pytest
from latkit.search import plots

NAN = float("nan")


@pytest.fixture
def points():
    frame = pd.DataFrame(
        {
            "name": ["4 ms", "6 ms", "7 ms", "8 ms"],
            "target_ms": [4.0, 6.0, 7.0, 8.0],
            "predicted_ms": [3.5, 5.5, 6.5, 7.5],
            "measured_ms": [4.0, 6.0, 7.0, NAN],
            "accuracy": [0.5, 0.75, 0.625, 0.875],
        }
    )
    for name in ("", "measured_"):
        middle = frame[f"{name or 'predicted_'}ms"]
        frame[f"{name}low_ms"], frame[f"{name}high_ms"] = middle - 0.25, middle + 0.5
    return frame


def test_the_front_is_of_measurements_and_of_predictions_where_there_is_none(points):
    (axes,) = plots.pareto_points(points).axes
    (front,) = [line for line in axes.get_lines() if line.get_label() == "front"]
    assert front.get_xydata().tolist() == [[4.0, 0.5], [6.0, 0.75], [7.5, 0.875]]


def test_only_dominated_points_are_faint(points):
    (axes,) = plots.pareto_points(points).axes
    opacity = {
        tuple(bar.lines[0].get_xydata()[0]): bar.lines[0].get_alpha() for bar in axes.containers
    }
    assert opacity.pop((7.0, 0.625)) == opacity.pop((6.5, 0.625)) < 0.5
    assert len(opacity) == 5 and set(opacity.values()) == {1.0}
    assert "dominated" in axes.get_legend_handles_labels()[1]


def test_names_of_equal_points_do_not_cover_each_other(points):
    twice = pd.concat([points.iloc[:1], points.iloc[:1].assign(name="5 ms")])
    (axes,) = plots.pareto_points(twice).axes
    heights = {text.get_text(): text.get_position()[1] for text in axes.texts}
    assert heights["5 ms"] >= heights["4 ms"] + 11


def test_intervals_reach_where_they_should(points):
    (axes,) = plots.pareto_points(points.iloc[:1]).axes
    segments = [bar.lines[2][0].get_segments()[0][:, 0].tolist() for bar in axes.containers]
    assert segments == [[3.25, 4.0], [3.75, 4.5]]
    assert "dominated" not in axes.get_legend_handles_labels()[1]
