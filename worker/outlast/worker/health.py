"""A port on which a host asks a worker how it is. Two paths, one answer for each connection, and no web framework.

It listens on all addresses and shows no more than a word and a reason; whoever asks too slowly, too long or too
often is hung up on.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from http import HTTPStatus

from outlast.shared.settings import SettingsError
from outlast.shared.wire import to_json

HOST = "0.0.0.0"
_HEAD_BYTES = 8192
_SECONDS = 5.0  # for a whole exchange
_CONNECTIONS = 100  # at once
_METHODS = (b"GET", b"HEAD")

Check = Callable[[], str | None]
"""What is wrong, in words; None: nothing."""


@asynccontextmanager
async def answering(port: int | None, checks: Mapping[str, Check]) -> AsyncGenerator[None]:
    """Answer on this port, which is closed afterwards; None: nowhere. ``checks`` are by path, as in ``/health``.

    Raises SettingsError when the port cannot be had."""
    if port is None:
        yield
        return
    desk = _Desk(checks)
    try:
        server = await asyncio.start_server(desk.serve, HOST, port, limit=_HEAD_BYTES)
    except OSError as error:
        raise SettingsError(f"OUTLAST_HEALTH_PORT: {HOST}:{port}: {os.strerror(error.errno or 0)}") from None
    try:
        yield
    finally:
        server.close()
        desk.hang_up()


class _Desk:
    def __init__(self, checks: Mapping[str, Check]) -> None:
        self._checks = {path.encode(): check for path, check in checks.items()}
        self._open: dict[asyncio.StreamWriter, None] = {}
        """The oldest first."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._open) >= _CONNECTIONS:
            next(iter(self._open)).transport.abort()  # the host, which asks quickly, is always answered
        self._open[writer] = None
        try:
            with suppress(TimeoutError, ConnectionError, asyncio.IncompleteReadError):
                async with asyncio.timeout(_SECONDS):
                    writer.write(await self._answer(reader))
                    writer.write_eof()
                    await writer.drain()
                    # What it has sent beyond its question is read, or the answer would be lost in a reset connection.
                    while await reader.read(_HEAD_BYTES):
                        pass
        finally:
            self._open.pop(writer, None)
            writer.transport.abort()  # all that matters has been sent

    async def _answer(self, reader: asyncio.StreamReader) -> bytes:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            return _response(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, {"reason": f"more than {_HEAD_BYTES} bytes"})
        match head.split(b"\r\n", 1)[0].split(b" "):
            case [method, target, version] if version.startswith(b"HTTP/1."):
                check = self._checks.get(target.partition(b"?")[0]) if method in _METHODS else None
                return self._checked(check, with_body=method != b"HEAD")
            case _:
                return _response(HTTPStatus.BAD_REQUEST, {"reason": "not a request of HTTP/1"})

    def _checked(self, check: Check | None, *, with_body: bool) -> bytes:
        if check is None:
            return _response(HTTPStatus.NOT_FOUND, {"reason": "GET /health and GET /ready"}, with_body=with_body)
        if reason := check():
            told = {"status": "unhealthy", "reason": reason}
            return _response(HTTPStatus.SERVICE_UNAVAILABLE, told, with_body=with_body)
        return _response(HTTPStatus.OK, {"status": "healthy"}, with_body=with_body)

    def hang_up(self) -> None:
        for writer in self._open:
            writer.transport.abort()


def _response(status: HTTPStatus, told: Mapping[str, str], *, with_body: bool = True) -> bytes:
    body = to_json(told).encode()
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\ncache-control: no-store\r\nconnection: close\r\n\r\n"
    )
    return head.encode() + (body if with_body else b"")
