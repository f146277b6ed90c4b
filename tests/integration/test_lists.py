"""The caller's runs as a list, and what each was asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import httpx
import openai
import pytest

from outlast.agent import AgentError, Context, Request
from outlast.shared.connections import Connection, Database
from outlast.shared.domain.titles import MAX_CHARACTERS, title_of
from outlast.shared.settings import Settings
from outlast.shared.store import listing
from tests.support.bulk import work_on
from tests.support.keys import a_key, bearer
from tests.support.refusals import NOBODY, refused
from tests.support.service import Service, serving


async def echo(request: Request, _context: Context):
    if request.text == "fail":
        raise AgentError("It was asked to.")
    yield request.text


@pytest.fixture
async def service(settings: Settings) -> AsyncGenerator[Service]:
    async with serving(settings, {"echo": echo}) as running:
        yield running


@pytest.fixture
async def http(service: Service) -> AsyncGenerator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=service.url, timeout=20) as client:
        yield client


async def created(http: httpx.AsyncClient, given: Any = "hi", **asked: Any) -> str:
    answer = await http.post("/v1/responses", json={"input": given, **asked})
    assert answer.status_code == 200, answer.text
    return answer.json()["id"]


async def listed(http: httpx.AsyncClient, query: str = "") -> dict[str, Any]:
    answer = await http.get(f"/v1/responses{query}")
    assert answer.status_code == 200, answer.text
    return answer.json()


# -- runs --------------------------------------------------------------------------------------------------------------


async def test_runs_are_listed_newest_first_in_pages(http: httpx.AsyncClient) -> None:
    assert await listed(http) == {"object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False}
    made = [await created(http, str(number)) for number in range(5)][::-1]

    whole = await listed(http)
    first = await listed(http, "?limit=2")
    second = await listed(http, f"?limit=2&after={first['last_id']}")
    third = await listed(http, f"?limit=2&after={second['last_id']}")

    assert [entry["id"] for entry in whole["data"]] == made and not whole["has_more"]
    assert [entry["id"] for page in (first, second, third) for entry in page["data"]] == made
    assert [page["has_more"] for page in (first, second, third)] == [True, True, False]
    assert (first["first_id"], first["last_id"]) == (made[0], made[1])
    assert (await http.get("/responses")).json() == whole


async def test_an_entry_says_what_a_list_shows_and_no_more(http: httpx.AsyncClient) -> None:
    run = await created(http, "What is a lease?", conversation="mine", background=True)
    shown = (await http.get(f"/responses/{run}?wait=20")).json()

    [entry] = (await listed(http))["data"]

    assert entry.pop("started_at") >= entry["created_at"]
    assert entry == {
        "id": run,
        "object": "response",
        "status": "completed",
        "model": "echo",
        "title": "What is a lease?",
        "created_at": shown["created_at"],
        "completed_at": shown["completed_at"],
        "attempt_number": 1,
        "conversation": {"id": "mine"},
        "background": True,
    }


async def test_runs_are_found_by_status(http: httpx.AsyncClient) -> None:
    good, bad = await created(http), await created(http, "fail")

    for status, expected in (("completed", [good]), ("failed", [bad]), ("queued", [])):
        assert [entry["id"] for entry in (await listed(http, f"?status={status}"))["data"]] == expected
    [entry] = (await listed(http, "?status=failed"))["data"]
    assert entry["completed_at"] is None


async def test_a_cursor_whose_run_is_gone_still_works(http: httpx.AsyncClient) -> None:
    first, second = await created(http), await created(http)
    await http.delete(f"/responses/{second}")

    assert [entry["id"] for entry in (await listed(http, f"?after={second}"))["data"]] == [first]
    assert (await listed(http, f"?after={NOBODY}"))["data"] == []


async def test_wrong_queries_are_named(http: httpx.AsyncClient) -> None:
    run = await created(http)
    for path in ("/v1/responses", f"/v1/responses/{run}/input_items"):
        for query in ("limit=0", "limit=101", "limit=-1", "limit=x", "limit=", "after=", "after=resp_1", "after=%00"):
            answer = await http.get(f"{path}?{query}")
            refused(answer, 400, param=query.partition("=")[0], code="invalid_value")
    for status in ("", "done", "Completed", "%00"):
        refused(await http.get(f"/responses?status={status}"), 400, param="status", code="invalid_value")
    refused(await http.get(f"/responses/{run}/input_items?order=up"), 400, param="order", code="invalid_value")
    refused(await http.get(f"/responses/{NOBODY}/input_items"), 404, param="id", code="response_not_found")


async def test_a_list_that_has_not_changed_is_not_sent_again(http: httpx.AsyncClient) -> None:
    await created(http)
    tag = (await http.get("/responses")).headers["etag"]

    same = await http.get("/responses", headers={"if-none-match": tag})
    assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", tag)
    await created(http)
    assert (await http.get("/responses", headers={"if-none-match": tag})).status_code == 200


async def test_nobody_sees_the_runs_of_others(settings: Settings, database: Database) -> None:
    alice, bob = bearer(await a_key(database, "alice")), bearer(await a_key(database, "bob"))
    with_keys = settings.model_copy(update={"auth": "api_keys"})
    async with (
        serving(with_keys, {"echo": echo}) as service,
        httpx.AsyncClient(base_url=service.url, timeout=20) as http,
    ):
        theirs = (await http.post("/responses", json={"input": "hi"}, headers=alice)).json()["id"]
        for path in ("/responses", "/v1/responses", f"/responses?after=resp_{'f' * 32}", "/responses?status=completed"):
            assert (await http.get(path, headers=bob)).json()["data"] == []
            assert [entry["id"] for entry in (await http.get(path, headers=alice)).json()["data"]] == [theirs]


async def test_a_page_reads_only_its_own_entries_of_the_index(database: Database) -> None:
    async def fill(principal: str, count: int) -> None:
        await database.run(
            lambda c: c.execute(
                """WITH t AS (INSERT INTO threads (id, principal, name) VALUES (gen_random_uuid(), %(principal)s, 'x')
                              RETURNING id)
                   INSERT INTO runs (id, principal, thread_id, agent, ready, created_at, timeout_seconds, background,
                                     store, tool_items, request)
                   SELECT gen_random_uuid(), %(principal)s, id, 'test', false, now(), 60, true, true, 'hidden', '{}'
                   FROM t, generate_series(1, %(count)s)""",
                {"principal": principal, "count": count},
            )
        )

    for principal in ("alice", "bob", "carol"):
        await fill(principal, 3000)
    await database.run(lambda c: c.execute("ANALYZE runs"))

    async def read(connection: Connection) -> tuple[int, int]:
        scans, fetched = await work_on(connection, "runs")
        assert len(await listing.newest(connection, "bob", limit=20)) == 20
        scans_later, fetched_later = await work_on(connection, "runs")
        return scans_later - scans, fetched_later - fetched

    scans, fetched = await database.run(read)
    assert (scans, fetched <= 25) == (0, True), fetched


# -- titles ------------------------------------------------------------------------------------------------------------


def test_a_title_is_one_short_line() -> None:
    assert title_of("") == ""
    assert title_of(" What\n\tis \0 it?  ") == "What is it?"
    assert title_of("x" * MAX_CHARACTERS) == "x" * MAX_CHARACTERS
    assert title_of("word " * 100_000).endswith(" word…")
    for text in ("x" * 121, "x" * 10_000_000, "\n" * 2000 + "x"):
        assert len(title_of(text)) <= MAX_CHARACTERS and title_of(text).endswith("…")


async def test_the_title_is_the_text_of_the_last_user_message(http: httpx.AsyncClient) -> None:
    said: list[dict[str, Any]] = [
        {"role": "user", "content": "first"},
        {"role": "assistant", "content": "answer"},
        {"role": "user", "content": [{"type": "input_text", "text": "sec"}, {"type": "input_text", "text": "ond\0"}]},
        {"type": "function_call_output", "call_id": "c", "output": "1"},
    ]
    await created(http, said)
    await created(http, [{"role": "system", "content": "nobody asks"}])
    await asyncio.gather(*(created(http, f"together {number}") for number in range(10)))

    titles = [entry["title"] for entry in (await listed(http))["data"]]

    assert titles[-2:] == ["", "second"]
    assert sorted(titles[:-2]) == [f"together {number}" for number in range(10)]


# -- input items -------------------------------------------------------------------------------------------------------


async def test_what_was_asked_is_read_by_the_openai_client(service: Service, http: httpx.AsyncClient) -> None:
    said: list[Any] = [
        {"role": "user", "content": "first"},
        {"role": "assistant", "content": "answer", "id": "msg_theirs"},
        {"role": "user", "content": [{"type": "input_text", "text": "second"}]},
    ]
    many, one = await created(http, said), await created(http, "alone")
    client: openai.AsyncOpenAI = service.openai

    backwards = [item async for item in client.responses.input_items.list(many, limit=2)]
    forwards = [item async for item in client.responses.input_items.list(many, order="asc", limit=1)]
    [alone] = [item async for item in client.responses.input_items.list(one)]

    assert forwards == backwards[::-1] and [item.id for item in forwards][1] == "msg_theirs"
    assert [item.content[0].text for item in forwards] == ["first", "answer", "second"]  # type: ignore[union-attr]
    assert alone.content[0].text == "alone" and alone.role == "user"  # type: ignore[union-attr]
