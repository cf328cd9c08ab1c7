"""Small TFLite graphs, each to see what LiteRT makes of one thing, and what LiteRT says of them."""

from . import arithmetic, copies, fusions, reductions  # noqa: F401 (they register their probes)
from .graph import IMAGE, PROBES, Probe, convolution
from .profiler import profiled_names

__all__ = ["IMAGE", "PROBES", "Probe", "convolution", "profiled_names"]
