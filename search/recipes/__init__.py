"""Recipes: a space, a way of learning and a strategy, as a paper has them.

`run` runs one; `learning` has the ways alone, and `strategies` what may follow them.
"""

from .named import RECIPES as RECIPES
from .named import recipe_named as recipe_named
from .overriding import Overridden as Overridden
from .overriding import override as override
from .recipe import Recipe as Recipe
from .running import Found as Found
from .running import run as run
from .task import Shared as Shared
from .task import Task as Task
