"""Views of stored tensors, beside what numpy makes of the same reshapes and transpositions."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from latkit.devices.tflite.layout import move, view_of

SHAPES = st.lists(st.sampled_from([1, 2, 3, 4, 6]), min_size=1, max_size=4).map(tuple)


def value_of(view, stored):
    """The ONNX value that a view describes, read from the tensor."""
    grid = stored.reshape(view.atoms)
    return grid.transpose(view.sequence(range(len(view.axes)))).reshape(view.shape)


def factors(data, size):
    """A shape of this many elements."""
    shape = []
    while size > 1 and data.draw(st.booleans()):
        divisor = data.draw(st.sampled_from([n for n in range(1, size + 1) if size % n == 0]))
        shape.append(divisor)
        size //= divisor
    return (*shape, size)


def viewed(data):
    """A stored array, a view of it, and the value that the view stands for."""
    shape = data.draw(SHAPES)
    order = tuple(data.draw(st.permutations(range(len(shape)))))
    value = np.arange(math.prod(shape)).reshape(shape)
    stored, view = value.transpose(order), view_of(0, shape, order)
    for _ in range(data.draw(st.integers(0, 4))):
        if data.draw(st.booleans()):
            axes = data.draw(st.permutations(range(value.ndim)))
            value, view = value.transpose(axes), view.transposed(axes)
            continue
        shape = factors(data, value.size)
        reshaped = view.reshaped(shape)
        if reshaped is None:
            stored, view = value, view_of(0, value.shape, tuple(range(value.ndim)))
            reshaped = view.reshaped(shape)
        value, view = value.reshape(shape), reshaped
    return stored, view, value


@settings(deadline=None, max_examples=400)
@given(st.data())
def test_view_stands_for_the_reshaped_and_transposed_value(data):
    stored, view, value = viewed(data)
    assert view.shape == value.shape
    np.testing.assert_array_equal(value_of(view, stored), value)


@settings(deadline=None, max_examples=400)
@given(st.data())
def test_move_brings_the_value_into_the_order(data):
    stored, view, value = viewed(data)
    order = tuple(data.draw(st.permutations(range(value.ndim))))
    expected = value.transpose(order)
    if view.lies_in(order):
        np.testing.assert_array_equal(stored.reshape(expected.shape), expected)
        return
    steps, array = move(view, order), stored.reshape(view.stored)
    if steps.before is not None:
        array = array.reshape(steps.before)
    array = array.transpose(steps.axes)
    assert array.shape == steps.between
    if steps.after is not None:
        array = array.reshape(steps.after)
    np.testing.assert_array_equal(array, expected)


def test_value_in_its_own_order_can_be_seen_in_every_shape():
    view = view_of(0, (4, 6), (0, 1))
    for shape in [(24,), (3, 8), (2, 2, 3, 2), (1, 4, 1, 6), (12, 2)]:
        assert view.reshaped(shape).shape == shape


def test_transposed_value_cannot_be_seen_across_its_axes():
    assert view_of(0, (4, 6), (1, 0)).reshaped((24,)).axes == ((1, 0),)
    assert view_of(0, (4, 6), (1, 0)).reshaped((3, 8)) is None


@pytest.mark.parametrize(
    ("shape", "stored", "order", "operators"),
    [
        ((1, 6, 8, 7), (0, 2, 3, 1), (0, 1, 2, 3), 1),
        ((2, 6, 8, 7), (0, 1, 2, 3), (3, 2, 1, 0), 1),
    ],
)
def test_order_of_axes_alone_is_one_transposition(shape, stored, order, operators):
    steps = move(view_of(0, shape, stored), order)
    assert 1 + (steps.before is not None) + (steps.after is not None) == operators


def test_patches_of_an_image_are_one_transposition_between_two_reshapes():
    image = view_of(0, (1, 5, 8, 6), (0, 2, 3, 1))
    parts = image.reshaped((5 * 4, 2, 3, 2)).transposed((0, 2, 1, 3)).reshaped((1, 5, 12, 4))
    patches = parts.transposed((0, 3, 2, 1)).reshaped((4, 12, 5))
    assert patches.atoms == (4, 2, 3, 2, 5)
    assert patches.axes == ((1, 3), (0, 2), (4,))
