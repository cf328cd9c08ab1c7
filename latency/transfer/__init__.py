"""A new device from few measurements: what other devices and 10 to 20 samples tell of the rest."""

from .choices import Choices
from .data import LatencyData, read_latency_data
from .predictor import Adaptation, TransferPredictor, adapt
from .sources import Sources, learn_sources
from .table import AdaptedTable, adapt_tables, learn_tables

__all__ = [
    "Adaptation",
    "AdaptedTable",
    "Choices",
    "LatencyData",
    "Sources",
    "TransferPredictor",
    "adapt",
    "adapt_tables",
    "learn_sources",
    "learn_tables",
    "read_latency_data",
]
