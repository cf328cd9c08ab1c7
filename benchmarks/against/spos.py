"""SPOS's evolution against random search, with the weights of one supernet."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from latkit.search.log import SearchLog
from latkit.search.loop import run_strategy
from latkit.search.recalibration import SupernetEvaluator
from latkit.search.recipes.learning import single_path
from latkit.search.strategies.evolution import Evolution
from latkit.search.strategies.random_search import RandomSearch
from latkit.search.training import fingerprint

from .settings import SposSetting
from .terms import FINAL_SEEDS, RANDOM_SEEDS, Terms

MEASURES = {
    "supernet's score": ("score_evolution", "score_random"),
    "alone, test images": ("alone_evolution", "alone_random"),
}
"""What is compared, and where a row has it for either side."""


def compare(terms: Terms, setting: SposSetting, epochs: int, seed: int) -> dict[str, Any]:
    """Train a supernet, search with it both ways, and train the winners alone for `epochs`.

    Neither side asks for what costs more than the target, nor for anything twice; random search
    makes as many evaluations as evolution did. `score_...` are the winners' accuracies on
    validation images with shared weights, `alone_...` those on test images of the same trained
    alike. `alone_drawn` is what the first random architecture is worth, that nothing chose.
    """
    weights = single_path(terms.task(setting.supernet_epochs, seed)).weights
    evaluator = SupernetEvaluator(weights, terms.data, seed=seed)
    space, cost, target = terms.space, terms.cost, terms.target
    known = {"data": terms.data.key, "target": target, "weights": fingerprint(weights)}
    log = SearchLog(terms.folder / f"{terms.label}-{seed}.jsonl", {**asdict(setting), **known})
    evolution = Evolution(
        space,
        cost,
        target,
        population=setting.population,
        rounds=setting.rounds,
        parents=setting.parents,
        seed=seed,
    )
    made = run_strategy(evolution, cost, evaluator.accuracy, log)
    random = RandomSearch(space, cost, target, budget=made, seed=RANDOM_SEEDS + seed)
    drawn = run_strategy(random, cost, evaluator.accuracy, log)
    winners = [evolution.best(), random.best()]
    shares = terms.costs_of(winners) / target
    alone = terms.alone(epochs)
    worth = [
        alone.accuracy(architecture, FINAL_SEEDS + seed)
        for architecture in (*winners, random.evaluations[0].architecture)
    ]
    return {
        "seed": seed,
        "evaluations": made,
        "random_evaluations": drawn,
        "score_evolution": evaluator.accuracy(winners[0]),
        "score_random": evaluator.accuracy(winners[1]),
        "alone_evolution": worth[0],
        "alone_random": worth[1],
        "alone_drawn": worth[2],
        "cost_evolution": float(shares[0]),
        "cost_random": float(shares[1]),
        "same": winners[0] == winners[1],
    }
