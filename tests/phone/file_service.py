"""The phone's `sync:` service: what adb push, pull and ls speak to."""

from __future__ import annotations

import errno
import os
import posixpath
import stat
import struct
from collections.abc import Callable
from pathlib import Path

from .daemon import MAXIMUM_BYTES, Stream

CHUNK_BYTES = 64 * 1024
LONGEST_PATH = 1024
WRITABLE = "/data/local/tmp"

Resolve = Callable[[str], Path]
"""Where a path of the phone lies on this host; OSError where the phone has no such place."""


class FileService:
    """Serves requests on a stream: a name of four letters, a length or size, and as many bytes."""

    def __init__(self, stream: Stream, resolve: Resolve):
        self._stream = stream
        self._resolve = resolve

    async def serve(self) -> None:
        """Answer requests until the client quits."""
        while True:
            name, length = struct.unpack("<4sI", await self._stream.read_exactly(8))
            if name == b"QUIT":
                return
            if length > LONGEST_PATH:
                await self._fail("path too long")
                return
            path = (await self._stream.read_exactly(length)).decode("utf-8", "surrogateescape")
            if name == b"STAT":
                await self._write(b"STAT" + self._old_status(path))
            elif name in (b"STA2", b"LST2"):
                await self._write(name + self._status(path, follow=name == b"STA2"))
            elif name in (b"LIST", b"LIS2"):
                await self._list(path, new=name == b"LIS2")
            elif name == b"SEND":
                await self._receive_from_host(path)
            elif name == b"RECV":
                await self._send_to_host(path)
            else:
                await self._fail(f"unknown request {name!r}")
                return

    async def _write(self, data: bytes) -> None:
        await self._stream.write(data)

    async def _fail(self, text: str) -> None:
        data = text.encode("utf-8", "surrogateescape")
        await self._write(struct.pack("<4sI", b"FAIL", len(data)) + data)

    def _old_status(self, path: str) -> bytes:
        try:
            found = self._resolve(path).lstat()
        except OSError:
            return bytes(12)
        return struct.pack("<3I", found.st_mode, found.st_size & 0xFFFFFFFF, int(found.st_mtime))

    def _status(self, path: str, *, follow: bool) -> bytes:
        form = struct.Struct("<I2Q4IQ3q")
        try:
            place = self._resolve(path)
            found = place.stat() if follow else place.lstat()
        except OSError as error:
            return form.pack(error.errno or errno.EIO, *[0] * 10)
        times = int(found.st_atime), int(found.st_mtime), int(found.st_ctime)
        owner = (2000, 2000)
        numbers = (found.st_mode, found.st_nlink, *owner, found.st_size, *times)
        return form.pack(0, found.st_dev, found.st_ino, *numbers)

    async def _list(self, path: str, *, new: bool) -> None:
        name, empty = (b"DNT2", 72) if new else (b"DENT", 16)
        try:
            entries = sorted(self._resolve(path).iterdir())
        except OSError:
            entries = []
        for entry in entries:
            inside = posixpath.join(path, entry.name)
            status = self._status(inside, follow=False) if new else self._old_status(inside)
            raw = os.fsencode(entry.name)
            await self._write(name + status + struct.pack("<I", len(raw)) + raw)
        await self._write(b"DONE" + bytes(empty))

    async def _receive_from_host(self, request: str) -> None:
        """`adb push`. A partial file stays where it is, as when the phone loses its power."""
        path, _, mode = request.rpartition(",")
        problem = None
        try:
            file = self._create(path, int(mode))
        except OSError as error:
            file, problem = None, f"couldn't create file: {error.strerror}"
            await self._fail(problem)
        try:
            while True:
                name, number = struct.unpack("<4sI", await self._stream.read_exactly(8))
                if name == b"DONE":
                    break
                data = await self._stream.read_exactly(number)
                if problem is None and file is not None:
                    problem = await self._store(file, path, data)
                    if problem is not None:
                        await self._fail(problem)
        finally:
            if file is not None:
                os.close(file)
        if problem is None:
            os.utime(self._resolve(path), (number, number))
            await self._write(struct.pack("<4sI", b"OKAY", 0))

    def _create(self, path: str, mode: int) -> int:
        """A new, empty file of the phone, in folders that are made if they are missing."""
        if not stat.S_ISREG(mode):
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))
        if posixpath.commonpath([posixpath.normpath(path), WRITABLE]) != WRITABLE:
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))
        place = self._resolve(path)
        if place.is_dir():
            raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
        place.parent.mkdir(parents=True, exist_ok=True)
        place.unlink(missing_ok=True)
        owner = (mode >> 6) & 0o7
        file = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        os.fchmod(file, owner << 6 | owner << 3 | owner)
        return file

    async def _store(self, file: int, path: str, data: bytes) -> str | None:
        """Write a piece of a pushed file; why it can't be, if it can't."""
        if len(data) > CHUNK_BYTES:
            return "oversize data message"
        passing, fault = self._stream.faults.reach("send_bytes", path, len(data))
        fits = self._stream.faults.space(path, passing)
        os.write(file, data[:fits])
        if fault is not None:
            await self._stream.suffer(fault)
        return "write failed: No space left on device" if fits < len(data) else None

    async def _send_to_host(self, path: str) -> None:
        """`adb pull`."""
        try:
            place = self._resolve(path)
            if place.is_dir():
                raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
            file = place.open("rb")
        except OSError as error:
            await self._fail(f"open failed: {error.strerror}")
            return
        with file:
            answer = b""
            while data := file.read(CHUNK_BYTES):
                passing, fault = self._stream.faults.reach("receive_bytes", path, len(data))
                answer += struct.pack("<4sI", b"DATA", passing) + data[:passing]
                if len(answer) > MAXIMUM_BYTES // 2 or fault is not None:
                    await self._write(answer)
                    answer = b""
                if fault is not None:
                    await self._stream.suffer(fault)
            await self._write(answer + struct.pack("<4sI", b"DONE", 0))
