"""HTTP byte by byte, as no client library sends it."""

from __future__ import annotations

import asyncio

from tests.support.service import Service


class Client:
    """A connection to the first replica, byte by byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer

    @classmethod
    async def of(cls, service: Service) -> Client:
        host, port = service.url.removeprefix("http://").split(":")
        return cls(*await asyncio.open_connection(host, int(port)))

    async def answer(self) -> tuple[int, bytes]:
        head = await self.head()
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        return int(head.split()[1]), await self._reader.readexactly(length)

    async def head(self) -> bytes:
        return await asyncio.wait_for(self._reader.readuntil(b"\r\n\r\n"), 20)

    async def closed(self) -> bytes:
        """What still came before the server hung up."""
        try:
            return await asyncio.wait_for(self._reader.read(), 20)
        finally:
            self.writer.close()
