"""What stands before a Lakebase database: TLS only, a password that is a credential of the workspace, then the bytes.

It authenticates the client itself, then logs in as that role to a Postgres which asks for no password, and from there
on passes everything through. It has a thread and an event loop of its own.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from .certificate import server_context
from .postgres_wire import CHUNK, Refusal, connect, error, read_message, read_startup

_TLS, _GSS, _CANCEL, _PROTOCOL_MAJOR = 80877103, 80877104, 80877102, 3
_GONE = (ConnectionError, asyncio.IncompleteReadError, OSError)


@dataclass(frozen=True)
class Login:
    """One try to log in, with the password it used."""

    host: str
    role: str
    password: str = field(repr=False)
    refused: str | None
    """Why; None when it was let in."""
    at: float
    """Seconds since the epoch."""
    application: str = ""


class Front:
    """``judge`` says why a login (address, role, password) is refused, if it is."""

    def __init__(self, url: str, hosts: list[str], judge: Callable[[str, str, str], Refusal | None]) -> None:
        self.logins: list[Login] = []
        self.plaintext = 0
        """How many connections have asked for no TLS, and were refused."""
        self.cancels = 0
        """How many statements clients have asked to cancel."""
        self._url = url
        self._judge = judge
        self._listeners = [_listener(hosts[0], 0)]
        self.port: int = self._listeners[0].getsockname()[1]
        self._listeners += [_listener(host, self.port) for host in hosts[1:]]
        self._open: set[asyncio.StreamWriter] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._wake_seconds: float | None = None
        self._refuses_while_waking = False
        self._awake_at: float | None = None
        self.on_waking: Callable[[], None] = lambda: None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        for listener in self._listeners:
            self._call(self._start(self._accept(listener)))

    @property
    def accepted(self) -> list[Login]:
        return [login for login in self.logins if login.refused is None]

    @property
    def refused(self) -> list[Login]:
        return [login for login in self.logins if login.refused is not None]

    @property
    def connections(self) -> int:
        """How many clients are logged in now."""
        return len(self._open) // 2

    def drop(self) -> None:
        """Break all connections off."""
        self._call(self._drop())

    def suspend(self, *, wake_seconds: float, refusing: bool = False) -> None:
        """Break all connections off. The next one wakes the database: it waits so long, or is refused meanwhile."""
        self._wake_seconds, self._refuses_while_waking, self._awake_at = wake_seconds, refusing, None
        self.drop()

    def close(self) -> None:
        self._call(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _call(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _drop(self) -> None:
        for writer in list(self._open):
            writer.transport.abort()

    async def _close(self) -> None:
        """Returns when no socket is left."""
        current = asyncio.current_task()
        tasks = [task for task in self._tasks if task is not current]
        writers = list(self._writers)
        for writer in writers:
            writer.transport.abort()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await asyncio.gather(*(writer.wait_closed() for writer in writers), return_exceptions=True)
        await self._loop.shutdown_default_executor()
        for listener in self._listeners:
            listener.close()

    async def _closed(self, *writers: asyncio.StreamWriter) -> None:
        for writer in writers:
            writer.close()
        for writer in writers:
            with suppress(*_GONE):
                await writer.wait_closed()
            self._writers.discard(writer)

    async def _accept(self, listener: socket.socket) -> None:
        host = listener.getsockname()[0]
        while True:
            client, _ = await self._loop.sock_accept(listener)
            client.setblocking(False)
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await self._start(self._serve(client, host))

    async def _serve(self, client: socket.socket, host: str) -> None:
        with suppress(*_GONE):
            if not await self._wants_tls(client):
                return
            reader, writer = await self._encrypted(client)
            try:
                await self._session(reader, writer, host)
            finally:
                await self._closed(writer)

    async def _wants_tls(self, client: socket.socket) -> bool:
        """Whether TLS comes next on the socket; else it has been served, and is closed."""
        wants = False
        try:
            while (code := (head := await self._first(client))[1]) == _GSS:
                await self._loop.sock_sendall(client, b"N")
            wants = code == _TLS
            if wants:
                await self._loop.sock_sendall(client, b"S")
            elif code == _CANCEL:
                await self._cancel(head[0])
            else:
                self.plaintext += 1
                text = "connection is insecure: SSL/TLS is required"
                await self._loop.sock_sendall(client, error(Refusal("28000", text, "plaintext")))
            return wants
        finally:
            if not wants:
                client.close()

    async def _first(self, client: socket.socket) -> tuple[bytes, int]:
        """A message without a type: all of it, and its code."""
        head = await self._exactly(client, 8)
        length, code = struct.unpack("!ii", head)
        return head + await self._exactly(client, length - 8), code

    async def _exactly(self, client: socket.socket, count: int) -> bytes:
        data = b""
        while len(data) < count:
            more = await self._loop.sock_recv(client, count - len(data))
            if not more:
                raise ConnectionResetError
            data += more
        return data

    async def _encrypted(self, client: socket.socket) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader = asyncio.StreamReader(limit=CHUNK)
        protocol = asyncio.StreamReaderProtocol(reader)
        transport, _ = await self._loop.connect_accepted_socket(lambda: protocol, client, ssl=server_context())
        writer = asyncio.StreamWriter(transport, protocol, reader, self._loop)
        self._writers.add(writer)
        return reader, writer

    async def _session(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str) -> None:
        startup = await read_startup(reader)
        code = struct.unpack_from("!i", startup, 4)[0]
        if code == _CANCEL:
            await self._cancel(startup)
            return
        assert code >> 16 == _PROTOCOL_MAJOR, code
        fields = startup[8:].split(b"\0")
        given = {name.decode(): value.decode() for name, value in zip(fields[::2], fields[1::2], strict=False)}
        writer.write(b"R" + struct.pack("!ii", 8, 3))  # the password, in the clear
        kind, answer = await read_message(reader)
        if kind != b"p":
            return
        refusal = await self._admission(host, given, answer[5:].rstrip(b"\0").decode())
        if refusal is not None:
            writer.write(error(refusal))
            await writer.drain()
            return
        upstream_reader, upstream = await self._upstream()
        self._open |= {writer, upstream}
        try:
            upstream.write(startup)
            await _until_first(_pump(reader, upstream), _pump(upstream_reader, writer))
        finally:
            self._open -= {writer, upstream}
            await self._closed(upstream)

    async def _admission(self, host: str, given: dict[str, str], password: str) -> Refusal | None:
        role = given.get("user", "")
        refusal = self._judge(host, role, password)
        reason = refusal.reason if refusal else None
        self.logins.append(Login(host, role, password, reason, time.time(), given.get("application_name", "")))
        return refusal or await self._awake()

    async def _awake(self) -> Refusal | None:
        """Waits until the database has woken up, if it is asleep."""
        if self._wake_seconds is None:
            return None
        now = self._loop.time()
        if self._awake_at is None:
            self._awake_at = now + self._wake_seconds
            self._loop.call_at(self._awake_at, self._woken)
        if self._refuses_while_waking and now < self._awake_at:
            return Refusal("57P03", "the database system is starting up", "waking")
        await asyncio.sleep(self._awake_at - now)
        return None

    def _woken(self) -> None:
        self._wake_seconds = None
        self.on_waking()

    async def _cancel(self, message: bytes) -> None:
        self.cancels += 1
        reader, writer = await self._upstream()
        writer.write(message)
        await reader.read()
        await self._closed(writer)

    async def _upstream(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await connect(self._url)
        self._writers.add(writer)
        return reader, writer


def _listener(host: str, port: int) -> socket.socket:
    listener = socket.create_server((host, port), backlog=512)
    listener.setblocking(False)
    return listener


async def _until_first(*pumps: Coroutine[Any, Any, None]) -> None:
    """Until one direction has ended; what has arrived for the other one is still written."""
    tasks = [asyncio.ensure_future(pump) for pump in pumps]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(*_GONE):
        while data := await reader.read(CHUNK):
            writer.write(data)
            await writer.drain()
