"""What browsers may make of an answer: every one says so, once."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from html import unescape

import httpx
import pytest

from outlast.agent import Context, Request
from outlast.api.answer_headers import FOR_BROWSERS
from outlast.shared.settings import Settings
from tests.support.raw_http import Client
from tests.support.service import Service, serving

LIMITS = {name.decode(): value.decode() for name, value in FOR_BROWSERS}


async def echo(request: Request, _context: Context):
    yield request.text


@pytest.fixture
async def service(settings: Settings) -> AsyncGenerator[Service]:
    async with serving(settings, {"echo": echo}) as running:
        yield running


async def test_every_answer_is_data_to_a_browser(service: Service) -> None:
    async with httpx.AsyncClient(base_url=service.url, timeout=20) as http:
        answers = [
            await http.get(path)
            for path in ("/openapi.json", "/v1/responses", "/metrics", "/health", "/nowhere", "/v1/responses/resp_1")
        ]
        answers.append(await http.post("/v1/responses", json={"input": "<script>", "stream": True}))
        answers.append(await http.post("/v1/responses", json={"input": "hi"}))
        answers.append(await http.post("/v1/responses", content=b"{"))
        answers.append(await http.get("/v1/responses", headers={"host": "evil.example"}))
        answers.append(await http.get("/v1/responses", headers={"if-none-match": answers[1].headers["etag"] + ", *"}))
    assert {answer.status_code for answer in answers} == {200, 304, 400, 404, 421}
    for answer in answers:
        for name, value in LIMITS.items():
            assert answer.headers.get_list(name) == [value], (answer.url, name)


async def test_pages_have_their_own_policy_and_no_other(service: Service) -> None:
    async with httpx.AsyncClient(base_url=service.url, timeout=20) as http:
        for path in ("/", "/docs", "/page/main.js"):
            headers = (await http.get(path)).headers
            [policy] = headers.get_list("content-security-policy")
            assert "script-src 'self'" in policy and "frame-ancestors 'none'" in policy
            for name in LIMITS.keys() - {"content-security-policy"}:
                assert headers.get_list(name) == [LIMITS[name]], (path, name)


async def test_what_is_no_http_is_answered_so_too(service: Service) -> None:
    client = await Client.of(service)
    client.writer.write(b"\x16\x03\x01\r\n\r\n")
    head = await client.head()
    for name, value in FOR_BROWSERS:
        assert b"%b: %b\r\n" % (name, value) in head
    client.writer.close()


async def test_the_reference_is_complete_and_loads_nothing_from_elsewhere(service: Service) -> None:
    async with httpx.AsyncClient(base_url=service.url, timeout=20) as http:
        document = (await http.get("/openapi.json")).json()
        text = (await http.get("/docs")).text
        loaded = re.findall(r'(?:src|href)="([^#"][^"]*)"', text)
        assert set(loaded) == {"page/icon.svg", "page/reference.css", "openapi.json", "./"}
        for path in loaded:
            assert (await http.get(f"/{path.removeprefix('./')}")).status_code == 200, path
    assert "<script" not in text and not re.search(r"\s(?:on\w+|style)=", text)
    read = unescape(re.sub(r"<[^>]*>", "", text))
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            assert f"{method.upper()} {path}" in read and operation["summary"] in read
            for parameter in operation.get("parameters", ()):
                assert parameter["name"] in read
    for name in document["components"]["schemas"]["CreateResponse"]["properties"]:
        assert name in read, name
    anchors = re.findall(r'id="([^"]+)"', text)
    assert len(anchors) == len(set(anchors)) and set(re.findall(r'href="#([^"]+)"', text)) <= set(anchors)
