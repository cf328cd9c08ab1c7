"""TuNAS against random search at the cost that TuNAS's architecture turned out to have.

Random search draws architectures within `TOLERANCE` of that cost, trains each on its own for some
epochs, and keeps the one that is best on validation images. That it trains each, and for how long
in proportion, is recalled of the paper (Bender et al. 2020), whose random search has 50 of them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from latkit.devices.errors import UsageError
from latkit.search.recipes.learning import joint
from latkit.search.space import Architecture

from .settings import TunasSetting
from .terms import FINAL_SEEDS, RANDOM_SEEDS, Terms

MEASURES = {"alone, test images": ("alone_tunas", "alone_random")}
"""What is compared, and where a row has it for either side."""

TOLERANCE = 0.02
"""Costs that differ by at most this share count as the same."""

TRIES = 256
"""Most draws of random architectures for those of one cost."""


def compare(terms: Terms, setting: TunasSetting, epochs: int, seed: int) -> dict[str, Any]:
    """Search both ways, and train the winners alone for `epochs`; `alone_...` on test images.

    `trained_...` counts what either side trains before that, a supernet or networks on their own,
    for `epochs_...` passes over the training images; TuNAS's steps look at validation images too.
    `alone_drawn` is what the first random architecture is worth, that nothing chose.
    """
    shared = joint(terms.task(setting.supernet_epochs, seed), learning_rate=setting.policy_rate)
    assert shared.architecture is not None
    (own,) = terms.costs_of([shared.architecture])
    candidates = of_cost(terms, float(own), setting.candidates, RANDOM_SEEDS + seed)
    briefly = terms.alone(setting.candidate_epochs)
    scores = [briefly.validation_accuracy(item, RANDOM_SEEDS + seed) for item in candidates]
    best = candidates[int(np.argmax(scores))]
    (other,) = terms.costs_of([best])
    alone = terms.alone(epochs)
    worth = [
        alone.accuracy(item, FINAL_SEEDS + seed)
        for item in (shared.architecture, best, candidates[0])
    ]
    return {
        "seed": seed,
        "tunas_to_target": float(own / terms.target),
        "random_to_tunas": float(other / own),
        "trained_tunas": 1,
        "trained_random": len(candidates),
        "epochs_tunas": setting.supernet_epochs,
        "epochs_random": len(candidates) * setting.candidate_epochs,
        "alone_tunas": worth[0],
        "alone_random": worth[1],
        "alone_drawn": worth[2],
        "same": shared.architecture == best,
    }


def of_cost(terms: Terms, cost: float, count: int, seed: int) -> list[Architecture]:
    """Random architectures within `TOLERANCE` of a cost, each once: `count`, or all that is found.

    Raises `UsageError` where none is.
    """
    random = np.random.default_rng(seed)
    found: dict[str, Architecture] = {}
    for _ in range(TRIES):
        drawn = terms.space.sample_choices(terms.cost.rows_at_once, random)
        near = np.abs(terms.cost.latency_ms(drawn) / cost - 1) <= TOLERANCE
        for architecture in terms.space.decode(drawn[near]):
            found.setdefault(architecture.key, architecture)
        if len(found) >= count:
            break
    if not found:
        raise UsageError(
            f"no random architecture of {terms.space.name} costs {cost:g} to within "
            f"{TOLERANCE:.0%}, as TuNAS's does: there is nothing to compare it with"
        )
    return list(found.values())[:count]
