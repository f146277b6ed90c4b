"""Clients that never come to an end: they are told, and cost neither memory nor a connection for ever."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator

import pytest

from outlast.agent import Context, Request
from outlast.api.bounded_http import MAX_HEAD_BYTES
from outlast.shared.settings import Settings
from tests.support.raw_http import Client
from tests.support.service import Service, gated_by, serving

POST = b"POST /v1/responses HTTP/1.1\r\nHost: localhost\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
ENDLESS: dict[str, tuple[bytes, bytes]] = {
    "a URL": (b"GET /", b"a" * 1000),
    "headers": (POST, b"X: y\r\n" * 200),
    "one header": (POST + b"X: ", b"y" * 1000),
    "a header's name": (POST, b"X" * 1000),
    "an extension of a chunk": (CHUNKED + b"1;", b"x" * 1000),
    "trailers": (CHUNKED + b"0\r\n", b"X: y\r\n" * 200),
}
BODY = b'{"input": "hi"}'


async def hi(_request: Request, _context: Context):
    yield "hi"


@pytest.fixture
async def service(settings: Settings) -> AsyncGenerator[Service]:
    async with serving(settings, {"hi": hi}) as running:
        yield running


async def test_what_has_no_end_is_given_up(service: Service) -> None:
    for name, (start, piece) in ENDLESS.items():
        client = await Client.of(service)
        client.writer.write(start)
        with pytest.raises(ConnectionError):
            for _ in range(20_000):
                client.writer.write(piece)
                await client.writer.drain()
            raise AssertionError(f"{name} may go on for ever")
        client.writer.close()


async def test_a_head_that_is_too_long_is_refused(service: Service) -> None:
    for head in (
        POST + b"X: %b\r\n\r\n" % (b"y" * MAX_HEAD_BYTES),
        b"GET /%b HTTP/1.1\r\n\r\n" % (b"a" * MAX_HEAD_BYTES),
    ):
        client = await Client.of(service)
        client.writer.write(head)
        status, body = await client.answer()
        assert (status, json.loads(body)["error"]["code"]) == (431, "headers_too_large")
        client.writer.close()


async def test_what_is_no_http_gets_an_error_body(service: Service) -> None:
    client = await Client.of(service)
    client.writer.write(b"\x16\x03\x01\r\n\r\n")
    status, body = await client.answer()
    assert (status, json.loads(body)["error"]["code"]) == (400, "invalid_http")
    assert await client.closed() == b""


async def test_a_long_body_in_small_chunks_is_read(service: Service) -> None:
    client = await Client.of(service)
    client.writer.write(CHUNKED)
    for piece in (BODY, *[b" "] * 20_000, b""):
        client.writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
    assert (await client.answer())[0] == 200
    client.writer.write(POST + b"Connection: close\r\nContent-Length: %d\r\n\r\n%b" % (len(BODY), BODY))
    assert (await client.answer())[0] == 200
    assert await client.closed() == b""


async def test_nobody_is_waited_for_for_ever(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("outlast.api.bounded_http.PATIENCE_SECONDS", 0.05)
    whole = POST + b"Content-Length: %d\r\n\r\n%b" % (len(BODY), BODY)
    for sent in (whole[:10], whole[:60], whole[:-1]):
        client = await Client.of(service)
        client.writer.write(sent)
        status, body = await client.answer()
        assert (status, json.loads(body)["error"]["code"]) == (408, "request_timeout")
        assert await client.closed() == b""
    for sent in (b"", b"\r\n"):
        client = await Client.of(service)
        client.writer.write(sent)
        assert await client.closed() == b""


async def test_a_client_that_has_asked_is_answered_however_long_it_takes(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("outlast.api.bounded_http.PATIENCE_SECONDS", 0.05)

    gate = asyncio.Event()
    async with serving(settings, {"gated": gated_by(gate)}) as service:
        client = await Client.of(service)
        client.writer.write(POST + b"Content-Length: %d\r\n\r\n%b" % (len(BODY), BODY))
        silent = await Client.of(service)  # later than the other: it would be its turn first
        assert await silent.closed() == b""
        gate.set()
        assert (await client.answer())[0] == 200
        client.writer.close()
