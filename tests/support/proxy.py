"""A network that fails on command: a TCP proxy in front of a server, with a loop and a thread of its own.

So a test may block its own loop, and the processes it waits for still reach the server.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Self, TypeVar
from urllib.parse import parse_qs, quote, urlsplit, urlunsplit

T = TypeVar("T")

_PIECE_BYTES = 65_536
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER of no time at all


class Mode(Enum):
    """What becomes of what comes along."""

    PASS = "pass"
    REFUSE = "refuse"
    """New connections are refused; those that are open go on until they are `cut`."""
    BLACK_HOLE = "black hole"
    """Connections are taken and stay open, and nothing goes either way, until another mode is set."""
    DEAF = "deaf"
    """The same on the way to the server only: it hears nothing."""
    MUTE = "mute"
    """The same on the way back only: the server does what it is told, and its answers do not come."""


_CLOSE_PAUSE_SECONDS = 0.02
TO_SERVER = (Mode.BLACK_HOLE, Mode.DEAF)
TO_CLIENT = (Mode.BLACK_HOLE, Mode.MUTE)

Watch = Callable[[bytes], bool]
"""Sees what goes to the server on one connection, piece by piece. True: the answer to this piece is to be lost."""


@dataclass(eq=False)
class _Link:
    """One connection through the proxy."""

    client: asyncio.StreamWriter
    watch: Watch | None
    server: asyncio.StreamWriter | None = None
    loses_answer: bool = False
    frozen: bool = False
    tasks: set[asyncio.Task[None]] = field(default_factory=set[asyncio.Task[None]])

    def reset(self) -> None:
        """Both ends see their connection reset."""
        for writer in (self.client, self.server):
            if writer is not None:
                with suppress(OSError):
                    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
                writer.transport.abort()


class Proxy:
    """``with Proxy(url) as proxy`` (or ``async with``): reach the server at ``proxy.url``, and break the way to it.

    ``url`` is a Postgres or Redis address, over TCP or a Unix socket.
    """

    def __init__(self, url: str) -> None:
        self._server_url = url
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._listener: asyncio.Server | None = None
        self._links: set[_Link] = set()
        self._mode = Mode.PASS
        self._mode_changed = asyncio.Event()
        self._answers_lost = 0
        self.delay_seconds = 0.0
        """Every piece comes so much later, either way."""
        self.watch: Callable[[], Watch] | None = None
        """Makes a `Watch` for each new connection. A connection whose answer is lost is reset when that comes."""
        # Bound to the end: while the proxy refuses, no other socket of the machine may be given its port.
        self._reserved = socket.socket()
        self._reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._reserved.bind(("127.0.0.1", 0))
        self.port: int = self._reserved.getsockname()[1]

    # -- from the test, in any thread ----------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        """The server's address, by way of this proxy."""
        parts = urlsplit(self._server_url)
        if parts.scheme == "unix":
            return f"redis://127.0.0.1:{self.port}/{parse_qs(parts.query).get('db', ['0'])[0]}"
        user = parts.netloc.rpartition("@")[0]
        place = f"{user}@127.0.0.1:{self.port}" if user else f"127.0.0.1:{self.port}"
        query = "&".join(f"{k}={quote(v[0])}" for k, v in parse_qs(parts.query).items() if k not in ("host", "port"))
        return urlunsplit((parts.scheme, place, parts.path, query, ""))

    @property
    def mode(self) -> Mode:
        return self._mode

    @mode.setter
    def mode(self, mode: Mode) -> None:
        self._do(self._set_mode(mode))

    @property
    def connections(self) -> int:
        return len(self._links)

    @property
    def answers_lost(self) -> int:
        """How many connections were reset in place of an answer (see `watch`)."""
        return self._answers_lost

    def cut(self) -> int:
        """Reset every connection. Returns how many there were."""
        return self._do(self._cut())

    def freeze(self) -> int:
        """Every connection of now falls silent for good, new ones pass: the peer is gone and has told nobody."""
        return self._do(self._freeze())

    def __enter__(self) -> Self:
        self._thread.start()
        self._do(self._set_mode(Mode.PASS))
        return self

    def __exit__(self, *_: object) -> None:
        self._do(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._reserved.close()

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(self, *_: object) -> None:
        self.__exit__()

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    # -- in the proxy's own thread -------------------------------------------------------------------------------------

    async def _set_mode(self, mode: Mode) -> None:
        self._mode = mode
        if mode is Mode.REFUSE:
            await self._stop_listening()
        elif self._listener is None:
            self._listener = await asyncio.start_server(self._serve, "127.0.0.1", self.port, backlog=1024)
        self._mode_changed.set()
        self._mode_changed = asyncio.Event()

    async def _stop_listening(self) -> None:
        if self._listener is None:
            return
        # A connection that was accepted a moment ago must be there before its server is closed, or asyncio leaks it.
        for listening in self._listener.sockets:
            self._loop.remove_reader(listening.fileno())
        for _ in range(3):
            await asyncio.sleep(0)
        self._listener.close()
        self._listener = None

    async def _cut(self) -> int:
        cut = list(self._links)
        for link in cut:
            link.reset()
            for task in link.tasks:
                task.cancel()
        return len(cut)

    async def _freeze(self) -> int:
        for link in self._links:
            link.frozen = True
        return len(self._links)

    async def _close(self) -> None:
        await self._stop_listening()
        # What has just been accepted is not a link yet: until nothing is under way any more.
        while tasks := asyncio.all_tasks() - {asyncio.current_task()}:
            await self._cut()
            await asyncio.wait(tasks, timeout=_CLOSE_PAUSE_SECONDS)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = _Link(writer, self.watch() if self.watch else None)
        serving = asyncio.current_task()
        assert serving is not None
        link.tasks.add(serving)
        self._links.add(link)
        try:
            await self._held_up(TO_SERVER, link)
            server_reader, link.server = await self._connect()
            there = asyncio.create_task(self._pump(reader, link.server, TO_SERVER, link))
            back = asyncio.create_task(self._pump(server_reader, writer, TO_CLIENT, link))
            link.tasks |= {there, back}
            await asyncio.gather(there, back)
        except (OSError, asyncio.CancelledError):
            link.reset()
        finally:
            for task in link.tasks - {serving}:
                task.cancel()
            self._links.discard(link)
            for end in (link.client, link.server):
                if end is not None:
                    end.close()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        parts = urlsplit(self._server_url)
        query = parse_qs(parts.query)
        if parts.scheme == "unix":
            return await asyncio.open_unix_connection(parts.path)
        if (folder := query.get("host", [""])[0]).startswith("/"):
            return await asyncio.open_unix_connection(f"{folder}/.s.PGSQL.{query.get('port', ['5432'])[0]}")
        port = parts.port or (6379 if parts.scheme.startswith("redis") else 5432)
        return await asyncio.open_connection(parts.hostname, port)

    async def _pump(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, way: tuple[Mode, ...], link: _Link
    ) -> None:
        while piece := await source.read(_PIECE_BYTES):
            if self.delay_seconds:
                await asyncio.sleep(self.delay_seconds)
            await self._held_up(way, link)
            if way is TO_SERVER:
                link.loses_answer |= link.watch is not None and link.watch(piece)
            elif link.loses_answer:
                self._answers_lost += 1
                raise ConnectionResetError
            sink.write(piece)
            await sink.drain()
        with suppress(OSError):
            sink.write_eof()

    async def _held_up(self, way: tuple[Mode, ...], link: _Link) -> None:
        while self._mode in way or link.frozen:
            await self._mode_changed.wait()
