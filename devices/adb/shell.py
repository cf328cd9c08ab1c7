"""The shell of one phone: commands that arrive as they were meant and tell how they ended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .call import Finished, LinkLostError, call
from .words import GarbledAnswerError, command, framed, new_nonce, unframed


@dataclass(frozen=True, slots=True)
class ShellResult:
    """What a command on the phone gave: exactly its output, bytes that are no UTF-8 replaced."""

    exit_code: int
    stdout: str
    stderr: str


class AdbShell:
    """Calls of adb for one phone. Each ends within `timeout_s`, or the bound that it is given."""

    def __init__(self, path: Path, serial: str, *, timeout_s: float) -> None:
        self.path = path
        self.serial = serial
        self.timeout_s = timeout_s

    def shell(
        self, words: Sequence[str], *, timeout_s: float | None = None, doing: str | None = None
    ) -> ShellResult:
        """Run a command, each of `words` reaching it as it is, whatever it holds.

        `doing` is how an error names what was being done.
        Raises `LinkLostError` where its end does not come in time, or garbage comes with it.
        """
        nonce = new_nonce()
        doing = f"{doing or f'running {words[0]}'} on phone {self.serial}"
        line = framed(command(words), nonce)
        finished = self.adb("shell", "-T", line, timeout_s=timeout_s, doing=doing)
        try:
            answer = unframed(finished.stdout, nonce)
        except GarbledAnswerError as error:
            raise LinkLostError(f"{doing}: its answer is garbled: {error}") from None
        if answer is None:
            raise LinkLostError(f"{doing}: the link broke; adb said: {finished.text}")
        stdout, exit_code = answer
        return ShellResult(
            exit_code, stdout.decode(errors="replace"), finished.stderr.decode(errors="replace")
        )

    def script(
        self, script: str, *words: str, timeout_s: float | None = None, doing: str | None = None
    ) -> ShellResult:
        """Run a shell script of ours, which finds `words` as its `"$1"`, `"$2"`, ...

        Nothing that is not written in our source belongs into `script` itself.
        """
        line = ["sh", "-c", script, "latkit", *words]
        return self.shell(line, timeout_s=timeout_s, doing=doing or "running a script")

    def adb(self, *arguments: str | bytes, timeout_s: float | None, doing: str) -> Finished:
        """Call adb for this phone. Raises `LinkLostError`, with `doing`, where it takes longer."""
        bound_s = self.timeout_s if timeout_s is None else timeout_s
        return call(self.path, ["-s", self.serial, *arguments], timeout_s=bound_s, doing=doing)
