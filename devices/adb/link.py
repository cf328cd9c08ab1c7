"""A link to one phone: its shell, files to and from it, programs that run on it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from ..convert import default_cache
from . import files
from .lock import PhoneLock
from .process import RemoteProcess
from .shell import AdbShell

END_REMOTE_TIMEOUT_S = 5.0


class AdbLink(AdbShell):
    """A link to one phone, which it holds for this process until `close`. Made by `Adb.connect`.

    Every call ends within its bound, and raises `LinkLostError` where the link breaks or stalls.
    """

    def __init__(self, path: Path, serial: str, *, timeout_s: float) -> None:
        super().__init__(path, serial, timeout_s=timeout_s)
        self._lock = PhoneLock(serial, default_cache() / "locks")
        try:
            self._files = files.RemoteFiles(self)
        except BaseException:
            self._lock.close()
            raise

    def __enter__(self) -> AdbLink:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the phone. May be called again."""
        self._lock.close()

    def push(self, files: Sequence[Path], *, executable: bool = False) -> list[str]:
        """Bring files to the phone; return their paths there, in the same order.

        They are named by their content and lie there whole or not at all. Those that the phone
        has already are not sent again. Raises `DeviceError` where it has no room for them.
        """
        return self._files.push(files, executable=executable)

    def pull(self, remote: str, local: Path) -> None:
        """Fetch the file at the absolute path `remote`; `local` is written whole or not at all.

        Raises `DeviceError` where it is not there or does not arrive as it is.
        """
        self._files.pull(remote, local)

    def start(self, words: Sequence[str]) -> RemoteProcess:
        """Start a program on the phone that is talked to line by line."""
        return RemoteProcess(self, words, end_remote=self._end_remote)

    def _end_remote(self, process: int) -> None:
        self.shell(["kill", "-9", str(process)], timeout_s=END_REMOTE_TIMEOUT_S)
