"""Networks of the literature with random weights: what no search space of ours has made.

Widths and depths are the papers'; inputs are ImageNet-like, smaller where a network is heavy.
"""

from .catalogue import INPUT_SHAPES, NETWORKS, build, export

__all__ = ["INPUT_SHAPES", "NETWORKS", "build", "export"]
