"""Messages between a worker and its children: lines of JSON over a socket pair."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterable
from typing import Any
from uuid import UUID

from outlast.shared.domain.runs import Lease
from outlast.shared.wire import from_json, to_json

_LINE_BYTES = 2**20


class Channel:
    """One end. Sending never waits: messages are few and small, and the other end may be stalled."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def over(cls, end: socket.socket) -> Channel:
        return cls(*await asyncio.open_unix_connection(sock=end, limit=_LINE_BYTES))

    def send(self, kind: str, **fields: Any) -> None:
        """To an end that is gone: nothing happens."""
        if not self._writer.is_closing():
            self._writer.write(to_json({"kind": kind, **fields}).encode() + b"\n")

    async def messages(self) -> AsyncIterator[dict[str, Any]]:
        """Until the other end is closed."""
        try:
            while line := await self._reader.readline():
                if not line.endswith(b"\n"):  # it died in the middle of it
                    return
                yield from_json(line)
        except ConnectionError:
            return

    async def flush(self) -> None:
        try:
            await self._writer.drain()
        except ConnectionError:
            return

    def close(self) -> None:
        self._writer.close()


def leases_to_wire(leases: Iterable[Lease]) -> list[tuple[str, int]]:
    return [(lease.run_id.hex, lease.attempt) for lease in leases]


def leases_from_wire(pairs: Iterable[tuple[str, int]]) -> list[Lease]:
    return [Lease(UUID(hex=run_id), attempt) for run_id, attempt in pairs]
