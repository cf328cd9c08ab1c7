"""The search loop: a strategy asks, the supernet answers, the log remembers."""

from __future__ import annotations

from collections.abc import Callable

from ..latency.cost import CostModel
from .log import LogEntry, SearchLog
from .space import Architecture
from .strategies.strategy import Strategy

ASKED_AT_ONCE = 16


def run_strategy(
    strategy: Strategy,
    cost: CostModel,
    accuracy: Callable[[Architecture], float],
    log: SearchLog,
    progress: Callable[[int], None] | None = None,
) -> int:
    """Run `strategy` until it is done; return how many evaluations it took.

    Latencies are the cost model's. What `log` holds from a killed run is not evaluated again.
    `progress` is called with the number of evaluations so far.
    """
    count = 0
    while not strategy.done:
        asked = strategy.ask(ASKED_AT_ONCE)
        if not asked:
            break
        latencies_ms = [float(value) for value in cost.latency_ms(strategy.space.encode(asked))]
        accuracies = []
        for architecture, latency_ms in zip(asked, latencies_ms, strict=True):
            found = log.replay(strategy.name, count, architecture)
            if found is None:
                found = accuracy(architecture)
                log.append(LogEntry(strategy.name, count, architecture.choices, latency_ms, found))
            accuracies.append(found)
            count += 1
            if progress is not None:
                progress(count)
        strategy.tell(asked, accuracies, latencies_ms)
    return count
