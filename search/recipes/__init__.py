"""Recipes: a space, a way of learning and a strategy, as a paper has them.

`run` runs one; `learning` has the ways alone, and `strategies` what may follow them.
"""

from .papers import RECIPES as RECIPES
from .recipe import Recipe as Recipe
from .running import Found as Found
from .running import run as run
from .task import Shared as Shared
from .task import Task as Task
