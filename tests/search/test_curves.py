"""Curves over a search: what a run is, what counts, and bands over runs of unequal length."""

import numpy as np
import pandas as pd
from latkit.search.curves import (
    band,
    best_so_far,
    changing_figures,
    figures_of,
    hypervolume_so_far,
    runs,
    worst_seen,
)

NAN = float("nan")


def trajectory(**columns):
    count = len(columns["accuracy"])
    values = {"strategy": "evolution", "index": range(count), "predicted_ms": 1.0, **columns}
    return pd.DataFrame(values)


def test_best_so_far_never_falls_and_starts_at_the_first_feasible():
    frame = trajectory(accuracy=[0.99, 0.5, 0.7, 0.6], feasible=[False, True, True, True])
    (run,) = runs(frame)
    best = best_so_far(run)
    assert np.isnan(best[0])
    assert best[1:].tolist() == [0.5, 0.7, 0.7]
    assert run.evaluations.tolist() == [1, 2, 3, 4]


def test_runs_are_told_apart_by_what_differs_and_are_in_order():
    frame = trajectory(
        accuracy=[0.1, 0.2, 0.3, 0.4], index=[1, 0, 0, 1], seed=[3, 3, 4, 4], search="one"
    )
    first, second = runs(frame)
    assert [first.name, second.name] == ["evolution, seed 3", "evolution, seed 4"]
    assert first.rows["accuracy"].tolist() == [0.2, 0.1]
    other = frame.assign(strategy=["a", "a", "b", "b"])
    assert [run.name for run in runs(other)] == ["a", "b"]


def test_rows_without_an_index_are_no_evaluations():
    frame = trajectory(accuracy=[0.1, NAN], index=pd.array([0, None], dtype="Int64"))
    (run,) = runs(frame)
    assert run.evaluations.tolist() == [1]
    assert runs(frame.iloc[:0]) == []


def test_seconds_add_up_as_far_as_they_are_known_unless_many_are_not():
    (run,) = runs(trajectory(accuracy=[0.1, 0.2], seconds=[1.5, 2.0]))
    assert run.seconds.tolist() == [1.5, 3.5]
    (run,) = runs(trajectory(accuracy=[0.1] * 10, seconds=[1.0] * 8 + [NAN, 1.0]))
    assert run.seconds.tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 8, 9]
    (run,) = runs(trajectory(accuracy=[0.1] * 10, seconds=[1.0] * 7 + [NAN, NAN, 1.0]))
    assert np.isnan(run.seconds).all()


def test_hypervolume_is_kept_over_evaluations_without_a_value():
    frame = trajectory(accuracy=[NAN, 0.5, NAN, 1.0], predicted_ms=[1.0, 1.0, 2.0, 2.0])
    (run,) = runs(frame)
    assert hypervolume_so_far(run, (3.0, 0.0)).tolist() == [0, 1, 1, 1.5]
    assert worst_seen(frame) == (2.0, 0.5)


def test_figures_are_the_columns_that_are_no_evaluations():
    frame = trajectory(
        accuracy=[0.1, 0.2], policy_entropy=[2.0, 1.0], strength=-0.07, seed=0, architecture="0.1"
    )
    assert figures_of(frame) == ["policy_entropy", "strength"]
    assert changing_figures(frame) == ["policy_entropy"]


def test_a_figure_that_differs_between_runs_alone_does_not_change():
    frame = trajectory(accuracy=[0.1, 0.2], index=0, seed=[0, 1], strength=[-0.05, -0.07])
    assert changing_figures(frame) == []


def test_band_holds_values_and_begins_where_every_curve_has_one():
    found = band(
        [
            (np.array([1.0, 2.0, 3.0]), np.array([NAN, 0.2, 0.4])),
            (np.array([1.0, 2.5]), np.array([0.1, 0.9])),
        ]
    )
    assert found.x.tolist() == [2.0, 2.5, 3.0]
    assert found.low.tolist() == [0.1, 0.2, 0.4]
    assert np.allclose(found.middle, [0.15, 0.55, 0.65])
    assert found.high.tolist() == [0.2, 0.9, 0.9]
