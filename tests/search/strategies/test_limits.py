"""Strategies under several limits at once: latency on two devices, FLOPs, memory."""

import json
import zlib

import numpy as np
import pytest
from latkit.devices.errors import UnreachableTargetError, UsageError
from latkit.latency import Limit, WorstCost, flops_cost, lay_out, peak_memory_cost
from latkit.search.spaces.mobile import mobile_space
from latkit.search.strategies.bayesian import Bayesian
from latkit.search.strategies.coarse_to_fine import CoarseToFine
from latkit.search.strategies.evolution import Evolution
from latkit.search.strategies.nsga2 import Nsga2
from latkit.search.strategies.random_search import RandomSearch
from latkit.search.strategies.regularised_evolution import RegularisedEvolution

SPACE = mobile_space()
ROWS = SPACE.sample_choices(500, np.random.default_rng(0))
FLOPS = flops_cost(SPACE)


def device(seed):
    return lay_out(SPACE, lambda block: 0.1 + zlib.crc32(f"{seed}{block.key}".encode()) / 2**32)


WORST = WorstCost([device(0), device(1)])
TARGET, MOST = (float(np.quantile(cost.latency_ms(ROWS), 0.3)) for cost in (WORST, FLOPS))
ALSO = [Limit(FLOPS, MOST, "FLOPs")]

STRATEGIES = {
    "random": lambda **options: RandomSearch(SPACE, WORST, TARGET, budget=60, **options),
    "evolution": lambda **options: Evolution(
        SPACE, WORST, TARGET, population=12, rounds=5, parents=4, **options
    ),
    "coarse_to_fine": lambda **options: CoarseToFine(SPACE, WORST, TARGET, budget=60, **options),
    "regularised_evolution": lambda **options: RegularisedEvolution(
        SPACE, WORST, TARGET, budget=60, **options
    ),
    "nsga2": lambda **options: Nsga2(SPACE, WORST, TARGET, budget=60, **options),
    "bayesian": lambda **options: Bayesian(SPACE, WORST, TARGET, budget=60, **options),
}
every_strategy = pytest.mark.parametrize("make", STRATEGIES.values(), ids=STRATEGIES.keys())


def accuracies(architectures):
    """More FLOPs, more accurate: the limits pull the other way."""
    return (FLOPS.latency_ms(SPACE.encode(architectures)) / MOST / 2).tolist()


def run(strategy):
    while not strategy.done:
        asked = strategy.ask(16)
        if asked:
            latency_ms = WORST.latency_ms(SPACE.encode(asked))
            strategy.tell(asked, accuracies(asked), latency_ms.tolist())
    return [item.architecture for item in strategy.evaluations]


@every_strategy
def test_every_architecture_keeps_all_limits(make):
    asked = run(make(also=ALSO))
    rows = SPACE.encode(asked)
    assert len(asked) >= 30
    assert (WORST.latency_ms(rows) <= TARGET).all()
    assert (FLOPS.latency_ms(rows) <= MOST).all()
    # Without the limit there would be others.
    assert (FLOPS.latency_ms(SPACE.encode(run(make()))) > MOST).any()


@every_strategy
def test_contradiction_ends_before_anything_is_asked(make):
    few = Limit(FLOPS, 0.99 * FLOPS.minimum()[0], "FLOPs")
    with pytest.raises(UnreachableTargetError, match=r"FLOPs: .*smallest reachable cost"):
        make(also=[few])


@every_strategy
def test_state_of_a_search_with_other_limits_is_refused(make):
    state = json.loads(json.dumps(make(also=ALSO).state()))
    make(also=ALSO).load_state(state)
    with pytest.raises(UsageError, match="FLOPs of at most"):
        make().load_state(state)


def test_rare_architectures_that_keep_limits_are_stood_in_for_by_one_that_is_known():
    """So close to the smallest FLOPs that no random draw ever fits."""
    most = FLOPS.minimum()[0] * (1 + 1e-9)
    loose = float(WORST.of(FLOPS.minimum()[1]))
    strategy = RandomSearch(SPACE, WORST, loose, budget=5, also=[Limit(FLOPS, most, "FLOPs")])
    assert FLOPS.latency_ms(SPACE.encode(run(strategy))).tolist() == [FLOPS.minimum()[0]]


def test_peak_memory_is_a_limit_too():
    memory = peak_memory_cost(SPACE)
    most = float(np.median(memory.latency_ms(ROWS[:50])))
    strategy = RandomSearch(
        SPACE, WORST, TARGET, budget=8, also=[*ALSO, Limit(memory, most, "peak memory")]
    )
    rows = SPACE.encode(run(strategy))
    assert len(rows) == 8
    assert (memory.latency_ms(rows) <= most).all()
