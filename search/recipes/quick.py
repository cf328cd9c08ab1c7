"""A recipe for a first search: small images, a small space, minutes on a CPU."""

from __future__ import annotations

from functools import partial

from ..settings import SUPERNET_SETTINGS
from ..spaces.mobile import MobileSpace
from ..spaces.scale import PAPER, Scale
from .learning import single_path
from .recipe import Recipe
from .strategies import evolution


def mobile_at(classes: int = 10, scale: Scale = PAPER) -> MobileSpace:
    """The space `mobile`, which is for 32-pixel images; of a scale, the resolution counts."""
    resolutions = scale.resolutions or (32,)
    return MobileSpace(classes, resolution=max(resolutions))


QUICK = Recipe(
    "quick",
    "this kit: SPOS's way of learning and evolution, in a small space with small settings",
    mobile_at,
    SUPERNET_SETTINGS,
    single_path,
    partial(evolution, population=20, rounds=6),
)
