"""The front and its area: ties, points beyond the reference, values that are missing."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from latkit.devices.errors import UsageError
from latkit.search.pareto import front, hypervolume, hypervolume_so_far

# Few distinct values, so that ties are common; halves and quarters, so that sums are exact.
POINTS = st.lists(st.tuples(st.integers(1, 8), st.integers(0, 8).map(lambda n: n / 8)), max_size=30)
REFERENCE = (7.0, 0.25)


def columns(points):
    return [latency for latency, _ in points], [accuracy for _, accuracy in points]


def dominates(one, other):
    return one[0] <= other[0] and one[1] >= other[1] and one != other


@given(POINTS)
def test_front_is_what_nothing_dominates(points):
    expected = [not any(dominates(other, point) for other in points) for point in points]
    assert front(*columns(points)).tolist() == expected


@given(POINTS)
def test_hypervolume_is_the_count_of_dominated_cells(points):
    cells = [
        (latency, step / 8)
        for latency in range(1, int(REFERENCE[0]))
        for step in range(1 + int(REFERENCE[1] * 8), 9)
        if any(point[0] <= latency and point[1] >= step / 8 for point in points)
    ]
    assert hypervolume(*columns(points), REFERENCE) == len(cells) / 8


@given(POINTS)
def test_hypervolume_so_far_is_that_of_each_beginning(points):
    expected = [
        hypervolume(*columns(points[:count]), REFERENCE) for count in range(1, len(points) + 1)
    ]
    assert hypervolume_so_far(*columns(points), REFERENCE).tolist() == expected


def test_one_point_spans_a_rectangle_to_the_reference():
    assert hypervolume([2.0], [0.9], (10.0, 0.5)) == pytest.approx(8 * 0.4)


def test_points_on_or_beyond_the_reference_add_nothing():
    assert hypervolume([10.0, 12.0, 1.0], [0.9, 0.9, 0.5], (10.0, 0.5)) == 0.0


def test_equal_points_are_all_on_the_front_and_count_once():
    assert front([1, 1, 2], [0.5, 0.5, 0.5]).tolist() == [True, True, False]
    assert hypervolume([1, 1], [0.5, 0.5], (2, 0)) == 0.5


def test_nothing_dominates_no_area():
    assert front([], []).tolist() == []
    assert hypervolume([], [], (1.0, 0.0)) == 0.0
    assert hypervolume_so_far([], [], (1.0, 0.0)).tolist() == []


@pytest.mark.parametrize("function", [hypervolume, hypervolume_so_far])
def test_values_that_are_missing_are_refused_by_place(function):
    with pytest.raises(UsageError, match="latency of architecture 1 is nan"):
        function([1.0, np.nan], [0.5, 0.5], (2.0, 0.0))
    with pytest.raises(UsageError, match="accuracy of architecture 0 is inf"):
        function([1.0], [np.inf], (2.0, 0.0))
    with pytest.raises(UsageError, match="reference"):
        function([1.0], [0.5], (np.nan, 0.0))


def test_columns_of_different_lengths_are_refused():
    with pytest.raises(UsageError, match=r"\(2,\) and \(1,\)"):
        front([1.0, 2.0], [0.5])


def test_front_of_many_points_equals_the_slow_one():
    random = np.random.default_rng(0)
    latency, accuracy = random.uniform(1, 9, 700), random.uniform(0.1, 1, 700)
    slower = latency[:, None] >= latency
    worse = accuracy[:, None] <= accuracy
    dominated = (
        slower & worse & ((latency[:, None] > latency) | (accuracy[:, None] < accuracy))
    ).any(1)
    assert front(latency, accuracy).tolist() == (~dominated).tolist()
