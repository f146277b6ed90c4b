"""As little of an HTTP client as a load needs, so that the load does not measure itself."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Self, cast

_STAMP = re.compile(rb'"delta":"@(\d+);')  # of the agent `tick`; the text appears again, whole, in later events
_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)", re.IGNORECASE)


class Connection(asyncio.Protocol):
    """One kept-alive connection; one request at a time. An answer's body is known by its length."""

    def __init__(self) -> None:
        self._received = b""
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None

    @classmethod
    @asynccontextmanager
    async def open(cls, port: int) -> AsyncGenerator[Self]:
        transport, connection = await asyncio.get_running_loop().create_connection(cls, "127.0.0.1", port)
        try:
            yield connection
        finally:
            transport.close()

    async def get(self, path: str) -> tuple[int, bytes]:
        """The status and the body."""
        return await self._ask(f"GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n".encode())

    async def post(self, path: str, body: bytes) -> tuple[int, bytes]:
        """The status and the body."""
        head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        return await self._ask(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)

    async def _ask(self, request: bytes) -> tuple[int, bytes]:
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._answer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, found, body = self._received.partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        if found and self._answer is not None and len(body) >= (int(length[1]) if length else 0):
            self._received = b""
            self._answer.set_result((int(head[9:12]), body))

    def connection_lost(self, exc: Exception | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(ConnectionResetError("the server closed the connection"))


class Stream(asyncio.Protocol):
    """One stream of events, of which nothing is kept: ``seen`` is called with each whole piece of it."""

    def __init__(self, path: str, seen: Callable[[bytes], None]) -> None:
        self._request = f"GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n".encode()
        self._seen = seen
        self._rest = b""
        self.began = asyncio.Event()
        self.ended = asyncio.Event()

    @classmethod
    async def open(cls, port: int, path: str, seen: Callable[[bytes], None]) -> Self:
        loop = asyncio.get_running_loop()
        _, stream = await loop.create_connection(lambda: cls(path, seen), "127.0.0.1", port)
        return stream

    def close(self) -> None:
        self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self.began.set()
        whole, end, self._rest = (self._rest + data).rpartition(b"\n\n")
        if end:
            self._seen(whole)
        if b"data: [DONE]" in whole:
            self.ended.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended.set()


class Delays:
    """How old the words of `tick` are when they are seen, in seconds, while it is open."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.counting = False

    def see(self, piece: bytes) -> None:
        if self.counting:
            now = time.monotonic_ns()  # of all processes of this machine the same clock
            self.seconds += [(now - int(stamp)) / 1e9 for stamp in _STAMP.findall(piece)]
