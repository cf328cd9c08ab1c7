import json
import zlib

import numpy as np
import pytest
from latkit.devices.errors import UnreachableTargetError, UsageError
from latkit.latency.cost import lay_out
from latkit.search.spaces.mobile import MobileSpace, mobile_space, mobile_stage
from latkit.search.strategies.bayesian import Bayesian
from latkit.search.strategies.coarse_to_fine import CoarseToFine
from latkit.search.strategies.evolution import Evolution
from latkit.search.strategies.nsga2 import Nsga2
from latkit.search.strategies.random_search import RandomSearch
from latkit.search.strategies.regularised_evolution import RegularisedEvolution
from latkit.search.strategies.reinforce import Reinforce


def block_cost(block):
    """Anything positive and deterministic."""
    return 0.1 + zlib.crc32(block.key.encode()) / 2**32


SPACE = mobile_space()
COST = lay_out(SPACE, block_cost)
TARGET = 0.5 * (COST.minimum()[0] + COST.maximum()[0])

TINY = MobileSpace(name="tiny", stages=(mobile_stage((16, 32), 2, 1),))
TINY_COST = lay_out(TINY, block_cost)


def accuracy_of(architecture):
    """A stand-in for a supernet: better with every larger option."""
    return sum(architecture.choices) / 100


def evaluate(strategy, cost, count):
    """One turn of a search loop; returns what was asked for."""
    asked = strategy.ask(count)
    if asked:
        latency_ms = cost.latency_ms(strategy.space.encode(asked))
        strategy.tell(asked, [accuracy_of(item) for item in asked], latency_ms.tolist())
    return asked


def run_to_its_end(strategy, cost, count=16, limit=1000):
    asked = []
    for _ in range(limit):
        if strategy.done:
            return asked
        asked += evaluate(strategy, cost, count)
    raise AssertionError("the strategy does not end")


STRATEGIES = {
    "random": lambda: RandomSearch(SPACE, COST, TARGET, budget=60, seed=3),
    "coarse_to_fine": lambda: CoarseToFine(SPACE, COST, TARGET, budget=60),
    "evolution": lambda: Evolution(SPACE, COST, TARGET, population=12, rounds=5, parents=4, seed=3),
    "regularised_evolution": lambda: RegularisedEvolution(
        SPACE, COST, TARGET, budget=60, population=10, sample=4, seed=3
    ),
    "nsga2": lambda: Nsga2(SPACE, COST, TARGET, budget=60, population=12, seed=3),
    "nsga2 without a target": lambda: Nsga2(SPACE, COST, budget=60, population=12, seed=3),
    "bayesian": lambda: Bayesian(SPACE, COST, TARGET, budget=60, first=10, seed=3),
    "bayesian without a target": lambda: Bayesian(SPACE, COST, budget=60, first=10, seed=3),
    "reinforce": lambda: Reinforce(SPACE, TARGET, steps=15, per_step=4, learning_rate=0.1, seed=3),
}
CONSTRAINED = [
    "random",
    "evolution",
    "coarse_to_fine",
    "regularised_evolution",
    "nsga2",
    "bayesian",
]
every_strategy = pytest.mark.parametrize("make", STRATEGIES.values(), ids=STRATEGIES.keys())


@every_strategy
def test_ends_after_its_budget(make):
    strategy = make()
    assert len(run_to_its_end(strategy, COST)) == len(strategy.evaluations) == 60
    assert strategy.ask(5) == []
    SPACE.validate(strategy.best())


@every_strategy
@pytest.mark.parametrize("turns", [0, 1, 4])
def test_search_resumed_from_saved_state_goes_on_bit_for_bit(make, turns):
    whole = make()
    for _ in range(turns):
        evaluate(whole, COST, 7)
    saved = json.dumps(whole.state())
    resumed = make()
    resumed.load_state(json.loads(saved))
    assert json.dumps(resumed.state()) == saved
    rest = run_to_its_end(whole, COST, 7)
    assert run_to_its_end(resumed, COST, 7) == rest
    assert json.dumps(resumed.state()) == json.dumps(whole.state())
    assert resumed.best() == whole.best()


@every_strategy
def test_search_killed_while_evaluating_asks_for_the_same_again(make):
    whole = make()
    evaluate(whole, COST, 3)
    asked = whole.ask(4)
    resumed = make()
    resumed.load_state(json.loads(json.dumps(whole.state())))
    assert asked and resumed.ask(len(asked)) == asked


@pytest.mark.parametrize(
    "make", [make for name, make in STRATEGIES.items() if name != "coarse_to_fine"]
)
def test_seed_decides_what_is_asked(make):
    first, again, other = make(), make(), make()
    other._random = np.random.default_rng(4)
    asked = [strategy.ask(4) for strategy in (first, again, other)]
    assert asked[0] == asked[1] != asked[2]


