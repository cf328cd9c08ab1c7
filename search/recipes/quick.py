"""A recipe for a first search: small images, a small space, minutes on a CPU."""

from __future__ import annotations

from functools import partial

from ...devices.errors import UsageError
from ..settings import SUPERNET_SETTINGS
from ..spaces.mobile import MobileSpace
from ..spaces.scale import PAPER, Scale
from .learning import single_path
from .recipe import Recipe
from .strategies import bayesian


def mobile_at(classes: int = 10, scale: Scale = PAPER) -> MobileSpace:
    """The space `mobile`; of a scale it takes a resolution, in place of 32 pixels.

    Raises `UsageError` for another one.
    """
    if scale != Scale(resolutions=scale.resolutions) or len(scale.resolutions) > 1:
        raise UsageError(f"the space mobile is small already: of {scale}, it takes one resolution")
    return MobileSpace(classes, resolution=max(scale.resolutions, default=32))


QUICK = Recipe(
    "quick",
    "this kit: SPOS's way of learning and our strategy, in a small space with small settings",
    mobile_at,
    SUPERNET_SETTINGS,
    single_path,
    partial(bayesian, budget=120),
)
