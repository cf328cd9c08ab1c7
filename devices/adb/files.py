"""Files to and from a phone: whole and verified, or not at all.

On the phone a file is named `<sha256><suffix>` after its content. It is pushed under a temporary
name, `<sha256><suffix>.<nonce>.part`, hashed there, and renamed.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..errors import DeviceError, UsageError
from .call import LinkLostError
from .shell import AdbShell, ShellResult
from .words import new_nonce

FOLDER = "/data/local/tmp/latkit"
"""Where all files of ours lie on a phone."""

BATCH_FILES = 50
BATCH_BYTES = 64 * 1024 * 1024
"""One call of adb pushes no more than this, except for a single larger file."""

SLOWEST_BYTES_PER_S = 1e6
"""Wireless debugging on a poor network. Timeouts grow by it."""

_NO_SHA256SUM = 90

_MAKE_FOLDER = 'mkdir -p "$1" && cd "$1" && rm -f -- *.part'

_HASHES = f"""
command -v sha256sum >/dev/null || exit {_NO_SHA256SUM}
cd "$1" || exit
mode=$2
shift 2
[ "$mode" = 755 ] && chmod 755 "$@" 2>/dev/null
sha256sum "$@" 2>/dev/null
exit 0
"""

# What arrived whole is renamed and told, what did not is removed.
_ACCEPT = """
cd "$1" || exit
mode=$2 nonce=$3
shift 3
chmod "$mode" "$@"
sha256sum "$@" | while read -r sum part; do
  name=${part%".$nonce.part"}
  if [ "$sum" = "${name%%.*}" ] && mv -f "$part" "$name"; then echo "$name"; else rm -f "$part"; fi
