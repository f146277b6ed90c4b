"""A page whose own name starts to lead here is another site still (DNS rebinding)."""

from __future__ import annotations

import httpx
import pytest

from outlast.agent import Context, Request
from outlast.shared.settings import Settings
from tests.support.raw_http import Client
from tests.support.refusals import NOBODY, refused
from tests.support.service import serving

REBOUND = {"host": "evil.example:8000", "origin": "http://evil.example:8000", "sec-fetch-site": "same-origin"}
"""What a browser sends once evil.example leads to 127.0.0.1."""
ASKED = [
    ("GET", "/"), ("GET", "/page/main.js"), ("GET", "/v1/responses"), ("GET", f"/v1/responses/{NOBODY}"),
    ("POST", "/v1/responses"), ("POST", "/invocations"), ("GET", "/admin/runs"), ("POST", "/admin/runs/cancel"),
    ("POST", "/admin/workers/w/drain"), ("GET", "/metrics"), ("GET", "/openapi.json"), ("GET", "/nowhere"),
    ("OPTIONS", "/v1/responses"), ("HEAD", "/v1/models"),
]  # fmt: skip


async def echo(request: Request, _context: Context):
    yield request.text


def http_to(url: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=url, timeout=20)


@pytest.mark.parametrize("auth", [None, "none", "databricks"])
async def test_another_name_than_loopbacks_is_refused_on_every_route(settings: Settings, auth: str | None) -> None:
    ours = settings.model_copy(update={"auth": auth})
    async with serving(ours, {"echo": echo}) as service, http_to(service.url) as http:
        for method, path in ASKED:
            answer = await http.request(
                method, path, headers=REBOUND, json={"input": "hi"} if method == "POST" else None
            )
            assert answer.status_code == 421, (method, path)
            if method != "HEAD":
                message = refused(answer, 421, param="Host", code="host_not_allowed")
                assert "evil.example" in message and "OUTLAST_ALLOWED_HOSTS" in message
        for path in ("/health", "/ready"):
            assert (await http.get(path, headers=REBOUND)).status_code == 200


async def test_loopback_has_many_names(settings: Settings) -> None:
    async with serving(settings, {"echo": echo}) as service, http_to(service.url) as http:
        for host in ("localhost", "LOCALHOST:1", "outlast.localhost:80", "127.0.0.1", "127.9.9.9:9", "[::1]:8000"):
            answer = await http.post("/v1/responses", json={"input": "hi"}, headers={"host": host})
            assert answer.status_code == 200, host
        for host in ("169.254.169.254", "10.0.0.1", "localhost.evil.example", "a b", "", "[::2]", "ä"):
            refused(await http.get("/models", headers={"host": host.encode()}), 421, param="Host")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "head", [b"GET /models HTTP/1.0\r\n", b"GET /models HTTP/1.1\r\nHost: localhost\r\nHost: evil\r\n"]
)
async def test_exactly_one_host_is_needed(settings: Settings, head: bytes) -> None:
    async with serving(settings, {"echo": echo}) as service:
        client = await Client.of(service)
        client.writer.write(head + b"\r\n")
        status, body = await client.answer()
        assert status == 421 and b"OUTLAST_ALLOWED_HOSTS" in body
        client.writer.close()


async def test_a_proxys_names_are_a_setting(settings: Settings) -> None:
    named = settings.model_copy(update={"allowed_hosts": ("outlast.example", "*.apps.example")})
    async with serving(named, {"echo": echo}) as service, http_to(service.url) as http:
        for host in ("outlast.example", "Outlast.Example:443", "a.apps.example", "localhost"):
            assert (await http.get("/models", headers={"host": host})).status_code == 200, host
        refused(await http.get("/models", headers=REBOUND), 421, param="Host", code="host_not_allowed")


async def test_with_keys_a_page_has_none_and_any_name_will_do(settings: Settings) -> None:
    keyed = settings.model_copy(update={"auth": "api_keys", "allowed_hosts": ("outlast.example",)})
    async with serving(keyed, {"echo": echo}) as service, http_to(service.url) as http:
        refused(await http.get("/models", headers=REBOUND), 401, code="invalid_api_key")


async def test_a_server_that_others_reach_checks_the_names_that_it_is_given(settings: Settings) -> None:
    async with serving(settings, {"echo": echo}, on_loopback=False) as service, http_to(service.url) as http:
        assert (await http.get("/models", headers=REBOUND)).status_code == 200
    named = settings.model_copy(update={"allowed_hosts": ("localhost",)})
    async with serving(named, {"echo": echo}, on_loopback=False) as service, http_to(service.url) as http:
        refused(await http.get("/models", headers=REBOUND), 421, param="Host")
        assert (await http.get("/models")).status_code == 200
