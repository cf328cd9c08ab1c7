"""The space that a search runs in: its recipe's, or one by name, at a scale."""

from __future__ import annotations

from pydantic import TypeAdapter

from ...devices.errors import UsageError
from ...latency.spaces import load_space
from ..result import SearchResult
from ..space import SearchSpace
from ..spaces.scale import PAPER, Scale
from .named import recipe_named
from .recipe import Recipe


def space_of(recipe: Recipe, address: str, classes: int, scale: Scale = PAPER) -> SearchSpace:
    """The space at `address`, the recipe's own where that is empty, for a number of classes.

    Raises `UsageError` where it can't be searched, or has no scale and one is asked for.
    """
    if not address:
        return recipe.space(classes, scale)
    return _at_address(address, classes, scale)


def _at_address(address: str, classes: int, scale: Scale) -> SearchSpace:
    options = {} if scale == PAPER else {"scale": scale}
    found = load_space(address, classes, **options)
    if not isinstance(found, SearchSpace):
        raise UsageError(f"{address} can be profiled, but is no SearchSpace to be searched")
    return found


def searched_space(result: SearchResult) -> SearchSpace:
    """The space that a finished search ran in."""
    scale = TypeAdapter(Scale).validate_python(dict(result.scale))
    classes = len(result.classes)
    if result.space_address:
        return _at_address(result.space_address, classes, scale)
    return recipe_named(result.recipe).space(classes, scale)
