"""Search: which architecture is the most accurate within a latency?

What trains (`supernet`, `training`, `pipeline`) imports torch, and is imported by its own name.
"""

from .choices import Choice
from .elasticity import scale
from .space import Architecture, Piece, SearchSpace
from .spaces.mobile import MobileSpace, mobile_space
from .strategies.coarse_to_fine import CoarseToFine
from .strategies.evolution import Evolution
from .strategies.random_search import RandomSearch
from .strategies.reinforce import Reinforce
from .strategies.strategy import Strategy

__all__ = [
    "Architecture",
    "Choice",
    "CoarseToFine",
    "Evolution",
    "MobileSpace",
    "Piece",
    "RandomSearch",
    "Reinforce",
    "SearchSpace",
    "Strategy",
    "mobile_space",
    "scale",
]
