"""A server that greets as some version of Postgres does, and answers nothing."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress

from .postgres_wire import read_startup

_PROTOCOL = 3 << 16


@asynccontextmanager
async def a_server_of_version(version: str) -> AsyncGenerator[str]:
    """Its address."""
    open_now: set[asyncio.StreamWriter] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        open_now.add(writer)
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while struct.unpack_from("!i", await read_startup(reader), 4)[0] != _PROTOCOL:
                writer.write(b"N")  # no encryption
            writer.write(_greeting(version))
            await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"postgresql://u@127.0.0.1:{server.sockets[0].getsockname()[1]}/name?sslmode=disable"
    finally:
        server.close()
        for writer in open_now:
            writer.close()


def _greeting(version: str) -> bytes:
    settings = {"server_version": version, "client_encoding": "UTF8", "standard_conforming_strings": "on"}
    said = [_message(b"S", f"{name}\0{value}\0".encode()) for name, value in settings.items()]
    welcome, key, ready = _message(b"R", bytes(4)), _message(b"K", bytes(8)), _message(b"Z", b"I")
    return b"".join([welcome, *said, key, ready])


def _message(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("!i", len(body) + 4) + body
