"""Things made in order by threads, before they are asked for."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Number = TypeVar("Number")
Made = TypeVar("Made")

AHEAD = 2
"""Things that each thread makes before they are asked for."""


def prefetched(
    make: Callable[[Number], Made], numbers: Iterable[Number], threads: int = 1
) -> Iterator[Made]:
    """`make` of each number in turn, made by `threads` threads.

    At most `AHEAD` for each thread wait to be taken. An error of `make` is raised where its result
    is asked for. Threads end with the iterator.
    """
    pending: deque[Future[Made]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="latkit-batches") as executor:
        try:
            for number in numbers:
                pending.append(executor.submit(make, number))
                if len(pending) > AHEAD * threads:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
