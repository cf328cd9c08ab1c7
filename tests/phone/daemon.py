"""A small adb daemon: the phone's end of the protocol that the real adb client speaks over TCP.

Packets are a 24-byte header and a payload. The client opens streams, each for one service; on a
stream one packet at a time is under way in each direction: WRTE, answered by OKAY.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import secrets
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import Literal, NoReturn

from .faults import CutAt, Faults, StallAt

HEADER = struct.Struct("<6I")
CNXN, AUTH, OPEN, OKAY, WRTE, CLSE = (
    int.from_bytes(name, "little")
    for name in (b"CNXN", b"AUTH", b"OPEN", b"OKAY", b"WRTE", b"CLSE")
)
VERSION = 0x01000001
MAXIMUM_BYTES = 256 * 1024
FEATURES = "shell_v2,stat_v2,ls_v2,fixed_push_mkdir,fixed_push_symlink_timestamp"
AUTH_TOKEN, AUTH_PUBLIC_KEY = 1, 3

Reach = Literal["device", "unauthorized", "stalled"]
"""How the phone answers a client: properly, never letting it in, or with silence."""


class LinkEndedError(Exception):
    """The connection, or this stream of it, is over."""


class Stream:
    """One opened service: bytes both ways, with the protocol's flow control."""

    def __init__(self, connection: Connection, own: int, theirs: int, service: str):
        self.connection = connection
        self.own, self.theirs = own, theirs
        self.service = service
        self.faults = connection.daemon.faults
        self._incoming: asyncio.Queue[bytes] = asyncio.Queue()
        self._left = b""
        self._owes_okay = False
        self._may_write = asyncio.Event()
        self._may_write.set()
        self._writing = asyncio.Lock()

    async def send(self, command: int, data: bytes = b"") -> None:
        """Send one packet of this stream."""
        await self.connection.send(command, self.own, self.theirs, data, self.service)

    async def write(self, data: bytes) -> None:
        """Send bytes; each packet waits until the one before was answered."""
        async with self._writing:
            for start in range(0, len(data), self.connection.maximum_bytes):
                await self._may_write.wait()
                self._may_write.clear()
                await self.send(WRTE, data[start : start + self.connection.maximum_bytes])

    async def read(self) -> bytes:
        """The next piece. Asking for it tells the client that the one before was used."""
        if self._left:
            left, self._left = self._left, b""
            return left
        if self._owes_okay:
            self._owes_okay = False
            await self.send(OKAY)
        data = await self._incoming.get()
        self._owes_okay = True
        return data

    async def read_exactly(self, count: int) -> bytes:
        """So many bytes."""
        parts, missing = [], count
        while missing:
            data = await self.read()
            parts.append(data[:missing])
            self._left = data[missing:]
            missing -= len(parts[-1])
        return b"".join(parts)

    async def suffer(self, fault: CutAt | StallAt) -> NoReturn:
        """Let a fault happen that is due here."""
        await self.connection.suffer(fault)

    def put(self, data: bytes) -> None:
        """Bytes that came from the client."""
        self._incoming.put_nowait(data)

    def allow(self) -> None:
        """The client answered the last packet."""
        self._may_write.set()


Service = Callable[[Stream], Awaitable[None]]


