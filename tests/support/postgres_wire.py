"""Postgres' protocol, as far as what stands before a server must understand it."""

from __future__ import annotations

import asyncio
import struct
from dataclasses import dataclass
from urllib.parse import parse_qs, urlsplit

CHUNK = 1 << 18


@dataclass(frozen=True)
class Refusal:
    sqlstate: str
    message: str
    reason: str


async def connect(url: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    parts = urlsplit(url)
    query = parse_qs(parts.query)
    if "host" in query:
        socket_path = f"{query['host'][0]}/.s.PGSQL.{query.get('port', ['5432'])[0]}"
        return await asyncio.open_unix_connection(socket_path, limit=CHUNK)
    return await asyncio.open_connection(parts.hostname, parts.port or 5432, limit=CHUNK)


async def read_startup(reader: asyncio.StreamReader) -> bytes:
    (length,) = struct.unpack("!i", head := await reader.readexactly(4))
    return head + await reader.readexactly(length - 4)


async def read_message(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    head = await reader.readexactly(5)
    (length,) = struct.unpack("!i", head[1:])
    return head[:1], head + await reader.readexactly(length - 4)


def error(refusal: Refusal) -> bytes:
    fields = {"S": "FATAL", "V": "FATAL", "C": refusal.sqlstate, "M": refusal.message}
    body = b"".join(f"{name}{value}\0".encode() for name, value in fields.items()) + b"\0"
    return b"E" + struct.pack("!i", len(body) + 4) + body
