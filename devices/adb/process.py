"""A program that runs on a phone and is talked to line by line over adb."""

from __future__ import annotations

import contextlib
import os
import queue
import re
import selectors
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from typing import IO

from ..errors import DeviceError, UsageError
from .call import KILLED_TIMEOUT_S, LinkLostError, kill, start
from .shell import AdbShell
from .words import command, framed, new_nonce

MAXIMUM_LINE_BYTES = 64 * 1024 * 1024
"""A longer line of output than this is no answer but garbage."""

STDERR_TAIL_BYTES = 8000

_TELL_PROCESS = 'printf "%s %d\\n" "$0" "$$"; exec "$@"'
"""The program's own process id comes first, so that it can be ended when it hangs."""


class RemoteProcess:
    """A running program on a phone. Made by `AdbLink.start`; end it by `end`.

    Its output must be lines of text. One empty line is held back until the next line comes.
    """

    def __init__(
        self,
        shell: AdbShell,
        words: Sequence[str],
        *,
        end_remote: Callable[[int], None],
    ) -> None:
        self.exit_code: int | None = None
        self._doing = f"running {words[0]} on phone {shell.serial}"
        self._timeout_s = shell.timeout_s
        self._end_remote = end_remote
        self._nonce = new_nonce()
        line = framed(command(["sh", "-c", _TELL_PROCESS, self._nonce, *words]), self._nonce)
        self._process = start(
            shell.path, ["-s", shell.serial, "shell", "-T", line], stdin=subprocess.PIPE
        )
        assert self._process.stdin is not None
        os.set_blocking(self._process.stdin.fileno(), False)
        self._remote_process: int | None = None
        self._ending: int | str | None = None
        """The exit code once the program ended, or in which way the link was lost."""
        self._stderr = b""
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._threads = [
            threading.Thread(target=work, daemon=True) for work in (self._read, self._read_stderr)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def stderr_tail(self) -> str:
        """The last that it, or adb, wrote to standard error."""
        return self._stderr.decode(errors="replace")

    def write_line(self, text: str) -> None:
        """Send a line. To a program that ended by itself nothing is sent: `read_line` tells.

        Raises `LinkLostError` where the link is gone, or takes nothing within the link's timeout.
        """
        if "\n" in text:
            raise UsageError(f"{text!r} is more than a line; a program on a phone is sent one")
        assert self._process.stdin is not None
        rest = memoryview((text + "\n").encode("utf-8", "surrogateescape"))
        until = time.monotonic() + self._timeout_s
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdin, selectors.EVENT_WRITE)
            while rest:
                left_s = until - time.monotonic()
                if left_s <= 0 or not selector.select(left_s):
                    raise LinkLostError(
                        f"{self._doing}: it took no input within {self._timeout_s:.0f} s"
                    )
                try:
                    rest = rest[os.write(self._process.stdin.fileno(), rest) :]
                except BlockingIOError:
                    continue
                except OSError:
                    self._threads[0].join(KILLED_TIMEOUT_S)
                    if isinstance(self._ending, int):
                        return
                    raise self._lost() from None

    def read_line(self, timeout_s: float) -> str | None:
        """The next line without its end; `None` once the program ended and `exit_code` is known.

        Raises `TimeoutError` where none came in time, `LinkLostError` where the link broke.
        """
        try:
            line = self._lines.get(timeout=timeout_s)
        except queue.Empty:
            raise TimeoutError(f"{self._doing}: no line within {timeout_s:.0f} s") from None
        if line is not None:
            return line
        self._lines.put(None)
        if not isinstance(self._ending, int):
            raise self._lost()
        # What it said last may still be under way.
        self._threads[1].join(KILLED_TIMEOUT_S)
        self.exit_code = self._ending
        return None

    def end(self) -> None:
        """End the program and its link now, whatever they are at. May be called again."""
        running = self._ending is None
        # Without our end its input ends, and with that a program which reads it.
        kill(self._process)
        if running and self._remote_process is not None:
            with contextlib.suppress(DeviceError):
                self._end_remote(self._remote_process)
        for thread in self._threads:
            thread.join(KILLED_TIMEOUT_S)
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()

    def _lost(self) -> LinkLostError:
        self._threads[1].join(KILLED_TIMEOUT_S)
        said = self.stderr_tail.strip()[-600:]
        how = self._ending or "its end did not come"
        return LinkLostError(f"{self._doing}: {how}{f'; adb said: {said}' if said else ''}")

    def _read(self) -> None:
        # Each thread closes what it reads: closing it from elsewhere would wait for the thread.
        assert self._process.stdout is not None
        with self._process.stdout as stdout:
            self._ending = self._read_to_end(stdout)
        self._lines.put(None)

    def _read_to_end(self, stdout: IO[bytes]) -> int | str:
        mark = re.compile(rf"{self._nonce} (\d+)\n")
        spoilt = re.compile(rf"{self._nonce} \d|^{self._nonce}")
        empty_line_held, first = False, True
        while True:
            raw = stdout.readline(MAXIMUM_LINE_BYTES)
            line = raw.decode(errors="replace")
            match = mark.fullmatch(line)
            if not line.endswith("\n"):
                whole = len(raw) < MAXIMUM_LINE_BYTES
                return "the link broke before its end" if whole else "a line came without end"
            if first:
                if match is None:
                    return f"garbage came before its output: {line[:200]!r}"
                self._remote_process, first = int(match[1]), False
            elif match is not None:
                rest = stdout.read(200)
                return f"garbage came after its output: {rest!r}" if rest else int(match[1])
            elif spoilt.search(line):
                return f"garbage came around its last line: {line[-200:]!r}"
            else:
                if empty_line_held:
                    self._lines.put("")
                empty_line_held = line == "\n"
                if not empty_line_held:
                    self._lines.put(line[:-1])

    def _read_stderr(self) -> None:
        assert self._process.stderr is not None
        with self._process.stderr as stderr:
            while piece := os.read(stderr.fileno(), 4096):
                self._stderr = (self._stderr + piece)[-STDERR_TAIL_BYTES:]
