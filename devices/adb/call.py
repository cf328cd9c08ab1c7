"""One call of the adb program: bounded in time, its text kept, never in a shell."""

from __future__ import annotations

import contextlib
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import DeviceError

KILLED_TIMEOUT_S = 5.0
"""How long a killed adb may take to be gone."""


class LinkLostError(DeviceError):
    """The link to a phone broke or stalled; the message says at what.

    What was stored before is not touched by it: the same command goes on once the link is back.
    """


@dataclass(frozen=True, slots=True)
class Finished:
    """How a call of adb ended. Neither its exit code nor its text tells that a link held."""

    exit_code: int
    stdout: bytes
    stderr: bytes

    @property
    def text(self) -> str:
        """What adb complained of, on one line. adb 29 complains of `push` on standard output."""
        lines = (self.stderr + b"\n" + self.stdout).decode(errors="replace").splitlines()
        told = [line.strip() for line in lines if line.strip()]
        errors = [line for line in told if re.match(r"(adb: )?(error: )", line)]
        return "; ".join(errors or told)[-600:] or "nothing"


def start(path: Path, arguments: Sequence[str | bytes], *, stdin: int) -> subprocess.Popen[bytes]:
    """Start adb with pipes for its output, in a session of its own: ^C reaches us alone.

    Raises `DeviceError` where the program can't be started.
    """
    try:
        return subprocess.Popen(
            [str(path), *arguments],
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except OSError as error:
        raise DeviceError(f"can't start adb at {path}: {error.strerror}") from None


def call(path: Path, arguments: Sequence[str | bytes], *, timeout_s: float, doing: str) -> Finished:
    """Call adb and wait for its end; kill this client after `timeout_s`.

    Raises `LinkLostError` with `doing` in its message where adb did not end in time.
    """
    process = start(path, arguments, stdin=subprocess.DEVNULL)
    try:
        stdout, stderr = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        raise LinkLostError(
            f"{doing}: no answer within {timeout_s:.0f} s. Is the phone on and its cable sound? "
            "Plug it in again, then give the same command."
        ) from None
    finally:
        kill(process)
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()
    return Finished(process.returncode, stdout, stderr)


def kill(process: subprocess.Popen[bytes]) -> None:
    """End an adb client that may still run. Does not wait for ever."""
    if process.poll() is None:
        process.kill()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(KILLED_TIMEOUT_S)
