"""The parent's end of a worker: start it, ask it, notice when it dies or hangs, end it."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .backend import Loaded, Plan, TimeoutOf, Visited, WorkerLostError
from .device import Placement, Visit
from .job import HostJob, read_progress

POLL_S = 1.0
"""How often a waiting parent looks whether the worker still advances."""

END_TIMEOUT_S = 10
STDERR_TAIL = 2000


class WorkerProcess:
    """A running worker. `folder` holds its progress file and what it wrote to standard error."""

    def __init__(self, told: HostJob, folder: Path) -> None:
        self._progress = Path(told.progress)
        self._progress.unlink(missing_ok=True)
        self._stderr_path = folder / "stderr"
        # No thread pool of numpy's stands beside the one that is timed.
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        with self._stderr_path.open("wb") as stderr:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "latkit.devices.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                env=environment,
                start_new_session=True,
            )
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self._told = told

    def load(self, timeout_s: float) -> Loaded:
        """Hand over the job and wait until all models are loaded."""
        answer = self._ask(self._told.to_json(), lambda _: timeout_s)
        return Loaded(
            failures=_by_number(answer["failures"]),
            first_run_ns=_by_number(answer["first_run_ns"]),
            placements={
                number: Placement(**values)
                for number, values in _by_number(answer["placements"]).items()
            },
            context={"pinned_to": answer["pinned_to"]},
        )

    def visit(self, plan: Plan, timeout_s: TimeoutOf) -> Visited:
        """Have models visited. `timeout_s(number)` bounds the visit of each."""
        answer = self._ask({"plan": list(plan)}, timeout_s)
        visits = _by_number(answer["visits"])
        return Visited(
            started_at=answer["started_at"],
            duration_s=answer["duration_s"],
            canary=tuple(_visit(*values) for values in answer["canary"]),
            visits={number: _visit(*values) for number, values in visits.items()},
            failures=_by_number(answer["failures"]),
            context={
                "before": answer["before"],
                "after": answer["after"],
                "memory_walk_ns": answer["memory_walk_ns"],
            },
        )

    def end(self) -> None:
        """End the process now, whatever it is at: it holds nothing that could be lost."""
        self._process.kill()
        self._process.wait(END_TIMEOUT_S)
        self._reader.join(END_TIMEOUT_S)
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put(None)

    def _ask(self, question: Any, timeout_s: TimeoutOf) -> dict[str, Any]:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(question) + "\n")
            self._process.stdin.flush()
        except OSError:
            raise self._lost() from None
        seen, since = read_progress(self._progress), time.monotonic()
        while True:
            try:
                line = self._lines.get(timeout=POLL_S)
            except queue.Empty:
                now = read_progress(self._progress)
                if now != seen:
                    seen, since = now, time.monotonic()
                number = None if seen is None else seen[1]
                bound_s = timeout_s(number)
                if time.monotonic() - since > bound_s:
                    self.end()
                    raise self._at(f"did not end within {bound_s:.0f} s", False) from None
                continue
            if line is None:
                raise self._lost()
            try:
                answer: dict[str, Any] = json.loads(line)
            except ValueError:
                raise self._lost() from None
            return answer

    def _lost(self) -> WorkerLostError:
        try:
            code = self._process.wait(END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.end()
            code = self._process.returncode
        if code < 0:
            name = signal.Signals(-code).name
            return self._at(f"ended the process by {name}", code == -signal.SIGKILL)
        tail = self._stderr_path.read_text(errors="replace")[-STDERR_TAIL:].strip()
        return self._at(f"ended the process with exit code {code}: {tail}", False)

    def _at(self, cause: str, killed: bool) -> WorkerLostError:
        progress = read_progress(self._progress)
        if progress is None:
            return WorkerLostError(None, "start", cause, killed)
        _, number, action = progress
        return WorkerLostError(number if number >= 0 else None, action, cause, killed)


def _by_number(values: Mapping[str, Any]) -> dict[int, Any]:
    return {int(number): value for number, value in values.items()}


def _visit(samples_ns: Sequence[int], preempted: Sequence[bool] | None) -> Visit:
    return Visit(tuple(samples_ns), None if preempted is None else tuple(preempted))
