import numpy as np
import pytest
from latkit.search.space import Architecture
from latkit.search.strategies.front import crowding, dominance_ranks, front_of
from latkit.search.strategies.strategy import Evaluation

RANDOM = np.random.default_rng(0)
ACCURACY = RANDOM.integers(0, 12, 60) / 12
LATENCY = RANDOM.integers(1, 15, 60).astype(float)


def beats(first, second):
    no_worse = ACCURACY[first] >= ACCURACY[second] and LATENCY[first] <= LATENCY[second]
    return no_worse and (ACCURACY[first], LATENCY[first]) != (ACCURACY[second], LATENCY[second])


def test_ranks_are_those_of_fronts_peeled_off_one_by_one():
    ranks, left, rank = np.full(60, -1), set(range(60)), 0
    while left:
        front = {i for i in left if not any(beats(j, i) for j in left)}
        ranks[list(front)] = rank
        left, rank = left - front, rank + 1
    assert rank > 3
    assert dominance_ranks(ACCURACY, LATENCY).tolist() == ranks.tolist()


def test_front_has_what_nothing_beats_each_pair_once():
    items = [
        Evaluation(Architecture((i,)), (i,), a, t)
        for i, (a, t) in enumerate(zip(ACCURACY, LATENCY, strict=True))
    ]
    front = front_of(items)
    ranks = dominance_ranks(ACCURACY, LATENCY)
    wanted = {(items[i].accuracy, items[i].latency_ms) for i in np.flatnonzero(ranks == 0)}
    assert {(item.accuracy, item.latency_ms) for item in front} == wanted
    assert len(front) == len(wanted)
    assert [item.latency_ms for item in front] == sorted(item.latency_ms for item in front)


def test_crowding_is_the_share_of_both_axes_between_neighbours():
    distances = crowding([0.1, 0.2, 0.4, 0.5], [1.0, 3.0, 4.0, 5.0])
    assert distances == pytest.approx([np.inf, 0.3 / 0.4 + 3 / 4, 0.3 / 0.4 + 2 / 4, np.inf])
