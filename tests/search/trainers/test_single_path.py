"""Single paths: one architecture a step, among those that fit."""

import numpy as np
import pytest
from latkit.devices.errors import UsageError
from latkit.search.spaces.mobile import MobileSpace, mobile_stage
from latkit.search.supernet import Supernet
from latkit.search.trainers.single_path import SinglePath

SPACE = MobileSpace(4, stages=(mobile_stage((8, 16), 2, 1),), resolution=16, stem_channels=8)


def test_only_what_fits_is_drawn():
    path = SinglePath(Supernet(SPACE), fits=lambda architecture: architecture.choices[0] == 1)
    random = np.random.default_rng(0)
    drawn = [path._draw(random) for _ in range(50)]
    assert {architecture.choices[0] for architecture in drawn} == {1}
    assert len(set(drawn)) > 5


def test_a_constraint_that_nothing_meets_ends():
    path = SinglePath(Supernet(SPACE), fits=lambda architecture: False)
    with pytest.raises(UsageError, match="relax it"):
        path._draw(np.random.default_rng(0))
