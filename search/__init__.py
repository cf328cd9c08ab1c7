"""Search: which architecture is the most accurate within a latency?

What trains (`supernet`, `training`, `pipeline`) imports torch, and is imported by its own name.
"""

from .choices import Choice
from .coarse_to_fine import CoarseToFine
from .elasticity import scale
from .evolution import Evolution
from .random_search import RandomSearch
from .reinforce import Reinforce
from .space import Architecture, Piece, SearchSpace
from .spaces.mobile import MobileSpace, mobile_space
from .strategy import Strategy

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
