"""Keys open their principal's runs and nothing else."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator
from importlib.resources import files
from typing import Any

import httpx
import openai
import pytest
from fastapi.routing import iter_route_contexts

from outlast.agent import Context, Request
from outlast.api import keyring as module
from outlast.api.app import create_app
from outlast.api.keyring import Keyring
from outlast.shared.connections import Database
from outlast.shared.domain.errors import Unauthenticated
from outlast.shared.domain.keys import Scope, digest_of, new_key
from outlast.shared.settings import Settings
from outlast.shared.store import keys
from tests.support.doors import AUTHS, Door, a_door
from tests.support.keys import a_key, bearer, revoked
from tests.support.refusals import NOBODY, refused
from tests.support.service import Service, serving
from tests.support.waiting import until

PAGE = {f"/page/{file.name}" for file in files("outlast.api").joinpath("page").iterdir()} - {"/page/index.html"}
OPEN = {"/health", "/ready", "/metrics", "/docs", "/openapi.json", "/", *PAGE}


async def echo(request: Request, _context: Context):
    yield request.text


@pytest.fixture
async def service(settings: Settings) -> AsyncGenerator[Service]:
    with_keys = settings.model_copy(update={"auth": "api_keys"})
    async with serving(with_keys, {"echo": echo}) as running:
        yield running


@pytest.fixture
async def http(service: Service) -> AsyncGenerator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=service.url, timeout=20) as client:
        yield client


@pytest.fixture(params=AUTHS)
async def door(request: pytest.FixtureRequest, settings: Settings, database: Database) -> AsyncGenerator[Door]:
    async with a_door(request.param, settings, database, {"echo": echo}) as opened:
        yield opened


async def created(http: httpx.AsyncClient, headers: dict[str, str], **asked: Any) -> dict[str, Any]:
    answer = await http.post("/v1/responses", json={"input": "hi", **asked}, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.json()


def not_let_in(answer: httpx.Response) -> str:
    assert answer.headers["www-authenticate"] == "Bearer"
    return refused(answer, 401, code="invalid_api_key")


# -- who is let in -----------------------------------------------------------------------------------------------------


async def test_every_route_but_the_open_ones_is_guarded(door: Door, settings: Settings) -> None:
    app = create_app(settings)
    guarded = 0
    for route in iter_route_contexts(app.routes):
        assert route.path, route
        for method in route.methods or ():
            answer = await door.http.request(method, route.path.replace("{id}", NOBODY))
            if route.path in OPEN:
                assert answer.status_code == 200, (method, route.path)
            else:
                door.not_let_in(answer)
                guarded += 1
    assert guarded >= 14


async def test_the_openai_client_is_let_in_with_its_key_and_told_without(service: Service, database: Database) -> None:
    url = f"{service.url}/v1"
    async with openai.AsyncOpenAI(base_url=url, api_key=await a_key(database, "alice"), max_retries=0) as client:
        assert (await client.responses.create(input="hi")).output_text == "hi"
        assert [model.id async for model in client.models.list()] == ["echo"]
    async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client:
        with pytest.raises(openai.AuthenticationError, match="outlast keys create"):
            await client.responses.create(input="hi")


async def test_wrong_keys_are_refused_and_never_repeated(http: httpx.AsyncClient, database: Database) -> None:
    key = await a_key(database, "alice")
    unknown = new_key(bytes(32))
    wrong: list[Any] = [
        unknown, key[:-1], key + "A", key.upper(), key.swapcase(), f"{key} {key}", "sk-outlast-", "x" * 10_000,
        "sk-outlast-" + "ä" * 43, "' OR 1=1",
    ]  # fmt: skip
    for given in wrong:
        headers: Any = {"authorization": f"Bearer {given}".encode()}
        message = not_let_in(await http.get("/v1/models", headers=headers))
        assert given not in message and key[15:] not in message
    for header in ("", "Bearer", f"Basic {key}", key):
        not_let_in(await http.get("/v1/models", headers={"authorization": header}))
    two = [("authorization", f"Bearer {key}"), ("authorization", f"Bearer {unknown}")]
    not_let_in(await http.get("/v1/models", headers=two))
    for header in (f"bearer {key}", f"BEARER  {key}"):
        assert (await http.get("/v1/models", headers={"authorization": header})).status_code == 200


async def test_a_key_is_refused_before_anything_else_is_looked_at(http: httpx.AsyncClient) -> None:
    not_let_in(await http.post("/v1/responses", content=b"x" * 20_000_000))
    not_let_in(await http.get(f"/v1/responses/{NOBODY}?starting_after=nonsense"))


async def test_revoked_looks_like_unknown_and_expired_is_said(http: httpx.AsyncClient, database: Database) -> None:
    gone, late = await a_key(database, "alice"), await a_key(database, "alice", life_seconds=-1)
    await revoked(database, gone)

    unknown = not_let_in(await http.get("/models", headers=bearer(new_key(bytes(32)))))
    assert not_let_in(await http.get("/models", headers=bearer(gone))) == unknown
    assert "expired" in not_let_in(await http.get("/models", headers=bearer(late)))


async def test_a_revoked_key_stops_working_within_the_time_it_is_known(
    http: httpx.AsyncClient, database: Database
) -> None:
    key = await a_key(database, "alice")
    assert (await http.get("/models", headers=bearer(key))).status_code == 200
    await revoked(database, key)

    async def refused_now() -> bool:
        return (await http.get("/models", headers=bearer(key))).status_code == 401

    await until(refused_now, seconds=module.KNOWN_SECONDS + 10)


async def test_without_its_database_a_replica_says_come_back_and_not_wrong_key(
    http: httpx.AsyncClient, database: Database
) -> None:
    key = await a_key(database, "alice")
    await database.run(lambda c: c.execute("ALTER TABLE api_keys RENAME TO elsewhere"))
    answers = await asyncio.gather(*(http.get("/models", headers=bearer(key)) for _ in range(5)))
    assert {(answer.status_code, answer.headers["retry-after"]) for answer in answers} == {(503, "1")}

    await database.run(lambda c: c.execute("ALTER TABLE elsewhere RENAME TO api_keys"))
    assert (await http.get("/models", headers=bearer(key))).status_code == 200


# -- what is whose -----------------------------------------------------------------------------------------------------


async def test_the_runs_of_another_principal_do_not_exist(door: Door) -> None:
    http, alice, bob = door.http, await door.let_in("alice"), await door.let_in("bob", Scope.ADMIN)
    theirs = (await created(http, alice))["id"]
    for method, path, body in (
        ("GET", "/responses/{}", None),
        ("GET", "/responses/{}?wait=9", None),
        ("GET", "/responses/{}?stream=true", None),
        ("GET", "/responses/{}/input_items", None),
        ("GET", "/responses/{}?stream=true&ids=true&starting_after=1", None),
        ("POST", "/responses/{}/cancel", None),
        ("DELETE", "/responses/{}", None),
        ("POST", "/responses", {"input": "hi", "previous_response_id": "{}"}),
        ("POST", "/invocations", {"input": "hi", "previous_response_id": "{}"}),
    ):
        for prefix in ("", "/v1"):
            answers = []
            for id in (theirs, NOBODY):
                asked = {key: value.format(id) for key, value in body.items()} if body else None
                answers.append(await http.request(method, prefix + path.format(id), json=asked, headers=bob))
            assert answers[0].status_code == answers[1].status_code and answers[0].status_code in (400, 404)
            assert answers[0].text.replace(theirs, NOBODY) == answers[1].text, (method, path)
            assert same_headers(answers[0]) == same_headers(answers[1])
    assert (await http.get(f"/responses/{theirs}", headers=alice)).json()["status"] == "completed"


def same_headers(answer: httpx.Response) -> dict[str, str]:
    return {name: value for name, value in answer.headers.items() if name not in ("x-request-id", "date")}


async def test_two_principals_may_use_the_same_name_for_a_conversation(door: Door, database: Database) -> None:
    for principal in ("alice", "bob"):
        answer = await created(door.http, await door.let_in(principal), conversation="same")
        assert answer["conversation"]["id"] == "same"
    cursor = await database.run(lambda c: c.execute("SELECT principal FROM threads WHERE name = 'same'"))
    assert {row[0] for row in await cursor.fetchall()} == {"alice", "bob"}


async def test_the_body_does_not_decide_who_is_calling(door: Door) -> None:
    http, alice, bob = door.http, await door.let_in("alice"), await door.let_in("bob")
    named = {"user": "alice", "context": {"user_id": "alice"}, "metadata": {"principal": "alice"}}
    run = (await created(http, bob, **named))["id"]
    refused(await http.get(f"/responses/{run}", headers=alice), 404, param="id")
    assert (await http.get(f"/responses/{run}", headers=bob)).status_code == 200


# -- acting for others -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scope", Scope)
async def test_a_gateway_acts_for_the_users_it_names(http: httpx.AsyncClient, database: Database, scope: Scope) -> None:
    gateway = bearer(await a_key(database, "gateway", scope))
    alice = bearer(await a_key(database, "älice"))
    acting: dict[Any, Any] = gateway | {"X-Outlast-Principal": "älice".encode()}
    run = (await created(http, acting))["id"]

    assert (await http.get(f"/responses/{run}", headers=alice)).status_code == 200
    assert (await http.get(f"/responses/{run}", headers=acting)).status_code == 200
    refused(await http.get(f"/responses/{run}", headers=gateway), 404, param="id")


async def test_naming_a_principal_needs_the_scope_and_a_name(http: httpx.AsyncClient, database: Database) -> None:
    plain = bearer(await a_key(database, "alice"))
    gateway = bearer(await a_key(database, "gateway", Scope.ACT_FOR_OTHERS))
    for name in ("bob", "alice", ""):
        asked = plain | {"x-outlast-principal": name}
        refused(await http.get("/models", headers=asked), 403, code="insufficient_scope")
    names: list[Any] = ["", "x" * 257, "a\tb", b"\xff", b"a\xe2\x80\xa8b"]
    for name in names:
        asked = [*gateway.items(), ("x-outlast-principal", name)]
        refused(await http.get("/models", headers=asked), 400, param="x-outlast-principal", code="invalid_value")
    asked = [*gateway.items(), ("x-outlast-principal", "bob"), ("x-outlast-principal", "alice")]
    refused(await http.get("/models", headers=asked), 400, param="x-outlast-principal")
    assert (await http.get("/models", headers=gateway | {"x-outlast-principal": "x" * 256})).status_code == 200


async def test_without_authentication_everybody_is_anonymous_and_may_try_a_gateway(settings: Settings) -> None:
    async with (
        serving(settings, {"echo": echo}) as service,
        httpx.AsyncClient(base_url=service.url, timeout=20) as http,
    ):
        ours, theirs = await created(http, {}), await created(http, {"x-outlast-principal": "alice"})
        assert (await http.get(f"/responses/{ours['id']}", headers=bearer("none"))).status_code == 200
        refused(await http.get(f"/responses/{theirs['id']}"), 404, param="id")
        assert "security" not in (await http.get("/openapi.json")).json()


async def test_without_authentication_the_page_of_another_site_may_not_act(settings: Settings) -> None:
    """A browser asks first before it sends JSON; who lets it may be a gateway, which knows."""
    async with (
        serving(settings, {"echo": echo}) as service,
        httpx.AsyncClient(base_url=service.url, timeout=20) as http,
    ):
        body = b'{"input": "hi"}'
        for kind in ({}, {"content-type": "text/plain"}, {"content-type": "application/x-www-form-urlencoded"}):
            for site in ("cross-site", "same-site"):
                forged = {**kind, "sec-fetch-site": site}
                refused(await http.post("/responses", content=body, headers=forged), 403, code="cross_site_request")
                assert (await http.get("/models", headers=forged)).status_code == 200
            for origin in ("http://evil.example", "null"):
                forged = {**kind, "origin": origin}
                refused(await http.post("/responses", content=body, headers=forged), 403, code="cross_site_request")
            for site in ({}, {"sec-fetch-site": "same-origin"}, {"origin": service.url}):
                assert (await http.post("/responses", content=body, headers={**kind, **site})).status_code == 200
        asked = {"content-type": "application/json; charset=utf-8", "sec-fetch-site": "cross-site"}
        assert (await http.post("/responses", content=body, headers=asked)).status_code == 200


async def test_the_document_of_the_api_shows_the_key(http: httpx.AsyncClient) -> None:
    document = (await http.get("/openapi.json")).json()
    [scheme] = document["components"]["securitySchemes"].values()
    assert (scheme["type"], scheme["scheme"]) == ("http", "bearer")
    without = {path for path, methods in document["paths"].items() for m in methods.values() if m.get("security") == []}
    assert without == {"/health", "/ready", "/metrics"}


# -- the keyring itself ------------------------------------------------------------------------------------------------


@pytest.fixture
async def keyring(database: Database) -> AsyncGenerator[Keyring]:
    async with Keyring(database).running() as running:
        yield running


async def test_requests_that_wait_for_keys_share_a_statement(keyring: Keyring, database: Database) -> None:
    good = [await a_key(database, f"p{n}") for n in range(3)]
    bad = [new_key(n.to_bytes(32)) for n in range(700)]
    seen: list[int] = []
    find = keys.find

    async def counting(connection: Any, digests: Any) -> Any:
        seen.append(len(digests))
        return await find(connection, digests)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keys, "find", counting)
        verdicts = await asyncio.gather(*map(keyring.identify, [*bad, *good, *good]), return_exceptions=True)
        again = await asyncio.gather(*map(keyring.identify, good))

    assert seen == [500, 203]
    assert [verdict.principal for verdict in again] == ["p0", "p1", "p2"] == [v.principal for v in verdicts[-3:]]  # type: ignore[union-attr]
    assert all(isinstance(verdict, Unauthenticated) for verdict in verdicts[:700])


async def test_a_flood_of_wrong_keys_takes_no_memory_and_drives_out_no_key(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "KNOWN_SECONDS", 600.0)  # no flood on a slow machine lasts so long
    key = await a_key(database, "alice")
    async with Keyring(database).running() as keyring:
        await keyring.identify(key)
        for start in range(0, 6_000, 1_000):
            wrong = [new_key(n.to_bytes(32)) for n in range(start, start + 1_000)]
            await asyncio.gather(*map(keyring.identify, wrong), return_exceptions=True)

        assert len(keyring._unknown) <= 2_000 and not keyring._wanted
        assert keyring._known.get(digest_of(key), asyncio.get_running_loop().time())


async def test_remembered_verdicts_end_and_are_few() -> None:
    remembered = module.Remembered(seconds=5, most=3)
    for n in range(4):
        remembered.put(bytes([n]), str(n), now=n)
    assert [remembered.get(bytes([n]), 4) for n in range(4)] == [None, "1", "2", "3"]
    assert [remembered.get(bytes([n]), 7) for n in range(4)] == [None, None, None, "3"]
    remembered.put(b"x", "x", now=100)
    assert len(remembered) == 1


async def test_when_a_key_was_last_used_is_written_down_once_a_minute(keyring: Keyring, database: Database) -> None:
    used, unused = await a_key(database, "alice"), await a_key(database, "bob")
    await keyring.identify(used)

    async def last_used() -> dict[str, Any]:
        return {key.identity.principal: key.last_used_at for key in await database.run(keys.every)}

    first = await until(lambda: _when(last_used, "alice"))
    found = await database.run(lambda c: keys.find(c, [digest_of(used), digest_of(unused)]))
    assert not found[digest_of(used)].to_touch and found[digest_of(unused)].to_touch
    await database.run(lambda c: keys.touch(c, [found[digest_of(used)].key_id]))
    assert await last_used() == {"alice": first, "bob": None}


async def _when(last_used: Any, principal: str) -> Any:
    return (await last_used())[principal]


async def test_only_a_digest_is_stored(database: Database) -> None:
    key = await a_key(database, "alice")
    cursor = await database.run(lambda c: c.execute("SELECT k::text FROM api_keys k"))
    [(row,)] = await cursor.fetchall()
    assert key not in row and key[17:] not in row and digest_of(key).hex() in row
    assert re.fullmatch(r"sk-outlast-[\w-]{43}", key)