@every_strategy
def test_telling_what_was_not_asked_or_is_no_number_is_refused_and_learns_nothing(make):
    strategy = make()
    asked = strategy.ask(3)
    before = json.dumps(strategy.state())
    stranger = SPACE.architecture([1, 3, 4, 2, 3, 4, 4, 2, 3, 4, 4])
    assert stranger not in asked
    for architectures, accuracy, latency in (
        ([stranger], [0.5], [1.0]),
        ([asked[0], stranger], [0.5, 0.5], [1.0, 1.0]),
        (asked[:1], [float("nan")], [1.0]),
        (asked[:1], [0.5], [float("inf")]),
        (asked[:2], [0.5], [1.0]),
    ):
        with pytest.raises(UsageError):
            strategy.tell(architectures, accuracy, latency)
    assert json.dumps(strategy.state()) == before


@every_strategy
def test_state_of_another_search_is_refused(make):
    state = make().state()
    with pytest.raises(UsageError, match="strategy"):
        make().load_state({**state, "strategy": "other"})
    with pytest.raises(UsageError, match="space"):
        make().load_state({**state, "space": "other"})


@pytest.mark.parametrize("name", CONSTRAINED)
def test_everything_asked_is_within_the_target_and_asked_once(name):
    asked = run_to_its_end(STRATEGIES[name](), COST)
    assert len(set(asked)) == len(asked) == 60
    assert COST.latency_ms(SPACE.encode(asked)).max() <= TARGET


@pytest.mark.parametrize("name", CONSTRAINED)
def test_best_is_the_most_accurate_evaluation(name):
    strategy = STRATEGIES[name]()
    asked = run_to_its_end(strategy, COST)
    assert accuracy_of(strategy.best()) == max(map(accuracy_of, asked))


@pytest.mark.parametrize(
    "make", [RandomSearch, Evolution, CoarseToFine, RegularisedEvolution, Nsga2, Bayesian]
)
def test_unreachable_target_ends_at_once_and_names_the_smallest_latency(make):
    smallest, _ = COST.minimum()
    with pytest.raises(UnreachableTargetError, match=f"{smallest:.6g} ms"):
        make(SPACE, COST, 0.9 * smallest)


def test_space_smaller_than_the_budget_is_searched_in_full():
    strategy = RandomSearch(TINY, TINY_COST, TINY_COST.maximum()[0], budget=100)
    asked = run_to_its_end(strategy, TINY_COST)
    assert len(set(asked)) == len(asked) == TINY.size()


@pytest.mark.parametrize("make", [RandomSearch, RegularisedEvolution, Nsga2, Bayesian])
def test_small_space_is_evaluated_to_its_last_architecture_within_the_target(make):
    rows = np.indices(TINY.option_counts).reshape(len(TINY.choices), -1).T
    target = float(np.median(TINY_COST.latency_ms(rows)))
    wanted = {TINY.architecture(row) for row in rows[TINY_COST.latency_ms(rows) <= target].tolist()}
    asked = run_to_its_end(make(TINY, TINY_COST, target, budget=10_000), TINY_COST)
    assert len(asked) == len(wanted) and set(asked) == wanted


def test_draws_are_uniform_over_what_is_within_the_target():
    target = 0.5 * (TINY_COST.minimum()[0] + TINY_COST.maximum()[0])
    first = [RandomSearch(TINY, TINY_COST, target, seed=seed).ask(1)[0] for seed in range(400)]
    counts = np.unique([item.key for item in first], return_counts=True)[1]
    rows = np.indices(TINY.option_counts).reshape(len(TINY.choices), -1).T
    inside = rows[TINY_COST.latency_ms(rows) <= target].tolist()
    keys, rows_of_each = np.unique([TINY.architecture(r).key for r in inside], return_counts=True)
    assert len(counts) > 0.5 * min(len(keys), 400)
    assert counts.max() < 10 + 4 * 400 * rows_of_each.max() / len(inside)


def test_architectures_too_rare_to_be_drawn_are_walked_to(monkeypatch):
    monkeypatch.setattr("latkit.search.strategies.constrained.TRIES", 1)
    target = COST.minimum()[0] + 0.1 * (COST.maximum()[0] - COST.minimum()[0])
    strategy = RandomSearch(SPACE, COST, target, budget=50)
    asked = run_to_its_end(strategy, COST, count=50)
    assert len(set(asked)) == len(asked) == 50
    assert COST.latency_ms(SPACE.encode(asked)).max() <= target


def test_target_that_only_the_fastest_architecture_meets_finds_it(monkeypatch):
    monkeypatch.setattr("latkit.search.strategies.constrained.TRIES", 1)
    smallest, choices = COST.minimum()
    strategy = RandomSearch(SPACE, COST, smallest * (1 + 1e-9), budget=3)
    assert run_to_its_end(strategy, COST) == [SPACE.architecture(choices)]


def test_best_before_any_evaluation_is_refused():
    with pytest.raises(UsageError, match="no architecture"):
        STRATEGIES["random"]().best()
