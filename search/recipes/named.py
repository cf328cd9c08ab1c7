"""All recipes by name: a quick one of our own, and the papers'."""

from __future__ import annotations

from ...devices.errors import UsageError
from .papers import RECIPES as PAPERS
from .quick import QUICK
from .recipe import Recipe

RECIPES = {QUICK.name: QUICK, **PAPERS}


def recipe_named(name: str) -> Recipe:
    """The recipe of this name; `UsageError` lists the known."""
    if name not in RECIPES:
        raise UsageError(f"--recipe {name}: it is one of {', '.join(RECIPES)}")
    return RECIPES[name]
