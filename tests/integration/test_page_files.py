"""The page's files: what they are served with, and that nothing in them comes from elsewhere or makes HTML of text."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from importlib.resources import files

import httpx
import pytest

from outlast.agent import Context, Request
from outlast.shared.settings import Settings
from tests.support.refusals import refused
from tests.support.service import serving

FILES = {file.name: file.read_text("utf-8") for file in files("outlast.api").joinpath("page").iterdir()}
TYPES = {"html": "text/html", "js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}


async def silent(_request: Request, _context: Context):
    yield ""


@pytest.fixture
async def http(settings: Settings) -> AsyncGenerator[httpx.AsyncClient]:
    with_keys = settings.model_copy(update={"auth": "api_keys"})
    async with (
        serving(with_keys, {"silent": silent}) as service,
        httpx.AsyncClient(base_url=service.url, timeout=20) as client,
    ):
        yield client


def path_of(name: str) -> str:
    return "/" if name == "index.html" else f"/page/{name}"


async def test_every_file_is_served_without_a_key_and_under_a_strict_policy(http: httpx.AsyncClient) -> None:
    for name, text in FILES.items():
        answer = await http.get(path_of(name))
        assert (answer.status_code, answer.text) == (200, text)
        assert answer.headers["content-type"].split(";")[0] == TYPES[name.rpartition(".")[2]]
        policy = dict(part.split(" ", 1) for part in answer.headers["content-security-policy"].split("; "))
        assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
        assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
        assert policy["require-trusted-types-for"] == "'script'" and "unsafe" not in str(policy)
        assert answer.headers["x-content-type-options"] == "nosniff"


async def test_a_file_is_sent_again_only_when_it_has_changed(http: httpx.AsyncClient) -> None:
    tags = set()
    for name in FILES:
        first = await http.get(path_of(name))
        again = await http.get(path_of(name), headers={"if-none-match": first.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        assert first.headers["cache-control"] == again.headers["cache-control"] == "no-cache"
        tags.add(first.headers["etag"])
    assert len(tags) == len(FILES)
    refused(await http.post("/"), 405, code="method_not_allowed")


def test_nothing_comes_from_elsewhere() -> None:
    for name, text in FILES.items():
        addresses = set(re.findall(r"\b(?:https?:)?//[\w.-]+\.\w+[\w./-]*", text)) - {"http://www.w3.org/2000/svg"}
        assert addresses == set(), name
        for imported in re.findall(r'^import .*? from "(.+?)";', text, re.MULTILINE | re.DOTALL):
            assert imported.removeprefix("./") in FILES, (name, imported)


def test_nothing_makes_html_of_text_or_reads_a_key_from_an_address() -> None:
    forbidden = (
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|createContextualFragment|DOMParser|srcdoc|eval\("
    )
    for name, text in FILES.items():
        assert not re.search(forbidden, text), name
        assert name != "index.html" or not re.search(r"\son\w+=|\sstyle=|<script(?! type=\"module\" src)", text)


def test_no_module_is_longer_than_can_be_held_in_mind() -> None:
    assert {name: len(text.splitlines()) for name, text in FILES.items() if name.endswith(".js")}
    assert [name for name, text in FILES.items() if name.endswith(".js") and len(text.splitlines()) > 300] == []
