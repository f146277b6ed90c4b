"""Requests of other sites' pages, from browsers that say so and from those that only name their Origin."""

from __future__ import annotations

import pytest
from starlette.requests import Request

from outlast.api import other_sites
from outlast.shared.domain.errors import NotAllowed

OWN: list[dict[str, str]] = [
    {},  # no browser
    {"origin": "http://192.168.1.5:8000", "host": "192.168.1.5:8000"},
    {"origin": "http://outlast.example", "host": "Outlast.Example"},
    {"origin": "http://outlast.example", "host": "outlast.example:80"},
    {"origin": "https://outlast.example", "host": "outlast.example:443"},
    {"origin": "http://[fd00::1]:8000", "host": "[fd00::1]:8000"},
    {"origin": "https://app.example", "host": "10.0.0.1:8000", "x-forwarded-host": "app.example"},
    {"origin": "http://evil.example", "host": "x", "sec-fetch-site": "same-origin"},
    {"host": "x", "sec-fetch-site": "none"},
]
FOREIGN: list[dict[str, str]] = [
    {"origin": "http://evil.example", "host": "192.168.1.5:8000"},
    {"origin": "null", "host": "192.168.1.5:8000"},
    {"origin": "", "host": "192.168.1.5:8000"},
    {"origin": "null", "host": "null"},
    {"origin": "http://", "host": ""},
    {"origin": "http://192.168.1.5:3000", "host": "192.168.1.5:8000"},
    {"origin": "https://outlast.example", "host": "outlast.example:80"},
    {"origin": "http://192.168.1.5:8000.evil.example", "host": "192.168.1.5:8000"},
    {"origin": "http://evil.example/192.168.1.5", "host": "192.168.1.5"},
    {"origin": "http://evil.example"},
    {"origin": "http://evil.example", "host": "x", "x-forwarded-host": "app.example"},
    {"origin": "http://x", "host": "x", "sec-fetch-site": "cross-site"},
    {"host": "x", "sec-fetch-site": "same-site"},
    {"host": "x", "sec-fetch-site": ""},
]


def request(method: str, headers: dict[str, str], **more: str) -> Request:
    pairs = [(name.encode(), value.encode()) for name, value in {**headers, **more}.items()]
    return Request({"type": "http", "method": method, "headers": pairs})


@pytest.mark.parametrize("headers", OWN)
def test_the_servers_own_page_and_programs_may_act(headers: dict[str, str]) -> None:
    other_sites.refuse(request("POST", headers))
    other_sites.refuse_unasked(request("POST", headers, **{"content-type": "text/plain"}))


@pytest.mark.parametrize("headers", FOREIGN)
def test_the_page_of_another_site_may_only_read(headers: dict[str, str]) -> None:
    for method in ("POST", "DELETE", "PUT"):
        for refuse in (other_sites.refuse, other_sites.refuse_unasked):
            with pytest.raises(NotAllowed) as refusal:
                refuse(request(method, headers, **{"content-type": "text/plain"}))
            assert refusal.value.code == "cross_site_request"
    for method in ("GET", "HEAD", "OPTIONS"):
        other_sites.refuse(request(method, headers))


def test_two_origins_are_both_looked_at() -> None:
    origins = [(b"host", b"x"), (b"origin", b"http://x"), (b"origin", b"http://evil.example")]
    with pytest.raises(NotAllowed):
        other_sites.refuse(Request({"type": "http", "method": "POST", "headers": origins}))


def test_json_needs_a_gateway_that_has_let_it_through() -> None:
    other_sites.refuse_unasked(request("POST", FOREIGN[0], **{"content-type": "application/json; charset=utf-8"}))
    with pytest.raises(NotAllowed):
        other_sites.refuse(request("POST", FOREIGN[0], **{"content-type": "application/json"}))
