"""Bodies: read after the caller is known, by one function, within one limit, and never for long at a time."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncGenerator

import httpx
import pytest
from fastapi.routing import iter_route_contexts

from outlast.agent import Context, Request
from outlast.api import bodies
from outlast.api.app import create_app
from outlast.shared.connections import Database
from outlast.shared.domain.keys import Scope
from outlast.shared.settings import Settings
from tests.support.keys import a_key, bearer
from tests.support.raw_http import Client
from tests.support.refusals import NOBODY, refused
from tests.support.service import Service, serving

BULK = ("/admin/runs/cancel", "/admin/runs/retry")
HUGE = 600 * 2**20


async def echo(request: Request, _context: Context):
    yield str(len(request.text))


@pytest.fixture
async def service(settings: Settings) -> AsyncGenerator[Service]:
    async with serving(settings.model_copy(update={"auth": "api_keys"}), {"echo": echo}) as running:
        yield running


@pytest.fixture
async def http(service: Service) -> AsyncGenerator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=service.url, timeout=30) as client:
        yield client


def routes(settings: Settings) -> list[tuple[str, str]]:
    app = create_app(settings.model_copy(update={"agents": {"echo": "tests:echo"}}))
    known = [
        (method, (route.path or "").replace("{id}", NOBODY).replace("{owner}", "h:1:x"))
        for route in iter_route_contexts(app.routes)
        for method in route.methods or ()
    ]
    assert len(known) > 20
    return [*known, ("POST", "/nowhere"), ("PUT", "/v1/responses"), ("DELETE", "/health"), ("OPTIONS", "/")]


@pytest.mark.parametrize("chunked", [False, True])
async def test_without_a_key_no_route_waits_for_a_body(service: Service, settings: Settings, chunked: bool) -> None:
    framing = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % HUGE
    piece = b"[" * 100_000
    for method, path in routes(settings):
        client = await Client.of(service)
        client.writer.write(f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n".encode() + framing + b"\r\n\r\n")
        client.writer.write(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
        status = int((await client.head()).split()[1])
        assert status in (200, 401, 404, 405), (method, path)
        assert status == 401 or not path.startswith(("/admin", "/responses", "/invocations")) or method == "PUT"
        client.writer.close()


async def test_a_body_is_not_asked_for_before_the_key_is_seen(service: Service) -> None:
    for path in ("/v1/responses", *BULK):
        client = await Client.of(service)
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: {HUGE}"
        client.writer.write(f"{head}\r\n\r\n".encode())
        assert (await client.head()).startswith(b"HTTP/1.1 401 "), path
        client.writer.close()


def test_no_route_has_fastapi_read_a_body(settings: Settings) -> None:
    app = create_app(settings.model_copy(update={"agents": {"echo": "tests:echo"}}))
    for route in iter_route_contexts(app.routes):
        assert getattr(route.original_route, "body_field", None) is None, route.path


async def test_operators_bodies_are_looked_at_after_their_key(http: httpx.AsyncClient, database: Database) -> None:
    plain, admin = bearer(await a_key(database, "bob")), bearer(await a_key(database, "root", Scope.ADMIN))
    for path in BULK:
        for body in (b"{bad", b"", b"[" * 100_000):
            refused(await http.post(path, content=body), 401, code="invalid_api_key")
            refused(await http.post(path, content=body, headers=plain), 403, code="insufficient_scope")
        for body in (b"{bad", b" ", b"[" * 60_000, b'{"agent": "\xff"}'):
            refused(await http.post(path, content=body, headers=admin), 400, code="invalid_json")
        refused(await http.post(path, content=b"[]", headers=admin), 400, code="invalid_value")
        refused(await http.post(path, content=b" " * 65_537, headers=admin), 413, code="request_too_large")


async def test_json_that_takes_long_is_refused_before_it_is_read(http: httpx.AsyncClient, database: Database) -> None:
    """No thread would help: the parser does not let others run."""
    key = bearer(await a_key(database, "alice"))
    size = 16_000_000
    hostile = {
        "lists": b"[" + b"[]," * (size // 3) + b"[]]",
        "deep lists": b"[" + b",".join([b"[" * 250 + b"]" * 250] * (size // 501)) + b"]",
        "objects": b'{"input":[' + b"{}," * (size // 3) + b"{}]}",
        "texts": b"[" + b'"a",' * (size // 4) + b'""]',
        "depth": b"[" * size,
        "escaped": b"[" + b'"\\\\\\"",' * (size // 7) + b'""]',
    }
    for name, body in hostile.items():
        began = time.process_time()
        refused(await http.post("/v1/responses", content=body, headers=key), 413, code="request_too_large")
        assert time.process_time() - began < 5, name
    refused(await http.post("/v1/responses", content=b"[" * 900_000, headers=key), 400, code="invalid_json")


async def test_a_text_may_hold_any_number_of_commas(http: httpx.AsyncClient, database: Database) -> None:
    key = bearer(await a_key(database, "alice"))
    text = '1,[{"\\",' * 1_000_000
    answer = await http.post("/v1/responses", content=json.dumps({"input": text}), headers=key)
    assert answer.status_code == 200, answer.text
    assert answer.json()["output"][0]["content"][0]["text"] == str(len(text))


def test_values_are_counted_where_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "MAX_JSON_VALUES", 5)
    for few in (
        b"[1,2,3,4]",
        b'"1,2,3,4,5,6,7,8,9"',
        b'["\\"", ",,,,,,,,,,"]',
        b'["\\\\", ",,,,", 1, 2]',
        b"[[[[0]]]]",
    ):
        assert not bodies._has_too_many_values(few), few
    for many in (b"[1,2,3,4,5,6]", b"[[],[],[],[]]", b'{"a":1,"b":2,"c":3,"d":4,"e":5}', b'["\\"",1,2,3,4,",",5]'):
        assert bodies._has_too_many_values(many), many
