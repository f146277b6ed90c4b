"""A connection pooler that works by transaction: its clients share one session of the server, one after another.

What such poolers do to a session they do here too: settings, prepared statements and LISTEN are everybody's.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit

from .postgres_wire import connect, read_message

_PROTOCOL = 3 << 16
_ENDS_A_BATCH = (b"S", b"Q")  # Sync and Query: the server answers both with ReadyForQuery
_READY = b"Z"
_IDLE = b"I"


@asynccontextmanager
async def pooled_by_transaction(url: str) -> AsyncGenerator[str]:
    """The address of a pooler in front of a Postgres that asks for no password."""
    pooler = _Pooler(url)
    server = await asyncio.start_server(pooler.serve, "127.0.0.1", 0)
    parts = urlsplit(url)
    port = server.sockets[0].getsockname()[1]
    try:
        yield f"postgresql://{parts.username}@127.0.0.1:{port}{parts.path}?sslmode=disable"
    finally:
        server.close()
        await pooler.close()


class _Pooler:
    def __init__(self, url: str) -> None:
        self._url = url
        self._turn = asyncio.Lock()
        self._greeting = b""
        self._writers: list[asyncio.StreamWriter] = []
        self._serving: list[asyncio.Task[None]] = []
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def close(self) -> None:
        for task in self._serving:
            task.cancel()
        for writer in self._writers:
            writer.close()
        await asyncio.wait(self._serving)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        serving = asyncio.current_task()
        assert serving is not None
        self._serving.append(serving)
        with suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            await self._greet(reader, writer)
            batch = b""
            in_transaction = False
            while True:
                kind, message = await read_message(reader)
                if kind == b"X":
                    break
                batch += message
                if kind in _ENDS_A_BATCH:
                    if not in_transaction:
                        await self._turn.acquire()
                    in_transaction = await self._answer(batch, writer)
                    batch = b""
                    if not in_transaction:
                        self._turn.release()
        writer.close()

    async def _greet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            (length,) = struct.unpack("!i", head := await reader.readexactly(4))
            startup = head + await reader.readexactly(length - 4)
            if struct.unpack_from("!i", startup, 4)[0] == _PROTOCOL:
                break
            writer.write(b"N")  # no encryption
        async with self._turn:
            if self._writer is None:
                self._reader, self._writer = await connect(self._url)
                self._writers.append(self._writer)
                self._writer.write(startup)
                self._greeting = (await self._until_ready())[0]
        writer.write(self._greeting)

    async def _answer(self, batch: bytes, client: asyncio.StreamWriter) -> bool:
        """Whether the client is now within a transaction."""
        assert self._writer is not None
        self._writer.write(batch)
        answer, state = await self._until_ready()
        client.write(answer)
        await client.drain()
        return state != _IDLE

    async def _until_ready(self) -> tuple[bytes, bytes]:
        assert self._reader is not None
        answer = b""
        while True:
            kind, message = await read_message(self._reader)
            answer += message
            if kind == _READY:
                return answer, message[5:6]
