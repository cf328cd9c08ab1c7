import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter

import pytest
from latkit.devices.cpu import CpuDevice
from latkit.devices.device import TimingProtocol
from latkit.latency.blocks import ConvBlock
from latkit.latency.profile import UNSTEADY_FACTOR, profile
from latkit.latency.store import Store
from latkit.latency.subject import subject_id

pytestmark = pytest.mark.quiet

ROUNDS = 60
PROTOCOL = TimingProtocol(rounds=ROUNDS, processes=3, runs=3, warmups=1)
BLOCKS = [
    ConvBlock(in_channels=16, height=size, width=size, out_channels=16) for size in (16, 32, 64)
]
REQUESTS = [(BLOCKS[0], 0), (BLOCKS[1], 0), (BLOCKS[2], 0), (BLOCKS[0], 1 << 20)]

PROFILE = """
import sys
sys.path.insert(0, sys.argv[2])
from test_resume import PROTOCOL, REQUESTS
from latkit.devices.cpu import CpuDevice
from latkit.latency.profile import profile
from latkit.latency.store import Store

if __name__ == "__main__":
    with Store(sys.argv[1]) as store:
        profile(CpuDevice(), REQUESTS, store, PROTOCOL)
"""
DEADLINE_S = 120


def stored_rounds(path):
    """How many rounds a store holds, as another process sees it while it is written."""
    if not path.exists():
        return 0
    try:
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30) as raw:
            return raw.execute("SELECT count(*) FROM rounds").fetchone()[0]
    except sqlite3.OperationalError:
        return 0  # Not made yet.


def rows(path):
    with sqlite3.connect(path) as raw:
        return [
            raw.execute(f"SELECT * FROM {table} WHERE round_id <= 3 ORDER BY 1, 2, 3").fetchall()
            for table in ("visits", "failures")
        ] + [raw.execute("SELECT * FROM rounds WHERE id <= 3 ORDER BY id").fetchall()]


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL on this system")
def test_run_killed_twice_goes_on_where_it_was(tmp_path, request):
    path = tmp_path / "s.sqlite"
    seen = 0
    for _ in range(2):
        process = subprocess.Popen(
            [sys.executable, "-c", PROFILE, str(path), str(request.path.parent)],
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        deadline = time.monotonic() + DEADLINE_S
        while stored_rounds(path) < seen + 3 and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert process.poll() is None, process.stderr.read()
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        seen = stored_rounds(path)
        assert seen < ROUNDS
    device = CpuDevice()
    first_rows = rows(path)
    with Store(path) as store:
        before = store.rounds(device.setup)
        result = profile(device, REQUESTS, store, PROTOCOL)
        after = store.rounds(device.setup)
        assert after[: len(before)] == before
        keys = [(subject_id(block), size) for block, size in REQUESTS]
        counts = Counter(key for item in after if item.accepted for key in item.visits)
        # What spreads too much is timed twice as long; nothing else is timed again.
        for key in keys:
            assert counts[key] in (ROUNDS, UNSTEADY_FACTOR * ROUNDS)
        assert set(counts) == set(keys)
        assert store.finished_rounds(device.setup) == counts
        assert list(result.measurements) == keys
        runs = [item.run_id for item in after if item.accepted]
        assert len(set(runs)) >= 3
        # The third run gave just the rounds that the first two left.
        third = list(dict.fromkeys(runs))[2]
        assert runs.count(third) == ROUNDS - sum(item.accepted for item in before)
        profile(device, REQUESTS, store, PROTOCOL)
        assert store.rounds(device.setup) == after
    assert rows(path) == first_rows
