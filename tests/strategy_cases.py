"""A space with made-up costs, and accuracies that a search can learn."""

import zlib

import numpy as np
from latkit.latency.cost import lay_out
from latkit.search.spaces.mobile import mobile_space

SPACE = mobile_space()
COST = lay_out(SPACE, lambda block: 0.1 + zlib.crc32(block.key.encode()) / 2**32)
TARGET = 0.5 * (COST.minimum()[0] + COST.maximum()[0])
WORTH = [np.random.default_rng(9).random(count) for count in SPACE.option_counts]


def accuracy_of(architecture):
    """Additive over choices, so that good parents have good children."""
    pairs = zip(WORTH, architecture.choices, strict=True)
    return float(np.mean([worth[choice] for worth, choice in pairs]))
