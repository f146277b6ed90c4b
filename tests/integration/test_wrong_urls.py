"""Ids, queries, methods and addresses that mean nothing: OpenAI's error body, and nothing taken at its word."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import httpx
import pytest

from outlast.agent import Context, Request
from outlast.shared.settings import Settings
from tests.support.refusals import NOBODY, refused
from tests.support.service import serving


async def silent(_request: Request, _context: Context):
    yield ""


@pytest.fixture
async def http(settings: Settings) -> AsyncGenerator[httpx.AsyncClient]:
    async with (
        serving(settings, {"silent": silent}) as service,
        httpx.AsyncClient(base_url=service.url, timeout=20) as client,
    ):
        yield client


IDS: dict[str, str] = {
    "of nobody": NOBODY,
    "in capitals": f"resp_{0xABC:032X}",
    "without its prefix": "0" * 32,
    "of another kind": "msg_" + "0" * 32,
    "too short": "resp_1",
    "not hexadecimal": "resp_" + "g" * 32,
    "with digits of another script": "resp_" + "%D9%A1" * 32,
    "with underscores": "resp_0_" + "0" * 30,
    "very long": "resp_" + "0" * 10_000,
    "with a NUL": "resp_%00" + "0" * 31,
    "with line ends": "resp_1%0d%0aset-cookie:%20a=b%0d%0a%0d%0a<html>",
    "that is no UTF-8": "resp_%ff%fe",
    "that is SQL": "resp_1'%20OR%20'1'='1",
    "that is a path": "..%5c..%5cetc%5cpasswd",
    "that is a template": "{{7*7}}${7*7}%25s",
    "with spaces": "%20",
    "with a surrogate": "resp_%ed%a0%80",
}


async def test_an_unknown_id_is_not_found_on_every_route(http: httpx.AsyncClient) -> None:
    for name, given in IDS.items():
        for method, path in (
            ("GET", "/v1/responses/{}"),
            ("GET", "/v1/responses/{}?stream=true&starting_after=3&ids=true"),
            ("GET", "/responses/{}?wait=300"),
            ("POST", "/v1/responses/{}/cancel"),
            ("DELETE", "/v1/responses/{}"),
        ):
            answer = await http.request(method, path.format(given))
            assert "not found" in refused(answer, 404, param="id", code="response_not_found"), (name, method, path)
            assert "set-cookie" not in answer.headers, name


ADDRESSES = [
    "/v1", "/v2/responses", "/page", "/page/", "/page/..%2fapp.py", "/page/nothing.js",
    "/v1/response", "/v1/responses/a/b", "/v1/responses/a/cancel/b", "/.env",
    "/%00", "/%ff", "/..%2f", "/" + "x" * 10_000, "/v1/responses%00", "/v1/responses/..%2f..%2fetc", "/favicon.ico",
]  # fmt: skip


async def test_an_unknown_address_is_named(http: httpx.AsyncClient) -> None:
    for address in ADDRESSES:
        for method in ("GET", "POST"):
            assert "Unknown request URL" in refused(await http.request(method, address), 404, code="unknown_url")


WRONG_METHODS = [
    ("DELETE", "/v1/responses"), ("POST", "/"),
    ("PUT", "/v1/responses"), ("PATCH", "/invocations"), ("POST", f"/v1/responses/{NOBODY}"),
    ("GET", f"/v1/responses/{NOBODY}/cancel"), ("DELETE", "/v1/models"), ("POST", "/health"), ("OPTIONS", "/metrics"),
    ("PROPFIND", "/responses"),
]  # fmt: skip


async def test_a_wrong_method_is_named(http: httpx.AsyncClient) -> None:
    for method, path in WRONG_METHODS:
        answer = await http.request(method, path)
        assert path in refused(answer, 405, code="method_not_allowed"), (method, path)
        assert method not in answer.headers["allow"]


async def test_a_wrong_method_is_told_all_that_the_path_has(http: httpx.AsyncClient) -> None:
    for path, methods in {
        "/v1/responses": "GET, POST", f"/responses/{NOBODY}": "DELETE, GET", "/health": "GET, HEAD",
        "/invocations": "POST", "/admin/runs/cancel": "POST", "/": "GET, HEAD",
    }.items():  # fmt: skip
        assert (await http.request("OPTIONS", path)).headers["allow"] == methods, path


WRONG_QUERIES: dict[str, list[str]] = {
    "stream": ["maybe", "2", "", "%00"],
    "ids": ["maybe"],
    "starting_after": ["-1", "-2147483649", "1.5", "one", "", "%00", "2147483648", "9" * 5000, "1e3", "NaN"],
    "wait": ["-1", "301", "one", "", "nan", "inf", "-inf", "1e400"],
}


async def test_a_query_that_means_nothing_is_named(http: httpx.AsyncClient) -> None:
    response_id = (await http.post("/v1/responses", json={"input": "hi"})).json()["id"]
    for param, values in WRONG_QUERIES.items():
        for value in values:
            answer = await http.get(f"/v1/responses/{response_id}?{param}={value}")
            assert param in refused(answer, 400, param=param, code="invalid_value"), (param, value)


async def test_a_cursor_is_for_streams_but_0_is_let_pass(http: httpx.AsyncClient) -> None:
    response_id = (await http.post("/v1/responses", json={"input": "hi"})).json()["id"]

    answer = await http.get(f"/v1/responses/{response_id}?starting_after=1")
    assert refused(answer, 400, param="starting_after") == "starting_after is only supported when stream=true."
    assert (await http.get(f"/v1/responses/{response_id}?starting_after=0")).json()["id"] == response_id


async def test_a_query_that_nobody_knows_is_ignored(http: httpx.AsyncClient) -> None:
    response_id = (await http.post("/v1/responses?api-version=preview", json={"input": "hi"})).json()["id"]
    assert (await http.get(f"/v1/responses/{response_id}?include[]=x&%00=1")).json()["id"] == response_id