done
"""

_REMOVE_PARTS = 'cd "$1" && rm -f -- *".$2.part"; df -k "$1"'

_DESCRIBE = f"""
command -v sha256sum >/dev/null || exit {_NO_SHA256SUM}
[ -f "$1" ] || {{ echo "there is no such file" >&2; exit 1; }}
wc -c <"$1" && sha256sum <"$1"
"""

_NO_ROOM = re.compile(r"no space left|not enough space|disk full|quota exceeded", re.IGNORECASE)


class RemoteFiles:
    """Our folder on a phone. Making one removes what cut-off pushes left there."""

    def __init__(self, shell: AdbShell) -> None:
        self._shell = shell
        self._verified: set[tuple[str, bool]] = set()
        made = shell.script(_MAKE_FOLDER, FOLDER, doing="making our folder")
        if made.exit_code != 0:
            raise DeviceError(
                f"the folder {FOLDER} of phone {shell.serial} can't be used: {made.stderr.strip()}"
            )

    def push(self, files: Sequence[Path], *, executable: bool) -> list[str]:
        """See `AdbLink.push`."""
        names = [_name(file) for file in files]
        sources = {
            name: file
            for name, file in zip(names, files, strict=True)
            if (name, executable) not in self._verified
        }
        mode = "755" if executable else "644"
        missing = {}
        for batch in _batches(sources):
            present = self._present(batch, mode)
            self._verified.update((name, executable) for name in present)
            missing.update({name: sources[name] for name in batch if name not in present})
        for batch in _batches(missing):
            self._push({name: missing[name] for name in batch}, mode)
            self._verified.update((name, executable) for name in batch)
        return [f"{FOLDER}/{name}" for name in names]

    def pull(self, remote: str, local: Path) -> None:
        """See `AdbLink.pull`."""
        shell = self._shell
        if not remote.startswith("/"):
            raise UsageError(f"{remote!r} is no absolute path of a phone")
        described = self._scripted(_DESCRIBE, remote, doing=f"reading {remote}")
        size_text, sha256 = described.stdout.split()[:2]
        size_bytes = int(size_text)
        part = local.absolute().parent / f".{new_nonce()}.part"
        doing = f"pulling {remote} from phone {shell.serial}"
        try:
            part.parent.mkdir(parents=True, exist_ok=True)
            finished = shell.adb(
                "pull", remote, str(part), timeout_s=self._bound_s(size_bytes), doing=doing
            )
            if finished.exit_code != 0 or not part.is_file():
                raise LinkLostError(f"{doing}: it broke off; adb said: {finished.text}")
            if part.stat().st_size != size_bytes or _sha256(part) != sha256:
                raise DeviceError(f"{doing}: it arrived damaged. Try again with another cable")
            part.replace(local)
        except OSError as error:
            raise DeviceError(f"{doing}: can't write {local}: {error.strerror}") from None
        finally:
            part.unlink(missing_ok=True)

    def _present(self, names: Sequence[str], mode: str) -> set[str]:
        found = self._scripted(_HASHES, FOLDER, mode, *names, doing="looking which files are")
        # A line of sha256sum is the sum and the name; a damaged file is as good as none.
        pairs = (line.split() for line in found.stdout.splitlines())
        return {pair[1] for pair in pairs if len(pair) == 2 and pair[1].split(".")[0] == pair[0]}

    def _push(self, sources: dict[str, Path], mode: str) -> None:
        shell, nonce = self._shell, new_nonce()
        size_bytes = sum(file.stat().st_size for file in sources.values())
        doing = f"pushing {len(sources)} files to phone {shell.serial}"
        parts = [f"{name}.{nonce}.part" for name in sources]
        with tempfile.TemporaryDirectory(prefix="latkit-push-") as staging:
            staged = [Path(staging) / part for part in parts]
            for link, file in zip(staged, sources.values(), strict=True):
                link.symlink_to(file.absolute())
            finished = shell.adb(
                "push",
                *map(str, staged),
                f"{FOLDER}/",
                timeout_s=self._bound_s(size_bytes),
                doing=doing,
            )
        # adb 36 says "1 file pushed" of one that failed: the exit code counts, not the text.
        if finished.exit_code != 0:
            raise self._push_failure(doing, finished.text, nonce, size_bytes)
        accepted = self._scripted(_ACCEPT, FOLDER, mode, nonce, *parts, doing="verifying files")
        damaged = [name for name in sources if name not in accepted.stdout.split()]
        if damaged:
            raise DeviceError(
                f"{doing}: {sources[damaged[0]]} arrived damaged, or was changed meanwhile; it was "
                "removed there. Try again with another cable"
            )

    def _push_failure(self, doing: str, said: str, nonce: str, size_bytes: int) -> DeviceError:
        try:
            removed = self._shell.script(_REMOVE_PARTS, FOLDER, nonce, doing="removing files")
        except LinkLostError:
            return LinkLostError(f"{doing}: the link broke; adb said: {said}")
        if _NO_ROOM.search(said):
            free = re.search(r"\s\d+\s+\d+\s+(\d+)\s+\d+%", removed.stdout)
            free_text = f"{int(free[1]) / 1024:.0f} MiB" if free else "unknown"
            return DeviceError(
                f"{doing}: no space left there for {size_bytes / 2**20:.1f} MiB (free: "
                f"{free_text}). What was sent in part was removed; free some space on the phone"
            )
        if ": remote " in said:
            return DeviceError(f"{doing}: the phone refused: {said}")
        return LinkLostError(f"{doing}: the link broke; adb said: {said}")

    def _scripted(self, script: str, *words: str, doing: str) -> ShellResult:
        result = self._shell.script(script, *words, doing=doing)
        if result.exit_code == _NO_SHA256SUM:
            raise DeviceError(
                f"phone {self._shell.serial} has no sha256sum, without which a file there can't "
                "be verified. Android 6 and newer have it; else install a toybox or busybox"
            )
        if result.exit_code != 0:
            said = result.stderr.strip() or f"exit code {result.exit_code}"
            raise DeviceError(f"{doing} on phone {self._shell.serial}: {said}")
        return result

    def _bound_s(self, size_bytes: int) -> float:
        return self._shell.timeout_s + size_bytes / SLOWEST_BYTES_PER_S


def _name(file: Path) -> str:
    """Name on the phone: the content's sha256, and the suffix where it is a plain one."""
    suffix = file.suffix if re.fullmatch(r"\.[A-Za-z0-9_]{1,16}", file.suffix) else ""
    try:
        return _sha256(file) + suffix
    except OSError as error:
        raise UsageError(f"can't read {file} to push it: {error.strerror}") from None


def _sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _batches(sources: dict[str, Path]) -> Iterator[list[str]]:
    """Names in groups that one call of adb may take."""
    batch: list[str] = []
    batch_bytes = 0
    for name, file in sources.items():
        size_bytes = file.stat().st_size
        if batch and (len(batch) == BATCH_FILES or batch_bytes + size_bytes > BATCH_BYTES):
            yield batch
            batch, batch_bytes = [], 0
        batch.append(name)
        batch_bytes += size_bytes
    if batch:
        yield batch
