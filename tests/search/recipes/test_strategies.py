"""Strategies by name: each is made of a task alone."""

import pytest
from latkit.devices.errors import UnreachableTargetError
from latkit.latency.network import block_graph
from latkit.latency.ops import multiply_adds
from latkit.search.recipes.strategies import STRATEGIES
from latkit.search.recipes.task import Task
from latkit.search.settings import TrainingSettings
from staged_cases import small_space


def task(target_ms):
    return Task(
        small_space(),
        None,
        TrainingSettings(1),
        lambda block: multiply_adds(block_graph(block)) / 1e6,
        target_ms,
    )


@pytest.mark.parametrize("name", STRATEGIES)
def test_options_all_have_defaults(name):
    made = task(3.0)
    strategy = STRATEGIES[name](made)
    asked = strategy.ask(2)
    assert not strategy.done and asked
    latencies_ms = made.cost.latency_ms(made.space.encode(asked))
    strategy.tell(asked, [0.5] * len(asked), latencies_ms.tolist())
    assert len(strategy.evaluations) == len(asked)


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_target_out_of_reach_is_refused_before_the_first_is_asked_for(name):
    with pytest.raises(UnreachableTargetError, match="smallest reachable"):
        STRATEGIES[name](task(1e-9))
