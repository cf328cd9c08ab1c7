"""Figures of the report: a data frame goes in, a matplotlib `Figure` comes out."""

from .budgets import pareto_points
from .evaluated import accuracy_against_latency
from .latency import BAND_SHARE, latency_against_flops, predicted_against_measured, time_by_block
from .look import BLUE, ORANGE, png, strategy_colours
from .options import chosen_options
from .over_time import best_so_far, hypervolume_so_far, strategy_figures

__all__ = [
    "BAND_SHARE",
    "BLUE",
    "ORANGE",
    "accuracy_against_latency",
    "best_so_far",
    "chosen_options",
    "hypervolume_so_far",
    "latency_against_flops",
    "pareto_points",
    "png",
    "predicted_against_measured",
    "strategy_colours",
    "strategy_figures",
    "time_by_block",
]
