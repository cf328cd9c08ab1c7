"""The phone's `shell:`, `shell,v2:` and `exec:` services: a command's streams over one stream."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

from .daemon import Stream

STDIN, STDOUT, STDERR, EXIT, CLOSE_STDIN = 0, 1, 2, 3, 4
PIECE_BYTES = 32 * 1024

Start = Callable[..., "subprocess.Popen[bytes]"]
"""Starts a command in the phone: start(command, stdin=..., stdout=..., stderr=...)."""


class ShellService:
    """Runs one command as adbd does: its input and output are the two ends of one socket pair.

    With `packets` (shell v2), errors and the exit code come separately; else all is one stream.
    """

    def __init__(self, stream: Stream, command: str, start: Start, *, packets: bool):
        self._stream = stream
        self._command = command
        self._start = start
        self._packets = packets

    async def serve(self) -> None:
        """Run the command to its end; when the stream ends before, hang up on it."""
        own_output, output = socket.socketpair()
        own_errors, errors = socket.socketpair()
        for end in (own_output, own_errors):
            end.setblocking(False)
        with own_output, own_errors:
            with output, errors:
                process = self._start(
                    self._command,
                    stdin=output,
                    stdout=output,
                    stderr=errors if self._packets else output,
                )
            try:
                await self._pass_on(process, own_output, own_errors)
            finally:
                if process.poll() is None:
                    hang_up(process)

    async def _pass_on(
        self, process: subprocess.Popen[bytes], output: socket.socket, errors: socket.socket
    ) -> None:
        async with asyncio.TaskGroup() as group:
            feeding = group.create_task(self._feed(output))
            draining = [
                group.create_task(self._drain(output, STDOUT)),
                group.create_task(self._drain(errors, STDERR)),
            ]
            await asyncio.wait(draining)
            code = await exit_code(process)
            if self._packets:
                await self._send(EXIT, bytes([code]))
            feeding.cancel()

    async def _feed(self, process_input: socket.socket) -> None:
        """Give the command what the client sends."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                if not self._packets:
                    await loop.sock_sendall(process_input, await self._stream.read())
                    continue
                kind, length = struct.unpack("<BI", await self._stream.read_exactly(5))
                data = await self._stream.read_exactly(length)
                if kind == STDIN:
                    await loop.sock_sendall(process_input, data)
                elif kind == CLOSE_STDIN:
                    process_input.shutdown(socket.SHUT_WR)
        except OSError:
            while True:  # the command reads no more; adbd throws the rest away too
                await self._stream.read()

    async def _drain(self, source: socket.socket, kind: int) -> None:
        """Give the client what the command writes."""
        loop = asyncio.get_running_loop()
        faults = self._stream.faults
        line = b""
        while True:
            try:
                data = await loop.sock_recv(source, PIECE_BYTES)
            except ConnectionResetError:
                data = b""
            if kind == STDOUT and (line or faults.changes_output(self._command)):
                *lines, line = (line + data).split(b"\n")
                if not data and line:
                    lines, line = [line], b""
                ending = b"\n" if data else b""
                for each in lines:
                    await self._send(kind, faults.line(self._command, each + ending))
            elif data:
                await self._send(kind, data)
            if not data:
                return

    async def _send(self, kind: int, data: bytes) -> None:
        _, fault = self._stream.faults.reach("shell_output", self._command)
        if fault is not None:
            await self._stream.suffer(fault)
        if self._packets:
            data = struct.pack("<BI", kind, len(data)) + data
        await self._stream.write(data)


async def exit_code(process: subprocess.Popen[bytes]) -> int:
    """Wait for a process, without blocking; a signal's number is added to 128, as adbd does."""
    if process.poll() is None:
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[None] = loop.create_future()
        descriptor = os.pidfd_open(process.pid)
        try:
            loop.add_reader(descriptor, _mark, ended)
            await ended
        finally:
            loop.remove_reader(descriptor)
            os.close(descriptor)
    code = process.wait()
    return 128 - code if code < 0 else code


def _mark(ended: asyncio.Future[None]) -> None:
    if not ended.done():
        ended.set_result(None)


def hang_up(process: subprocess.Popen[bytes]) -> None:
    """Tell the command's shell that its terminal is gone, as adbd does when a link ends.

    What the shell started gets the end of its input, no signal. `process` is what enters the
    phone (nsenter); its one child is the shell.
    """
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    for child in children or [str(process.pid)]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(child), signal.SIGHUP)
