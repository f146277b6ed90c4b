"""Behind the proxy of Databricks Apps its headers say who is calling; anywhere else they say nothing."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

import httpx
import openai
import pytest
from fastapi.routing import iter_route_contexts
from pydantic import SecretStr

from outlast.agent import Context, Request
from outlast.api.app import create_app
from outlast.infra.cli import parts
from outlast.shared.connections import Database
from outlast.shared.settings import Settings, SettingsError, load
from tests.support.doors import ADMIN, Door, a_door, as_user
from tests.support.keys import a_key, bearer
from tests.support.refusals import NOBODY, refused
from tests.support.service import serving

ALICE, BOB, APP = "1001@42", "1002@42", "7930379096663871@42"
OPEN = ("/health", "/ready", "/metrics", "/openapi.json", "/docs", "/", "/page/main.js")


async def who(_request: Request, context: Context):
    yield f"{context.principal} {context.user_token}"


@pytest.fixture
async def door(settings: Settings, database: Database) -> AsyncGenerator[Door]:
    async with a_door("databricks", settings, database, {"who": who}) as opened:
        yield opened


async def test_the_openai_client_is_the_user_whom_the_proxy_names(door: Door) -> None:
    for user, headers in ((ALICE, as_user(ALICE, email="alice@example.com")), (APP, as_user(APP))):
        async with openai.AsyncOpenAI(
            base_url=f"{door.service.url}/v1", api_key="none", max_retries=0, default_headers=headers
        ) as client:
            answer = await client.responses.create(input="hi")
            assert answer.output_text == f"{user} None"
            assert (await client.responses.retrieve(answer.id)).id == answer.id
    theirs = await door.http.get(f"/responses/{answer.id}", headers=as_user(ALICE))
    refused(theirs, 404, param="id")


async def test_without_the_proxy_it_says_what_is_wrong(door: Door) -> None:
    for headers in ({}, bearer("sk-outlast-x"), {"x-forwarded-email": "alice@example.com"}):
        assert "X-Forwarded-User" in door.not_let_in(await door.http.post("/responses", json={}, headers=headers))
    for path in OPEN:
        assert (await door.http.get(path)).status_code == 200, path


RUBBISH: list[Any] = [
    [("x-forwarded-user", ALICE), ("x-forwarded-user", BOB)],
    [("x-forwarded-user", ALICE), ("x-forwarded-user", ALICE)],
    [("x-forwarded-user", "")],
    [("x-forwarded-user", "x" * 257)],
    [("x-forwarded-user", b"a\xff")],
    [("x-forwarded-user", "a\tb")],
    [("x-forwarded-user", b"a\xe2\x80\xae")],  # turns what follows around
    [("x-forwarded-user", ALICE), ("x-forwarded-email", "a@b"), ("x-forwarded-email", ADMIN)],
    [("x-forwarded-user", ALICE), ("x-forwarded-email", b"\xff")],
    [("x-forwarded-user", ALICE), ("x-forwarded-access-token", "a" * 20), ("x-forwarded-access-token", "b" * 20)],
    [("x-forwarded-user", ALICE), ("x-forwarded-access-token", "")],
    [("x-forwarded-user", ALICE), ("x-forwarded-access-token", 'a"b' * 9)],
    [("x-forwarded-user", ALICE), ("x-forwarded-access-token", "x" * 19)],
    [("x-forwarded-user", ALICE), ("x-forwarded-access-token", "x" * 16_385)],
    [("x-forwarded-user", ALICE), ("x-forwarded-access-token", b"\xff")],
]


async def test_what_is_not_one_name_is_never_guessed_at(door: Door) -> None:
    for given in RUBBISH:
        message = door.not_let_in(await door.http.post("/responses", json={"input": "hi"}, headers=given))
        assert "x-forwarded" in message.lower() and ALICE not in message and BOB not in message, given
    for name in ("älice", "x" * 256):
        headers: Any = {"x-forwarded-user": name.encode()}
        answer = await door.http.post("/responses", json={"input": "hi"}, headers=headers)
        assert answer.json()["output"][0]["content"][0]["text"] == f"{name} None"


async def test_admins_are_those_of_the_setting_by_email_or_id(settings: Settings, database: Database) -> None:
    named = settings.model_copy(update={"admins": ("Root@Example.com", BOB)})
    async with (
        serving(named.model_copy(update={"auth": "databricks"}), {"who": who}) as service,
        httpx.AsyncClient(base_url=service.url, timeout=20) as http,
    ):
        for headers in (as_user(ALICE, email="root@example.com"), as_user(BOB)):
            assert (await http.get("/admin/queue", headers=headers)).status_code == 200
        told = refused(
            await http.get("/admin/queue", headers=as_user(ALICE, email="alice@example.com")),
            403,
            code="insufficient_scope",
        )
        assert ALICE in told and "OUTLAST_ADMINS" in told
        for headers in (
            as_user("root@example.com"),
            as_user("Root@Example.com", email="x@y"),
            as_user(ALICE, email=BOB),
        ):
            refused(await http.get("/admin/queue", headers=headers), 403, code="insufficient_scope")
        acting = {"x-outlast-principal": "carol"}
        refused(await http.get("/models", headers=as_user(ALICE) | acting), 403, code="insufficient_scope")
        answer = await http.post("/responses", json={"input": "hi"}, headers=as_user(BOB) | acting)
        assert answer.json()["output"][0]["content"][0]["text"] == "carol None"


async def test_with_keys_the_headers_say_nothing_on_any_route(settings: Settings, database: Database) -> None:
    forged = as_user(ALICE, email=ADMIN, token="a.b.c")
    guarded = settings.model_copy(update={"auth": "api_keys", "admins": (ADMIN, ALICE)})
    key = bearer(await a_key(database, "keyholder"))
    async with (
        serving(guarded, {"who": who}) as service,
        httpx.AsyncClient(base_url=service.url, timeout=20) as http,
    ):
        guarding = 0
        for route in iter_route_contexts(create_app(service.settings).routes):
            assert route.path, route
            for method in route.methods or ():
                path = route.path.replace("{id}", NOBODY)
                without = await http.request(method, path)
                answer = await http.request(method, path, headers=forged)
                assert answer.status_code == without.status_code, (method, path)
                if answer.status_code != 200:
                    refused(answer, 401, code="invalid_api_key")
                    guarding += 1
        assert guarding >= 14
        answer = await http.post("/responses", json={"input": "hi"}, headers=key | forged)
        assert answer.json()["output"][0]["content"][0]["text"] == "keyholder None"
        refused(await http.get("/admin/queue", headers=key | forged), 403, code="insufficient_scope")


async def test_without_authentication_the_headers_say_nothing(settings: Settings) -> None:
    forged = as_user(ALICE, email=ADMIN, token="a.b.c")
    keyed = settings.model_copy(update={"auth": "none", "token_key": SecretStr("k" * 32)})
    async with (
        serving(keyed, {"who": who}) as service,
        httpx.AsyncClient(base_url=service.url, timeout=20) as http,
    ):
        answer = await http.post("/responses", json={"input": "hi"}, headers=forged)
        assert answer.json()["output"][0]["content"][0]["text"] == "anonymous None"
        for rubbish in RUBBISH:
            assert (await http.get("/models", headers=rubbish)).status_code == 200


async def test_a_page_of_another_site_cannot_act_with_the_proxys_cookie(door: Door) -> None:
    alice = as_user(ALICE)
    run = (await door.http.post("/responses", json={"input": "hi"}, headers=alice)).json()["id"]
    for site in ("cross-site", "same-site"):  # two apps of a workspace are the same site
        forged = alice | {"sec-fetch-site": site, "content-type": "text/plain"}
        for method, path in (
            ("POST", "/responses"),
            ("POST", f"/responses/{run}/cancel"),
            ("DELETE", f"/responses/{run}"),
        ):
            answer = await door.http.request(method, path, headers=forged, content=b'{"input": "hi"}')
            refused(answer, 403, code="cross_site_request")
        assert (await door.http.get(f"/responses/{run}", headers=forged)).status_code == 200
    for origin in ("http://evil.example", "null"):  # a browser that does not say what site it is
        forged = alice | {"origin": origin, "content-type": "text/plain"}
        refused(await door.http.post("/responses", content=b"{}", headers=forged), 403, code="cross_site_request")
    own = alice | {"origin": "https://app.example.com"}  # X-Forwarded-Host, as the proxy sets it
    assert (await door.http.post("/responses", json={"input": "hi"}, headers=own)).status_code == 200
    for site in ("same-origin", "none"):
        answer = await door.http.post("/responses", json={"input": "hi"}, headers=alice | {"sec-fetch-site": site})
        assert answer.status_code == 200


# -- where it starts ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.1.2.3", "example.com"])
def test_a_server_that_others_reach_starts_only_as_a_databricks_app(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUTLAST_AUTH", "databricks")
    with pytest.raises(SettingsError, match="no Databricks App"):
        parts.run_api(host, 1)
    for name in ("DATABRICKS_APP_NAME", "DATABRICKS_APP_PORT"):
        with monkeypatch.context() as app:
            app.setenv(name, "8000")
            parts.refuse_strangers(load(), host)
    parts.refuse_strangers(load(), "127.0.0.1")


@pytest.mark.parametrize("key", ["short", "x" * 31])
def test_a_key_that_can_be_guessed_is_refused_and_not_repeated(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUTLAST_TOKEN_KEY", key)
    with pytest.raises(SettingsError, match=r"(?i)token_key") as refusal:
        load()
    assert key not in refusal.value.message
