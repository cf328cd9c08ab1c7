"""Holds a phone for one process of this computer: two at once would spoil each other's timing."""

from __future__ import annotations

import fcntl
import hashlib
import os
from pathlib import Path

from ..errors import DeviceError


class PhoneLock:
    """A lock on a serial, let go by `close` or by the end of the process, however it comes."""

    def __init__(self, serial: str, folder: Path) -> None:
        path = folder / hashlib.sha256(serial.encode("utf-8", "surrogateescape")).hexdigest()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            # Never deleted: a lock on a deleted file would keep nobody out.
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise DeviceError(
                f"can't write the lock file {path}: {error.strerror}; make its folder writable"
            ) from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
            os.close(descriptor)
            raise DeviceError(
                f"phone {serial} is in use by another latkit (process {holder or 'unknown'}); "
                "two at once would spoil each other's timing. Wait for it or end it"
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        self._descriptor: int | None = descriptor

    def close(self) -> None:
        """Let go of the phone. May be called again."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
