"""The runner's process on a phone, and its answers, checked one by one."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..adb import AdbLink, LinkLostError
from ..backend import TimeoutOf, WorkerLostError
from ..device import Visit
from ..errors import DeviceError
from ..job import CANARY

POLL_S = 5.0
SIGNALS = {132: "SIGILL", 134: "SIGABRT", 135: "SIGBUS", 136: "SIGFPE", 137: "SIGKILL"}
SIGNALS |= {139: "SIGSEGV", 143: "SIGTERM"}
"""What a shell's exit codes over 128 mean."""

MAXIMUM_NS = 2**62


class RunnerProcess:
    """A runner that is told commands and answers. `models` is how many it is going to load.

    What it can't have measured is a `DeviceError`, never a sample.
    """

    def __init__(self, link: AdbLink, program: str, progress: str, models: int) -> None:
        self._link = link
        self._progress_file = progress
        self._models = models
        link.shell(["rm", "-f", progress, f"{progress}.log"])
        self._process = link.start([program, progress])

    def tell(self, line: str) -> None:
        """Give it a command."""
        self._process.write_line(line)

    def end(self) -> None:
        """End it now, whatever it is at."""
        self._process.end()

    def visit(self, answer: Mapping[str, Any], runs: int) -> Visit:
        """The visit, of so many runs, that an answer tells of."""
        samples, preempted = answer.get("samples_ns"), answer.get("preempted")
        if not isinstance(samples, list) or len(samples) != runs:
            raise self.garbage(f"{runs} samples were asked for, and it sent {samples!r:.80}")
        if not isinstance(preempted, list) or len(preempted) != runs:
            raise self.garbage(f"{runs} samples came with {preempted!r:.80} for preemption")
        return Visit(
            tuple(self.nanoseconds(sample) for sample in samples),
            tuple(bool(hit) for hit in preempted),
        )

    def number(self, value: Any) -> int:
        """The number of a model, or the canary's."""
        if type(value) is not int or not CANARY <= value < self._models:
            raise self.garbage(f"it told of a model {value!r:.80}")
        return value

    def nanoseconds(self, value: Any) -> int:
        """A time that can have passed."""
        if type(value) is not int or not 0 < value < MAXIMUM_NS:
            raise self.garbage(f"it sent {value!r:.80} as a time in nanoseconds")
        return value

    def garbage(self, what: str) -> LinkLostError:
        """The error for an answer that no runner gives."""
        return LinkLostError(
            f"phone {self._link.serial} answered with what no runner says: {what}. Nothing of this "
            "round is kept; give the same command again to go on."
        )

    def answers(
        self, command: str, patience_s: float, timeout_s: TimeoutOf
    ) -> Iterator[Mapping[str, Any]]:
        """The answers to a command, up to the one that ends them; `WorkerLostError` as told."""
        seen, since, wait_s = None, time.monotonic(), patience_s
        while True:
            try:
                line = self._process.read_line(wait_s)
            except TimeoutError:
                progress = self._progress()
                if progress != seen:
                    seen, since = progress, time.monotonic()
                number = None if progress is None else progress[1]
                bound_s = timeout_s(None if number == CANARY else number)
                if time.monotonic() - since > bound_s:
                    raise self._lost(f"did not end within {bound_s:.0f} s", False) from None
                wait_s = min(POLL_S, bound_s)
                continue
            if line is None:
                raise self._ended()
            answer = self._read(line)
            if "error" in answer:
                raise DeviceError(f"{self._link.serial}: the runner says: {answer['error']}")
            yield answer
            if answer.get("end") == command:
                return

    def _read(self, line: str) -> Mapping[str, Any]:
        try:
            answer = json.loads(line, parse_constant=_refuse)
        except (ValueError, RecursionError):
            raise self.garbage(f"it wrote {line!r:.200}") from None
        if not isinstance(answer, dict):
            raise self.garbage(f"it wrote {line!r:.200}")
        return answer

    def _ended(self) -> WorkerLostError:
        code = self._process.exit_code
        # What the runtime says while it loads goes to a file, which a crash leaves behind.
        log = self._link.shell(["tail", "-c", "500", f"{self._progress_file}.log"])
        said = "" if log.exit_code else log.stdout.strip()
        if code in SIGNALS:
            how = f"by {SIGNALS[code]}"
        else:
            how = f"with exit code {code}"
            said = said or self._process.stderr_tail[-500:].strip()
        return self._lost(f"ended the runner {how}{said and f': {said}'}", code == 137)

    def _lost(self, cause: str, killed: bool) -> WorkerLostError:
        progress = self._progress()
        if progress is None:
            return WorkerLostError(None, "start", cause, killed)
        _, number, action = progress
        return WorkerLostError(number if number >= 0 else None, action, cause, killed)

    def _progress(self) -> tuple[int, int, str] | None:
        """What the runner is at: step, model, action; `LinkLostError` where the phone is gone."""
        found = self._link.shell(["cat", self._progress_file])
        words: Sequence[str] = found.stdout.split()
        if found.exit_code or len(words) != 3:
            return None
        try:
            step, number = int(words[0]), int(words[1])
        except ValueError:
            return None
        is_known = CANARY <= number < self._models
        return (step, number, words[2]) if is_known else None


def why_failed(answer: Mapping[str, Any]) -> str:
    """Why a model failed, as the runner says."""
    return str(answer.get("cause") or "the runner does not say why")


def _refuse(text: str) -> float:
    raise ValueError(f"{text} is no number")
