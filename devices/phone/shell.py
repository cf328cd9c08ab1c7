"""How text is read off a phone: one script a call, its output in sections, nothing trusted.

Whatever a phone answers is text that nobody vouches for: it is cut, control characters are taken
out, and what isn't a number of sensible size is `None`, with the reason under the same name and
`_reason`.
"""

from __future__ import annotations

import re
import secrets
from typing import TYPE_CHECKING, Any, Protocol

from ..errors import DeviceError

if TYPE_CHECKING:
    from ..adb import ShellResult

LABEL_LENGTH = 200
"""Characters kept of a name; build fingerprints have about 100."""

SECTION_LENGTH = 64 << 10
"""Characters kept of one command's output; /proc/cpuinfo of a large x86-64 host is the longest."""

TIMEOUT_S = 60.0
"""`dumpsys` itself gives a service 10 s to answer, and a script asks several."""


class Shell(Protocol):
    """What runs a script on the phone: `AdbLink`."""

    def script(self, script: str, *words: str, timeout_s: float | None = None) -> ShellResult:
        """Run `script` (constant text of ours) with `words` as $1, $2, ..."""


def label(text: str) -> str:
    """`text` as one short line that may stand in a name or a key.

    Control characters, invisible ones and runs of spaces become one space, `|`, which separates
    the fields of a setup's key, becomes `/`; at most `LABEL_LENGTH` characters are kept.
    """
    visible = "".join(c if c.isprintable() else " " for c in text[: 16 * LABEL_LENGTH])
    return " ".join(visible.replace("|", "/").split())[:LABEL_LENGTH].rstrip()


def integer(text: str, low: int, high: int) -> int | None:
    """The integer that `text` is, where it lies between `low` and `high`; else `None`."""
    digits = text.strip()
    if re.fullmatch(r"-?[0-9]{1,15}", digits, re.ASCII) is None:
        return None
    number = int(digits)
    return number if low <= number <= high else None


def put(found: dict[str, Any], name: str, value: Any, reason: str) -> None:
    """File `value` under `name`; where it is `None`, `reason` beside it."""
    found[name] = value
    if value is None:
        found[f"{name}_reason"] = label(reason)


def read_sections(
    link: Shell, script: str, *words: str, timeout_s: float = TIMEOUT_S
) -> dict[str, str]:
    """Output of each part of `script`, by the name that the script's `mark` gave it.

    A nonce, the script's $1, is part of every mark: no text on the phone passes for one. Raises
    `DeviceError` where there is not one mark, and whatever the link raises.
    """
    nonce = secrets.token_hex(8)
    answer = link.script(script, nonce, *words, timeout_s=timeout_s)
    parts = re.split(rf"^{nonce} (\S+)\r?\n?", answer.stdout, flags=re.MULTILINE)
    if len(parts) == 1:
        said = label(answer.stderr) or label(answer.stdout) or "nothing"
        raise DeviceError(
            f"the phone's shell ended with exit code {answer.exit_code} and did not run a script "
            f"(it said: {said}). Look whether `adb shell echo hello` works."
        )
    return {
        name: content[:SECTION_LENGTH].strip()
        for name, content in zip(parts[1::2], parts[2::2], strict=True)
    }
