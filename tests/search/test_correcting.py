"""Searching until the device agrees: what is timed, when it goes on, and what it ends with."""

from dataclasses import dataclass, field

import pytest
from latkit.devices.errors import UnreachableTargetError
from latkit.search.aim import Aim
from latkit.search.correcting import CORRECTIONS, FINALISTS, Offer, settle
from latkit.search.measuring import Timed
from latkit.search.space import Architecture, SearchSpace
from latkit.search.spaces import Scale
from latkit.search.spaces.nasbench201 import NasBench201Space

SPACE = NasBench201Space(10, Scale(width=0.25, resolutions=(8,)), cells=1)
AIM = Aim(1.0)


@dataclass
class Networks:
    """Networks that were predicted and take what a dictionary says."""

    predicted: dict[Architecture, float]
    measured: dict[Architecture, float]
    space: SearchSpace = SPACE
    calls: list[list[Architecture]] = field(default_factory=list)

    def predicted_ms(self, architecture):
        return self.predicted[architecture]

    def measure(self, architectures):
        self.calls.append(list(architectures))
        return {item: timed(self.measured[item]) for item in architectures}


def timed(median_ms):
    return Timed(median_ms, 0.999 * median_ms, 1.001 * median_ms)


def architectures(count):
    return [SPACE.architecture((index, 1, 2, 3, 4, 0)) for index in range(count)]


def best_within(limit_ms, networks, accuracies, searches=None):
    """A search that evaluates all that its cost lets through, the best first."""

    def search(factor, number):
        if searches is not None:
            searches.append(factor)
        found = {
            item: accuracy
            for item, accuracy in accuracies.items()
            if factor * networks.predicted[item] <= limit_ms
        }
        if not found:
            raise UnreachableTargetError("nothing is as fast")
        return {"search": Offer(max(found, key=found.get), found)}

    return search


def test_where_the_table_is_right_the_most_accurate_is_found_by_one_search():
    first, second = architectures(2)
    networks = Networks({first: 0.9, second: 0.8}, {first: 0.9, second: 0.8})
    settled = settle(best_within(1.0, networks, {first: 0.7, second: 0.6}), networks, AIM)
    chosen = settled.chosen["search"]
    assert (chosen.architecture, chosen.accuracy, chosen.evaluations) == (first, 0.7, 2)
    assert (settled.factor, settled.corrections, len(networks.calls)) == (1.0, 0, 1)


def test_what_was_timed_above_the_target_is_passed_over_for_the_next_best():
    found = architectures(5)
    predicted = dict.fromkeys(found, 0.99)
    # Within the slack of the factor: the model is right, and three of five are unlucky.
    measured = dict(zip(found, (1.01, 1.01, 1.005, 0.995, 0.985), strict=True))
    accuracies = dict(zip(found, (0.9, 0.8, 0.7, 0.6, 0.5), strict=True))
    networks = Networks(predicted, measured)
    settled = settle(best_within(1.2, networks, accuracies), networks, AIM)
    assert settled.chosen["search"].architecture == found[3]
    assert settled.chosen["search"].timed.high_ms <= AIM.target_ms
    assert len(networks.calls[0]) == FINALISTS


@pytest.mark.parametrize("factor", [0.7, 1.25])
def test_a_table_that_is_off_is_corrected_and_searched_by_again(factor):
    found = architectures(5)
    predicted = dict(zip(found, (0.6, 0.75, 0.9, 1.2, 1.4), strict=True))
    networks = Networks(predicted, {item: factor * ms for item, ms in predicted.items()})
    accuracies = {item: 0.5 + ms / 10 for item, ms in predicted.items()}
    searches = []
    settled = settle(best_within(1.0, networks, accuracies, searches), networks, AIM)
    fitting = [item for item in found if factor * predicted[item] * 1.001 <= 1.0]
    assert settled.chosen["search"].architecture == fitting[-1]
    assert searches == [1.0, pytest.approx(factor)]
    assert settled.factor == pytest.approx(factor)


def test_where_nothing_is_fast_enough_by_the_corrected_cost_the_closest_stands():
    first, second = architectures(2)
    networks = Networks({first: 0.9, second: 0.8}, {first: 2.7, second: 2.4})
    settled = settle(best_within(1.0, networks, {first: 0.7, second: 0.6}), networks, AIM)
    assert settled.chosen["search"].architecture == second


def test_a_search_without_any_architecture_that_fits_raises():
    (only,) = architectures(1)
    networks = Networks({only: 2.0}, {only: 2.0})
    with pytest.raises(UnreachableTargetError):
        settle(best_within(1.0, networks, {only: 0.7}), networks, AIM)
    assert networks.calls == []


def test_a_device_that_takes_longer_each_time_is_given_up_on():
    found = architectures(5)
    predicted = dict(zip(found, (0.99, 0.9, 0.8, 0.7, 0.6), strict=True))
    networks = Networks(predicted, dict.fromkeys(found, 1.5))
    searches = []

    def search(factor, number):
        searches.append(factor)
        item = found[number]
        return {"search": Offer(item, {item: 0.5})}

    settled = settle(search, networks, AIM)
    assert len(searches) == CORRECTIONS + 1
    assert settled.chosen["search"].timed.median_ms == 1.5


def test_strategies_are_timed_together_and_each_ends_with_its_own():
    found = architectures(4)
    networks = Networks(dict.fromkeys(found, 0.9), dict.fromkeys(found, 0.9))

    def search(factor, number):
        return {
            "first": Offer(found[0], {found[0]: 0.9, found[1]: 0.8}),
            "second": Offer(found[3], {found[2]: 0.4, found[3]: 0.3}),
        }

    settled = settle(search, networks, AIM)
    assert settled.chosen["first"].architecture == found[0]
    # Its own choice is timed too, though it scored less: the mode of a policy may.
    assert settled.chosen["second"].architecture == found[2]
    assert [sorted(call, key=str) for call in networks.calls] == [sorted(found, key=str)]
