"""Clients that never come to an end: they are told, and cost neither memory nor a connection for ever."""

from __future__ import annotations

import asyncio
import contextlib
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


# -- what takes too long -----------------------------------------------------------------------------------------------


async def test_a_byte_now_and_then_does_not_hold_a_connection(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("outlast.api.bounded_http.DEADLINE_SECONDS", 0.5)
    dribbled = {
        "a head": (POST, b"x"),
        "a body": (POST + b"Content-Length: 1000000\r\n\r\n", b" "),
        "nothing": (b"", b"\r\n"),
    }
    for name, (start, piece) in dribbled.items():
        client = await Client.of(service)
        client.writer.write(start)
        ended = asyncio.create_task(client.closed())
        for _ in range(2000):  # never silent for long
            if ended.done():
                break
            client.writer.write(piece)
            await asyncio.wait({ended}, timeout=0.01)
        assert ended.done(), f"{name} may go on for ever"
        with contextlib.suppress(ConnectionError):  # what is written to a closed connection resets it
            await ended
    client = await Client.of(service)
    client.writer.write(POST)
    status, body = await client.answer()
    assert status == 408 and "The request did not come within" in json.loads(body)["error"]["message"]
    assert await client.closed() == b""


async def test_a_body_that_comes_after_its_answer_has_an_end(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("outlast.api.bounded_http.MAX_DISCARDED_BYTES", 1_000_000)
    head = b"DELETE /health HTTP/1.1\r\nHost: localhost\r\nContent-Length: 600000000\r\n\r\n"
    client = await Client.of(service)
    client.writer.write(head)
    assert (await client.answer())[0] == 405
    with pytest.raises(ConnectionError):
        for _ in range(20_000):
            client.writer.write(b"x" * 10_000)
            await client.writer.drain()
    client.writer.close()


async def test_a_client_that_has_its_answer_gets_no_other(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("outlast.api.bounded_http.PATIENCE_SECONDS", 0.2)
    client = await Client.of(service)
    client.writer.write(b"DELETE /health HTTP/1.1\r\nHost: localhost\r\nContent-Length: 600000000\r\n\r\n")
    assert (await client.answer())[0] == 405
    client.writer.write(b"x")
    assert await client.closed() == b""


# -- other protocols ---------------------------------------------------------------------------------------------------

UPGRADES = (
    b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABk\r\n",
    b"Upgrade: TLS/1.0, h2c\r\nConnection: keep-alive\r\nConnection: upgrade\r\n",
    b"Upgrade: a\r\nupgrade: b\r\nConnection: Upgrade\r\n",
)


@pytest.mark.parametrize("asked", UPGRADES)
async def test_a_request_that_asks_for_another_protocol_keeps_its_body(service: Service, asked: bytes) -> None:
    head = POST + asked
    sized = head + b"Content-Length: %d\r\n\r\n%b" % (len(BODY), BODY)
    chunked = head + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)
    read = b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n" + asked + b"\r\n"
    client = await Client.of(service)
    for whole in (sized, chunked, read, sized):
        for sent in ([whole], [whole[:-5], whole[-5:]], [whole[n : n + 1] for n in range(len(whole))]):
            for piece in sent:
                client.writer.write(piece)
                await client.writer.drain()
            status, body = await client.answer()
            assert status == 200, body
    client.writer.close()


async def test_many_such_requests_may_come_at_once(service: Service) -> None:
    client = await Client.of(service)
    client.writer.write(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n" * 2000)
    for _ in range(2000):
        assert (await client.answer())[0] == 200
    client.writer.close()


async def test_a_websocket_is_refused_and_a_tunnel_too(service: Service) -> None:
    for path in ("/v1/responses", "/", "/nowhere"):
        client = await Client.of(service)
        client.writer.write(
            f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        assert b" 403 " in await client.head(), path
        client.writer.close()
    client = await Client.of(service)
    client.writer.write(
        b"CONNECT evil.example:443 HTTP/1.1\r\nHost: localhost\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"
    )
    assert (await client.answer())[0] in (400, 404, 405)
    client.writer.close()
