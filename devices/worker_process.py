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
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .job import Job, read_progress

POLL_S = 1.0
"""How often a waiting parent looks whether the worker still advances."""

END_TIMEOUT_S = 10
STDERR_TAIL = 2000


class WorkerLostError(Exception):
    """The worker died or hangs. `number` is the model it was at, `None` where it was at none."""

    def __init__(self, number: int | None, action: str, cause: str, killed: bool) -> None:
        super().__init__(cause)
        self.number = number
        self.action = action
        self.cause = cause
        self.killed = killed
        """Whether something outside of the model ended it: SIGKILL, as when memory runs out."""


class WorkerProcess:
    """A running worker. `folder` holds its progress file and what it wrote to standard error."""

    def __init__(self, job: Job, folder: Path) -> None:
        self._progress = Path(job.progress)
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
        self._job = job

    def start(self, timeout_s: float) -> dict[str, Any]:
        """Hand over the job and wait until all models are loaded."""
        return self._ask(self._job.to_json(), lambda _: timeout_s)

    def round(
        self, index: int, attempt: int, timeout_s: Callable[[int | None], float]
    ) -> dict[str, Any]:
        """Have one round done. `timeout_s(number)` bounds the visit of each model."""
        return self._ask({"round": index, "attempt": attempt}, timeout_s)

    def canary(self, timeout_s: Callable[[int | None], float]) -> dict[str, Any]:
        """Have the canary alone timed."""
        return self._ask({"canary": True}, timeout_s)

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

    def _ask(self, question: Any, timeout_s: Callable[[int | None], float]) -> dict[str, Any]:
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
