"""Searches that are killed at any moment and resumed: as if they never had been."""

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter

import pytest
from latkit.latency.store import Store
from latkit.search.log import read_log
from latkit.search.trajectory import trajectories

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")

KILLS = 10
EVALUATIONS = 120
MOST_LINES = 20
"""That the log grows by before a kill, at most."""

HELD_AT = 105
"""Lines of the log at which a search waits at the earliest, before its end."""

DEADLINE_S = 60.0

SEARCH = """
import os, sys, time
from pathlib import Path
import numpy as np
from latkit.latency.cost import CostModel, Factor
from latkit.latency.store import Store
from latkit.search.evaluators.table import AccuracyTable
from latkit.search.log import SearchLog
from latkit.search.loop import run_strategy
from latkit.search.spaces.nasbench201 import nasbench201
from latkit.search.strategies.evolution import Evolution
from latkit.search.strategies.reinforce import Reinforce
from latkit.search.trajectory import Trajectory

space = nasbench201()
drawn = np.random.default_rng(0)
cost = CostModel(space.option_counts, [Factor((at,), drawn.random(5)) for at in range(6)])
worth = drawn.random((6, 5))

def search(folder):
    def accuracy(architecture):
        with (folder / "calls").open("a") as file:
            file.write(f"{architecture.key}\\n")
        time.sleep(0.004)
        return float(np.mean([row[choice] for row, choice in zip(worth, architecture.choices)]))

    def hold(done):
        # The last evaluations wait, so that every kill finds the search at work.
        while strategy.name == "reinforce" and done > 30 and not (folder / "go").exists():
            time.sleep(0.001)

    log = SearchLog(folder / "search.jsonl", {"seed": 7})
    with Store(folder / "store.sqlite") as store:
        trajectory = Trajectory(store, log)
        for strategy in (
            Evolution(space, cost, 3.5, population=20, rounds=4, parents=5, seed=7),
            Reinforce(space, 3.0, steps=10, per_step=4, learning_rate=0.1, seed=7),
        ):
            run_strategy(strategy, cost, accuracy, log, trajectory=trajectory, progress=hold)

"""

TRAINING_AND_SEARCH = """
import os, sys, time
from dataclasses import replace
from functools import partial
from pathlib import Path
from latkit.latency.network import block_graph
from latkit.latency.ops import multiply_adds
from latkit.search.data import load_data
from latkit.search.recipes import RECIPES, run
from latkit.search.recipes.strategies import evolution
from latkit.search.settings import TrainingSettings
from latkit.search.spaces import Scale
from latkit.search.spaces.nasbench201 import NasBench201Space
from latkit.search.training import set_threads

data = load_data(image_size=8)
few = [part.only(part.labels.argsort()[::8]) for part in (data.train, data.validation)]
data = replace(data, train=few[0], validation=few[1], key="few")
recipe = replace(RECIPES["spos"], strategy=partial(evolution, population=6, rounds=2))
space = NasBench201Space(10, Scale(width=0.25, resolutions=(8,)), cells=1)

def search(folder):
    set_threads(1)

    def hold(what, done, _):
        while "search" in what and done > 9 and not (folder / "go").exists():
            time.sleep(0.001)

    run(
        recipe, data, lambda block: float(multiply_adds(block_graph(block))), 1e6, folder,
        space=space, settings=TrainingSettings(2, 16), progress=hold,
    )
"""

FORKS = """
# Every search is a process of its own, forked from one that has imported all it needs.
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        code = 1
        try:
            search(Path(line.strip()))
            code = 0
        finally:
            sys.stdout.flush()
            os._exit(code)
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
os._exit(0)
"""


@pytest.fixture
def searches(request):
    process = subprocess.Popen(
        [sys.executable, "-c", request.param + FORKS],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    yield process
    process.stdin.close()
    process.stdout.close()
    process.wait(DEADLINE_S)


@pytest.fixture
def folders(tmp_path):
    """Of a search that is let through, and of one that is killed."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder in (whole, killed):
        folder.mkdir()
    (whole / "go").touch()
    return whole, killed


def search(searches, folder, kill_at=None, wait_s=0.0):
    """Search to the end, or be killed a moment after the log has this many lines; the exit code."""
    searches.stdin.write(f"{folder}\n")
    searches.stdin.flush()
    child = int(searches.stdout.readline())
    if kill_at is not None:
        deadline = time.monotonic() + DEADLINE_S
        while lines(folder) < kill_at and time.monotonic() < deadline:
            time.sleep(0.004)
        time.sleep(wait_s)
        os.kill(child, signal.SIGKILL)
    return int(searches.stdout.readline())


def lines(folder):
    log = folder / "search.jsonl"
    return log.read_bytes().count(b"\n") if log.exists() else 0


def calls(folder):
    return (folder / "calls").read_text().splitlines()


@pytest.mark.parametrize("searches", [SEARCH], indirect=True, ids=["table"])
def test_a_search_killed_ten_times_ends_with_the_log_of_one_that_was_not(searches, folders):
    whole, killed = folders
    assert search(searches, whole) == 0
    moments = random.Random(1)
    for _ in range(KILLS):
        kill_at = min(lines(killed) + moments.randint(0, MOST_LINES), HELD_AT)
        code = search(searches, killed, kill_at, moments.uniform(0, 0.02))
        assert code == -signal.SIGKILL, "it was at work"
    assert lines(killed) > 1
    (killed / "go").touch()
    assert search(searches, killed) == 0
    assert (killed / "search.jsonl").read_bytes() == (whole / "search.jsonl").read_bytes()

    _, entries = read_log(killed / "search.jsonl")
    assert len(entries) == EVALUATIONS
    assert max(Counter(calls(whole)).values()) == 1, "a repeated architecture is one evaluation"
    assert len(calls(killed)) <= len(calls(whole)) + KILLS
    frames = []
    for folder in (whole, killed):
        with Store(folder / "store.sqlite") as store:
            frames.append(trajectories(store))
    for frame in frames:
        assert frame.search.nunique() == 1
        assert [
            (row.strategy, row.index, row.architecture, row.accuracy)
            for row in frame.itertuples(index=False)
        ] == [
            (entry.strategy, entry.index, ".".join(map(str, entry.architecture)), entry.accuracy)
            for entry in entries
        ]
    assert frames[0].seconds.notna().all()
    same = [name for name in frames[0] if name not in ("search", "seconds")]
    assert frames[0][same].equals(frames[1][same])


@pytest.mark.parametrize("searches", [TRAINING_AND_SEARCH], indirect=True, ids=["supernet"])
def test_a_search_killed_while_its_supernet_trains_or_scores_ends_the_same(searches, folders):
    whole, killed = folders
    assert search(searches, whole) == 0
    moments = random.Random(2)
    for kill_at in (0, 1, 4, 9):
        code = search(searches, killed, kill_at, moments.uniform(0, 0.1))
        assert code == -signal.SIGKILL, "it was at work"
    (killed / "go").touch()
    assert search(searches, killed) == 0
    assert (killed / "search.jsonl").read_bytes() == (whole / "search.jsonl").read_bytes()
    assert len(read_log(killed / "search.jsonl")[1]) == 12
