"""The part of an image that is read: its middle, or a random one."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from latkit.search.images.crops import IMAGENET_CROP, RATIOS, RandomCrops, centre, cut
from latkit.search.images.source import HeldImages
from PIL import Image

SIDES = st.integers(1, 500)


@given(width=SIDES, height=SIDES, smallest=st.floats(0.01, 0.99), seed=st.integers(0, 999))
def test_random_parts_lie_inside_and_are_as_large_as_asked(width, height, smallest, seed):
    crops = RandomCrops.draw(np.random.default_rng(seed), 5, smallest)
    for place in range(5):
        left, upper, right, lower = box = crops.box(place, width, height)
        assert 0 <= left < right <= width * (1 + 1e-9)
        assert 0 <= upper < lower <= height * (1 + 1e-9)
        assert cut(Image.new("RGB", (width, height)), box, 8).shape == (8, 8, 3)
        if box == centre(width, height):
            continue
        share = (right - left) * (lower - upper) / (width * height)
        assert smallest * (1 - 1e-9) <= share <= 1 + 1e-9
        ratio = (right - left) / (lower - upper)
        assert RATIOS[0] * (1 - 1e-6) <= ratio <= RATIOS[1] * (1 + 1e-6)


def test_random_parts_are_of_many_sizes_and_places():
    crops = RandomCrops.draw(np.random.default_rng(0), 400, IMAGENET_CROP)
    boxes = np.array([crops.box(place, 100, 100) for place in range(400)])
    areas = np.sort((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])) / 1e4
    assert areas[0] < 0.12 and areas[-1] > 0.9
    # A little less than the middle of .08 and 1: the largest seldom fit.
    assert areas.mean() == pytest.approx(0.48, abs=0.05)
    middle = (boxes[:, 0] + boxes[:, 2]) / 2
    assert middle.mean() == pytest.approx(50, abs=3)
    assert len(np.unique(boxes[:, 0])) > 390


def test_a_part_depends_on_its_seed_alone():
    random = np.random.default_rng(3)
    crops = RandomCrops.draw(random, 6, 0.2)
    again = RandomCrops.draw(np.random.default_rng(3), 6, 0.2)
    later = RandomCrops(0.2, crops.seeds[4:])
    assert [crops.box(place, 60, 40) for place in range(6)] == [
        again.box(place, 60, 40) for place in reversed(range(6))
    ][::-1]
    assert later.box(0, 60, 40) == crops.box(4, 60, 40)
    assert RandomCrops.draw(random, 6, 0.2).box(0, 60, 40) != crops.box(0, 60, 40)


@pytest.mark.parametrize(("size", "box"), [((40, 20), (10, 0, 30, 20)), ((7, 10), (0, 1, 7, 8))])
def test_the_middle_square_is_the_largest(size, box):
    assert centre(*size) == box


def test_parts_of_images_in_memory_are_scaled_to_their_size():
    # Red grows to the right and green downwards, so that a part tells where it is from.
    ramp = np.arange(32, dtype=np.uint8) * 8
    image = np.zeros((32, 32, 3), np.uint8)
    image[:, :, 0], image[:, :, 1] = ramp[None, :], ramp[:, None]
    images = HeldImages(np.stack([image] * 20))
    crops = RandomCrops.draw(np.random.default_rng(0), 8, 0.3)
    found = images.read(np.arange(8), crops)
    assert found.shape == (8, 32, 32, 3)
    for place, part in enumerate(found.astype(float)):
        left, upper, right, lower = crops.box(place, 32, 32)
        assert part[16, :, 0].mean() / 8 + 0.5 == pytest.approx((left + right) / 2, abs=0.6)
        assert part[:, 16, 1].mean() / 8 + 0.5 == pytest.approx((upper + lower) / 2, abs=0.6)
    assert (images.read(np.arange(8)) == image).all(), "the images themselves stay whole"
