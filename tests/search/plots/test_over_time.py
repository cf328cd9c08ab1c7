"""Curves of a search: what is drawn, with one run and with several."""

import numpy as np
import pandas as pd
import pytest
from latkit.search import plots

NAN = float("nan")


def trajectory(seeds=(0,), **columns):
    parts = [
        pd.DataFrame(
            {
                "strategy": strategy,
                "seed": seed,
                "index": range(4),
                "predicted_ms": [4.0, 3.0, 2.0, 1.0],
                "accuracy": np.array([0.25, 0.5, 0.75, 0.5]) - seed / 16,
                **columns,
            }
        )
        for strategy in ("reinforce", "random search")
        for seed in seeds
    ]
    return pd.concat(parts, ignore_index=True)


def drawn(axes):
    """Points of the lines that have some, less the marks at their ends."""
    lines = [line.get_xydata() for line in axes.get_lines()]
    return [points.tolist() for points in lines if len(points) > 1]


def test_a_line_is_the_best_so_far_of_each_strategy():
    (axes,) = plots.best_so_far(trajectory()).axes
    assert drawn(axes) == [[[1, 0.25], [2, 0.5], [3, 0.75], [4, 0.75]]] * 2
    assert axes.get_legend_handles_labels()[1] == ["reinforce", "random search"]


def test_several_runs_are_a_median_in_a_band():
    (axes,) = plots.best_so_far(trajectory(seeds=(0, 1, 2))).axes
    assert drawn(axes)[0] == [[1, 0.1875], [2, 0.4375], [3, 0.6875], [4, 0.6875]]
    low, high = (
        function(band.get_paths()[0].vertices[:, 1])
        for band in axes.collections[:1]
        for function in (np.min, np.max)
    )
    assert (low, high) == (0.125, 0.75)
    assert axes.get_legend_handles_labels()[1] == ["reinforce (3 runs)", "random search (3 runs)"]


def test_seconds_have_a_panel_where_all_are_known():
    left, right = plots.best_so_far(trajectory(seconds=200.0)).axes
    assert [point[0] for point in drawn(right)[0]] == pytest.approx([10 / 3, 20 / 3, 10, 40 / 3])
    assert right.get_xlabel() == "minutes of evaluation"
    assert left.get_ylim() == right.get_ylim()
    assert len(plots.best_so_far(trajectory(seconds=[1.0, NAN, 1.0, 1.0])).axes) == 1


def test_hypervolume_grows_to_that_of_all_evaluations():
    (axes,) = plots.hypervolume_so_far(trajectory(), (4.0, 0.25)).axes
    assert drawn(axes)[0] == [[1, 0], [2, 25], [3, 100], [4, 125]]


def test_each_figure_has_a_panel_with_the_strategies_that_tell_it():
    data = trajectory(policy_entropy=[3.0, 2.0, 1.5, 1.0], strength=[-1.0, -1.0, -2.0, -2.0])
    data.loc[data["strategy"] == "random search", ["policy_entropy", "strength"]] = NAN
    entropy, strength = plots.strategy_figures(data, ["policy_entropy", "strength"]).axes
    assert drawn(entropy) == [[[1, 3], [2, 2], [3, 1.5], [4, 1]]]
    assert drawn(strength) == [[[1, -1], [2, -1], [3, -2], [4, -2]]]
    assert entropy.get_ylabel() == "entropy of the policy (nats)"


def test_a_strategy_that_found_nothing_feasible_has_no_line():
    data = trajectory(feasible=True)
    data.loc[data["strategy"] == "random search", "feasible"] = False
    (axes,) = plots.best_so_far(data).axes
    assert axes.get_legend_handles_labels()[1] == ["reinforce"]
