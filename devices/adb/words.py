"""Lines for a device's shell: every word quoted, and a last line that tells how it ended."""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence

from ..errors import UsageError

MAXIMUM_LINE_BYTES = 32 * 1024
"""Longest line that is sent: adb's own limit is 64 KiB, an old phone's less."""


class GarbledAnswerError(Exception):
    """What came back does not end as it must; the message says in which way."""


def quoted(word: str) -> str:
    """`word` in POSIX quotes: any shell reads it as exactly this one word.

    Raises `UsageError` for what no shell word can hold: a NUL, or half a surrogate pair.
    """
    if "\0" in word:
        raise UsageError(f"{word!r} holds a NUL character, which no command of a device can take")
    try:
        word.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise UsageError(f"{word!r} is no text that can be sent to a device") from None
    return "'" + word.replace("'", "'\\''") + "'"


def command(words: Sequence[str]) -> str:
    """The words as a line of shell: one command with its arguments."""
    return " ".join(map(quoted, words))


def new_nonce() -> str:
    """A word that no output holds by chance."""
    return secrets.token_hex(12)


def framed(line: str, nonce: str) -> bytes:
    """`line` as it is sent: its output ends with a line of the nonce and the exit code.

    Raises `UsageError` where it is longer than `MAXIMUM_LINE_BYTES`.
    """
    # The subshell keeps `exit` and `exec` from skipping the last line.
    sent = f"( {line} ); printf '\\n%s %d\\n' {nonce} $?".encode("utf-8", "surrogateescape")
    if len(sent) > MAXIMUM_LINE_BYTES:
        raise UsageError(
            f"a command of {len(sent)} bytes can't be sent to a device, which takes "
            f"{MAXIMUM_LINE_BYTES}; it begins with {line[:60]!r}"
        )
    return sent


def unframed(output: bytes, nonce: str) -> tuple[bytes, int] | None:
    """Output without its last line, and the exit code; `None` where it was cut off before that.

    Raises `GarbledAnswerError` where something stands around the nonce in the last line, or after
    it. (Before it, a list of processes may hold the nonce: it is part of the shell's arguments.)
    """
    mark = nonce.encode()
    ending = re.search(rb"\n%s (\d{1,3})\n\Z" % mark, output)
    if ending is not None:
        return output[: ending.start()], int(ending[1])
    if mark not in output or re.search(rb"\n%s ?\d{0,3}\Z" % mark, output):
        return None
    raise GarbledAnswerError(f"it does not end with its last line: {output[-200:]!r}")