class Daemon:
    """Listens on a port of 127.0.0.1 and serves the streams of every client that connects.

    `service_of` gives what serves a service's name, or None for one that the phone hasn't.
    `banner` are the properties that the client is told at the start.
    """

    def __init__(
        self,
        service_of: Callable[[str], Service | None],
        faults: Faults,
        banner: dict[str, str],
    ):
        self.service_of = service_of
        self.faults = faults
        self.banner = banner
        self.reach: Reach = "device"
        self.port = 0
        self._server: asyncio.Server | None = None
        self._connections: set[Connection] = set()
        self.services: set[asyncio.Task[None]] = set()
        self.problems: list[Exception] = []

    async def listen(self) -> None:
        """Be reachable; on the same port as before, if there was one."""
        if self._server is None:
            self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
            self.port = self._server.sockets[0].getsockname()[1]

    def vanish(self) -> None:
        """Reset all connections and refuse new ones, until `listen`."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for connection in list(self._connections):
            connection.reset()

    async def settle(self) -> None:
        """After `vanish`: wait until the services know it, and have hung up on their commands."""
        if self.services:
            await asyncio.wait(self.services, timeout=10)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = Connection(self, reader, writer)
        self._connections.add(connection)
        try:
            await connection.serve()
        except (LinkEndedError, OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            connection.reset()
        finally:
            self._connections.discard(connection)


class Connection:
    """One client, which is the adb server of one host."""

    def __init__(self, daemon: Daemon, reader: asyncio.StreamReader, writer: asyncio.StreamWriter):
        self.daemon = daemon
        self.maximum_bytes = MAXIMUM_BYTES
        self._reader, self._writer = reader, writer
        self._identifiers = itertools.count(1)
        self._streams: dict[int, Stream] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._stalled = False
        self._serving: asyncio.Task[None] | None = None

    async def serve(self) -> None:
        """Read packets until the client goes or the link breaks."""
        self._serving = asyncio.current_task()
        while True:
            header = await self._reader.readexactly(HEADER.size)
            command, first, second, length, _, magic = HEADER.unpack(header)
            if magic != command ^ 0xFFFFFFFF or length > 1 << 20:
                raise LinkEndedError("what came is no packet")
            data = await self._reader.readexactly(length)
            if self.daemon.reach == "stalled":
                await self.stall()
            await self._handle(command, first, second, data)

    async def send(
        self, command: int, first: int, second: int, data: bytes = b"", service: str = ""
    ) -> None:
        """Send one packet, unless a fault is due."""
        await self._position("packet", service)
        if self._stalled:
            await self.stall()
        checksum = sum(data) if command in (CNXN, AUTH) else 0
        magic = command ^ 0xFFFFFFFF
        header = HEADER.pack(command, first, second, len(data), checksum & 0xFFFFFFFF, magic)
        self._writer.write(header + data)
        await self._writer.drain()

    async def suffer(self, fault: CutAt | StallAt) -> NoReturn:
        """Let a fault happen to the link."""
        if isinstance(fault, StallAt):
            self.daemon.reach = "stalled"
            await self.stall()
        self.daemon.vanish()
        raise LinkEndedError(str(fault))

    async def stall(self) -> NoReturn:
        """Keep the socket open, and do nothing more."""
        self._stalled = True
        await asyncio.get_running_loop().create_future()
        raise LinkEndedError("stalled")

    def reset(self) -> None:
        """Close the socket at once, as if the cable were pulled, and end all services."""
        ending = [self._serving, *self._tasks.values()]
        self._streams.clear()
        self._tasks.clear()
        with contextlib.suppress(OSError):
            self._writer.get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
            )
        self._writer.transport.abort()
        for task in ending:
            if task is not None and task is not asyncio.current_task():
                task.cancel()

    async def _position(self, kind: Literal["open", "packet"], service: str) -> None:
        _, fault = self.daemon.faults.reach(kind, service)
        if fault is not None:
            await self.suffer(fault)

    async def _handle(self, command: int, first: int, second: int, data: bytes) -> None:
        """What a packet from the client asks for; `second` is the stream's number on our side."""
        stream = self._streams.get(second) if command in (OKAY, WRTE, CLSE) else None
        service = data.rstrip(b"\0").decode("utf-8", "surrogateescape")
        named = service if command == OPEN else stream.service if stream else ""
        await self._position("packet", named)
        if command == CNXN:
            await self._greet(second)
        elif command == AUTH and first != AUTH_PUBLIC_KEY:
            await self._ask_for_key()
        elif command == OPEN:
            await self._open(first, service)
        elif command == WRTE and stream:
            stream.put(data)
        elif command == OKAY and stream:
            stream.allow()
        elif command == CLSE and stream:
            await self._close(stream)
            if task := self._tasks.pop(stream.own, None):
                task.cancel()

    async def _greet(self, maximum_bytes: int) -> None:
        if self.daemon.reach == "unauthorized":
            await self._ask_for_key()
            return
        self.maximum_bytes = min(MAXIMUM_BYTES, maximum_bytes)
        told = {**self.daemon.banner, "features": FEATURES}
        text = "device::" + "".join(f"{name}={value};" for name, value in told.items())
        await self.send(CNXN, VERSION, MAXIMUM_BYTES, text.removesuffix(";").encode())

    async def _ask_for_key(self) -> None:
        await self.send(AUTH, AUTH_TOKEN, 0, secrets.token_bytes(20))

    async def _open(self, theirs: int, service: str) -> None:
        await self._position("open", service)
        serve = self.daemon.service_of(service)
        if serve is None:
            await self.send(CLSE, 0, theirs, b"", service)
            return
        stream = Stream(self, next(self._identifiers), theirs, service)
        self._streams[stream.own] = stream
        await stream.send(OKAY)
        task = asyncio.create_task(self._run(stream, serve))
        self._tasks[stream.own] = task
        self.daemon.services.add(task)
        task.add_done_callback(self.daemon.services.discard)

    async def _run(self, stream: Stream, serve: Service) -> None:
        try:
            await serve(stream)
            await self._close(stream)
            self._tasks.pop(stream.own, None)
        except* (LinkEndedError, ConnectionError):
            self.reset()
        except* Exception as group:
            self.daemon.problems.extend(group.exceptions)
            self.reset()

    async def _close(self, stream: Stream) -> None:
        if self._streams.pop(stream.own, None):
            await stream.send(CLSE)
