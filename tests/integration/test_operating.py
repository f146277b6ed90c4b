"""What operators see and do, over HTTP: runs of all principals, cancels and retries one by one and in bulk, workers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest

from outlast.agent import AgentError, Context, Request
from outlast.shared.connections import Connection, Database
from outlast.shared.domain.ids import new_uuid, response_id
from outlast.shared.domain.keys import Scope
from outlast.shared.domain.operating import RunFilter
from outlast.shared.domain.runs import RunStatus
from outlast.shared.settings import Settings
from outlast.shared.store import operating, steering
from tests.support.keys import a_key, bearer
from tests.support.log import stored_lines
from tests.support.refusals import NOBODY, refused
from tests.support.runs import claimed, claimed_one, finish, put_back, submitted
from tests.support.service import Service, serving
from tests.support.streams import check_stream
from tests.support.waiting import until

ROUTES = [
    ("GET", "/admin/runs"), ("GET", f"/admin/runs/{NOBODY}"), ("GET", "/admin/workers"), ("GET", "/admin/queue"),
    ("POST", f"/admin/runs/{NOBODY}/cancel"), ("POST", f"/admin/runs/{NOBODY}/retry"), ("POST", "/admin/runs/cancel"),
    ("POST", "/admin/runs/retry"), ("POST", "/admin/workers/h:1:x/drain"),
]  # fmt: skip


async def ids(database: Database, limit: int = 100, **wanted: Any) -> list[Any]:
    page = await database.run(lambda c: operating.page(c, RunFilter(**wanted), limit=limit))
    assert page.looked_at_all
    return [run.run_id for run in page.runs]


# -- what is found, and what it costs ----------------------------------------------------------------------------------


async def test_runs_are_found_by_what_they_have_in_common(database: Database) -> None:
    failed, done, waiting_for_retry, running = [
        await submitted(database, agent=f"a{n % 2}", principal=f"p{n // 2}") for n in range(4)
    ]
    held = {run.run_id: run for run in await claimed(database, owner="h:7:x")}
    await finish(database, held[failed.run_id], 2, status=RunStatus.FAILED)
    said = '"output":[{"text":"\\"error\\":{\\"code\\":\\"no\\",\\"message\\":\\""}]'
    error = f'{{"id":"r",{said},"error":{{"code":"c\\"1","message":"Oh \\u00e9."}}}}'
    await database.run(lambda c: c.execute("UPDATE runs SET response = %s WHERE id = %s", (error, failed.run_id)))
    await finish(database, held[done.run_id], 2)
    await put_back(database, held[waiting_for_retry.run_id])
    queued = await submitted(database, agent="a0", principal="p0")

    def of(*submissions: Any) -> list[Any]:
        return [submission.run_id for submission in submissions]

    assert await ids(database) == of(queued, running, waiting_for_retry, done, failed)
    assert await ids(database, limit=2) == of(queued, running)
    assert await ids(database, status=RunStatus.QUEUED) == of(queued, waiting_for_retry)
    assert await ids(database, status=RunStatus.IN_PROGRESS) == of(running)
    assert await ids(database, status=RunStatus.FAILED) == of(failed)
    assert await ids(database, status=RunStatus.COMPLETED) == of(done)
    assert await ids(database, agent="a1") == of(running, done)
    assert await ids(database, principal="p1") == of(running, waiting_for_retry)
    assert await ids(database, principal="p0", agent="a0") == of(queued, failed)
    assert await ids(database, error_code='c"1') == of(failed) and not await ids(database, error_code="c")
    assert not await ids(database, older_than_seconds=60)

    states = {run.run_id: run for run in await database.run(lambda c: operating.states(c, of(failed, running, done)))}
    assert (states[failed.run_id].error_code, states[failed.run_id].error_message) == ('c"1', "Oh é.")
    assert states[running.run_id].worker == "h:7" and 0 < (states[running.run_id].lease_seconds_left or 0) <= 60
    assert (states[done.run_id].error_code, states[done.run_id].owner, states[done.run_id].last_seq) == (None, None, 2)


@pytest.fixture
async def stack() -> AsyncGenerator[AsyncExitStack]:
    async with AsyncExitStack() as opened:
        yield opened


FINISHED = """
WITH t AS (INSERT INTO threads (id, principal, name)
           SELECT gen_random_uuid(), 'p', 't' || g FROM generate_series(1, {count}) g RETURNING id),
r AS (
    INSERT INTO runs (id, principal, thread_id, agent, status, ready, attempt, created_at, started_at, deadline_at,
                      finished_at, timeout_seconds, background, store, tool_items, request, response)
    SELECT (lpad(to_hex((extract(epoch FROM now() - interval '2 h') * 1000)::bigint + row_number() OVER ()), 12, '0')
            || substr(md5(random()::text), 1, 20))::uuid,
           'p', id, 'a', 'completed', true, 1, now(), now(), now(), now(), 60, true, true, 'mcp_call', '{{}}', '{{}}'
    FROM t RETURNING id)
INSERT INTO run_heads (run_id, last_seq, closed) SELECT id, 2, true FROM r
"""


async def test_a_rare_status_is_found_among_many_finished_runs_without_looking_at_them(
    database: Database, stack: AsyncExitStack
) -> None:
    old = await submitted(database, agent="old", run_id=new_uuid())
    run = await claimed_one(database)
    await finish(database, run, 2, status=RunStatus.FAILED)
    many = await database.connect(statement_timeout="60s")
    stack.push_async_callback(many.close)
    await many.execute(FINISHED.format(count=30_000))  # type: ignore[arg-type]
    waiting = await submitted(database, agent="new")
    for wanted, found in (
        ({"status": RunStatus.FAILED}, [old.run_id]), ({"status": RunStatus.QUEUED}, [waiting.run_id]),
        ({"status": RunStatus.IN_PROGRESS}, []), ({"status": RunStatus.CANCELLED, "agent": "old"}, []),
        ({"error_code": "x"}, []),
    ):  # fmt: skip
        given: dict[str, Any] = wanted
        looked_at = await rows_looked_at(many, RunFilter(**given))
        assert await ids(database, **given) == found, wanted
        assert looked_at <= 10 + operating.LOOKED_AT_MOST, (wanted, looked_at)
        if wanted != {"status": RunStatus.QUEUED}:  # which also looks at the newest
            assert looked_at <= 50, (wanted, looked_at)

    unlucky = await database.run(lambda c: operating.page(c, RunFilter(agent="nobody"), limit=10))
    assert (unlucky.runs, unlucky.looked_at_all) == ([], False) and unlucky.next_after is not None
    pages, after = 0, None
    while not pages or after is not None:
        page = await database.run(lambda c: operating.page(c, RunFilter(agent="nobody"), limit=10, after=after))
        pages, after = pages + 1, page.next_after
    assert pages == 4, "three windows and the rest"


async def rows_looked_at(connection: Connection, wanted: RunFilter) -> float:
    statement = operating._LISTED.format(window=operating._window(wanted), filter=operating._FILTER)
    values = {**operating._values(wanted), "after": operating._LAST, "limit": 20, "window": operating.LOOKED_AT_MOST}
    for name in ("seqscan", "bitmapscan", "sort"):
        await connection.execute(f"SET enable_{name} = off")  # type: ignore[arg-type]
    cursor = await connection.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", values, prepare=False)
    [(plans,)] = await cursor.fetchall()
    scans = [node for node in nodes(plans[0]["Plan"]) if node.get("Relation Name") == "runs"]
    assert scans and all(node["Node Type"] != "Seq Scan" for node in scans)
    return sum((n["Actual Rows"] + n.get("Rows Removed by Filter", 0)) * n["Actual Loops"] for n in scans)


def nodes(plan: dict[str, Any]) -> list[dict[str, Any]]:
    return [plan, *(node for part in plan.get("Plans", ()) for node in nodes(part))]


# -- cancels -----------------------------------------------------------------------------------------------------------


async def test_a_bulk_cancel_reaches_what_waits_what_runs_and_what_is_to_be_retried(database: Database) -> None:
    queued = await submitted(database, thread="t")
    await claimed_one(database)
    behind = await submitted(database, thread="t")
    for_retry = await submitted(database)
    await put_back(database, await claimed_one(database))
    found = await database.run(lambda c: operating.cancellable(c, RunFilter(agent="test"), limit=10))
    assert {match.run_id for match in found} == {queued.run_id, behind.run_id, for_retry.run_id}

    busy = await database.connect()
    async with busy, busy.transaction():
        await busy.execute("SELECT FROM runs WHERE id = %s FOR UPDATE", (behind.run_id,))
        asked = await database.run(lambda c: steering.request_cancels(c, [match.run_id for match in found]))
    assert set(asked) == {queued.run_id, for_retry.run_id}, "it waits for nobody"
    left = await database.run(lambda c: operating.cancellable(c, RunFilter(agent="test"), limit=10))
    assert [match.run_id for match in left] == [behind.run_id]
    assert await database.run(lambda c: steering.request_cancel(c, behind.run_id))
    assert not await database.run(lambda c: steering.request_cancel(c, behind.run_id))
    states = await database.run(lambda c: operating.states(c, [match.run_id for match in found]))
    assert all(state.cancel_requested_at for state in states) and len(states) == 3


# -- over HTTP ---------------------------------------------------------------------------------------------------------


async def flaky(request: Request, context: Context):
    """Fails at first, and waits for ever when it is told to."""
    yield f"attempt {context.attempt}"
    if request.text == "wait":
        await asyncio.Event().wait()
    if context.attempt == 1:
        raise AgentError("It went wrong.", code="mine")


@pytest.fixture
async def service(settings: Settings) -> AsyncGenerator[Service]:
    async with serving(settings.model_copy(update={"auth": "api_keys"}), {"flaky": flaky, "other": flaky}) as running:
        yield running


@pytest.fixture
async def http(service: Service) -> AsyncGenerator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=service.url, timeout=20) as client:
        yield client


@pytest.fixture
async def admin(service: Service, database: Database) -> AsyncGenerator[httpx.AsyncClient]:
    headers = bearer(await a_key(database, "root", Scope.ADMIN))
    async with httpx.AsyncClient(base_url=service.url, timeout=20, headers=headers) as client:
        yield client


async def test_only_admins_may_see_and_steer(http: httpx.AsyncClient, database: Database) -> None:
    for key in (await a_key(database, "alice"), await a_key(database, "gateway", Scope.ACT_FOR_OTHERS)):
        for method, path in ROUTES:
            refused(await http.request(method, path, headers=bearer(key)), 403, code="insufficient_scope")
    for method, path in ROUTES:
        refused(await http.request(method, path), 401, code="invalid_api_key")


async def test_a_failed_run_of_another_is_found_retried_and_its_owner_sees_it_complete(
    http: httpx.AsyncClient, admin: httpx.AsyncClient, database: Database
) -> None:
    alice = bearer(await a_key(database, "alice"))
    failed = (await http.post("/responses", json={"input": "a secret"}, headers=alice)).json()
    assert failed["status"] == "failed"
    listed = (await admin.get("/admin/runs?status=failed&principal=alice&error_code=mine")).json()
    assert (listed["first_id"], listed["has_more"], listed["looked_at_all"]) == (failed["id"], False, True)
    shown = (await admin.get(f"/admin/runs/{failed['id']}")).json()
    assert listed["data"] == [shown] and "secret" not in json.dumps(listed)
    assert shown["error"] == {"code": "mine", "message": "It went wrong."} and shown["principal"] == "alice"

    retried = await admin.post(f"/admin/runs/{failed['id']}/retry")
    assert retried.status_code == 200 and retried.json()["reopened"] == 1, retried.text
    done = (await http.get(f"/responses/{failed['id']}?wait=20", headers=alice)).json()
    assert (done["status"], done["attempt_number"], done["error"]) == ("completed", 2, None)
    check_stream(await stored_lines(database, failed["id"]))
    message = refused(await admin.post(f"/admin/runs/{failed['id']}/retry"), 400, param="id", code="succeeded")
    assert "neither failed nor" in message
    refused(await admin.post(f"/admin/runs/{failed['id']}/cancel"), 400, code="already_finished")


async def test_a_run_of_another_is_cancelled(
    http: httpx.AsyncClient, admin: httpx.AsyncClient, database: Database
) -> None:
    alice = bearer(await a_key(database, "alice"))
    run = (await http.post("/responses", json={"input": "wait", "background": True}, headers=alice)).json()
    asked = await admin.post(f"/admin/runs/{run['id']}/cancel")
    assert asked.status_code == 200 and asked.json()["cancel_requested_at"] is not None
    assert (await http.get(f"/responses/{run['id']}?wait=20", headers=alice)).json()["status"] == "cancelled"
    assert (await admin.post(f"/admin/runs/{run['id']}/cancel")).json()["status"] == "cancelled"
    assert (await admin.post(f"/admin/runs/{run['id']}/retry")).json()["cancel_requested_at"] is None


async def test_in_bulk_nothing_is_done_unless_it_is_asked_for(
    http: httpx.AsyncClient, admin: httpx.AsyncClient, database: Database
) -> None:
    alice = bearer(await a_key(database, "alice"))
    for model in ("flaky", "flaky", "other"):
        await http.post("/responses", json={"input": "hi", "model": model}, headers=alice)
    wanted = {"principal": "alice"}
    told = (await admin.post("/admin/runs/retry", json=wanted)).json()
    assert told == {
        "dry_run": True, "matching": 3, "has_more": False, "retried": 0, "refused": [],
        "groups": [
            {"agent": "flaky", "status": "failed", "runs": 2}, {"agent": "other", "status": "failed", "runs": 1},
        ],
    }  # fmt: skip
    assert len(await ids(database, status=RunStatus.FAILED)) == 3
    some = (await admin.post("/admin/runs/retry", json={**wanted, "dry_run": False, "limit": 2})).json()
    assert (some["matching"], some["has_more"], some["retried"], some["refused"]) == (2, True, 2, [])
    rest = (await admin.post("/admin/runs/retry", json={"error_code": "mine", "dry_run": False})).json()
    assert (rest["matching"], rest["has_more"], rest["retried"]) == (1, False, 1)

    async def completed() -> bool:
        return len(await ids(database, status=RunStatus.COMPLETED)) == 3

    await until(completed)
    for _ in range(3):
        await http.post("/responses", json={"input": "wait", "background": True}, headers=alice)
    assert (await admin.post("/admin/runs/cancel", json={"agent": "flaky"})).json()["matching"] == 3
    done = (await admin.post("/admin/runs/cancel", json={"agent": "flaky", "dry_run": False})).json()
    assert (done["cancelled"], done["has_more"]) == (3, False)

    async def cancelled() -> bool:
        return len(await ids(database, status=RunStatus.CANCELLED)) == 3

    await until(cancelled)


WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("cancel", {"agnet": "x"}, "agnet"), ("cancel", {"status": "failed"}, "status"), ("cancel", {}, "status"),
    ("cancel", {"dry_run": False}, "status"), ("cancel", {"agent": "x", "dry_run": "no"}, "dry_run"),
    ("cancel", {"agent": "x", "limit": 1001}, "limit"), ("cancel", {"agent": "x", "limit": 0}, "limit"),
    ("cancel", {"agent": ""}, "agent"), ("cancel", {"agent": "a\x00b"}, "agent"),
    ("cancel", {"principal": 7}, "principal"),
    ("cancel", {"older_than_seconds": -1}, "older_than_seconds"), ("cancel", {"error_code": "x"}, "error_code"),
    ("retry", {"older_than_seconds": 1e300}, "older_than_seconds"), ("retry", {"status": "completed"}, "status"),
    ("retry", {"error_code": "\u202e"}, "error_code"), ("retry", {"older_than_seconds": "1h"}, "older_than_seconds"),
]  # fmt: skip


async def test_what_is_wrong_is_named(admin: httpx.AsyncClient) -> None:
    for action, body, param in WRONG:
        text = json.dumps(body)
        answer = await admin.post(f"/admin/runs/{action}", content=text, headers={"content-type": "application/json"})
        refused(answer, 400, param=param)
    for query, param in (
        ("limit=0", "limit"), ("limit=1001", "limit"), ("status=lost", "status"), ("after=resp_1", "after"),
        ("agent=%00", "agent"), ("principal=%ED%A0%80", "principal"), ("older_than_seconds=0", "older_than_seconds"),
        ("older_than_seconds=nan", "older_than_seconds"), ("older_than_seconds=inf", "older_than_seconds"),
        ("error_code=", "error_code"),
    ):  # fmt: skip
        answer = await admin.get(f"/admin/runs?{query}")
        if query != "principal=%ED%A0%80":
            refused(answer, 400, param=param)
        assert answer.status_code < 500
    for path in (f"{NOBODY}/cancel", f"{NOBODY}/retry", "resp_1/cancel", "%00/retry"):
        refused(await admin.post(f"/admin/runs/{path}"), 404, param="id", code="response_not_found")
    refused(await admin.get(f"/admin/runs/{NOBODY}"), 404, param="id", code="response_not_found")
    for name in ("nobody", "%00", "h:1:x"):
        refused(await admin.post(f"/admin/workers/{name}/drain"), 404, param="owner", code="worker_not_found")
    answer = await admin.post("/admin/runs/cancel", content="{", headers={"content-type": "application/json"})
    assert answer.status_code == 400


async def test_pages_of_runs_follow_each_other(admin: httpx.AsyncClient, database: Database) -> None:
    all_ids = [response_id((await submitted(database, agent="nobody's")).run_id) for _ in range(5)][::-1]
    seen: list[str] = []
    query = "limit=2"
    while True:
        page = (await admin.get(f"/admin/runs?{query}")).json()
        seen += [run["id"] for run in page["data"]]
        if not page["has_more"]:
            break
        query = f"limit=2&after={page['next_after']}"
    assert seen == all_ids


async def test_workers_are_listed_and_asked_to_drain(
    service: Service, http: httpx.AsyncClient, admin: httpx.AsyncClient, database: Database
) -> None:
    alice = bearer(await a_key(database, "alice"))
    await http.post("/responses", json={"input": "wait", "background": True}, headers=alice)

    async def running() -> dict[str, Any] | None:
        [*found] = (await admin.get("/admin/workers")).json()["data"]
        return found[0] if found and found[0]["running"] else None

    worker = await until(running)
    assert worker["alive"] and not worker["drain_requested"] and 0 <= worker["oldest_seconds"] < 60
    asked = await admin.post(f"/admin/workers/{worker['owner']}/drain")
    assert asked.status_code == 200 and asked.json()["drain_requested"]
    await asyncio.wait_for(service.workers[0].dispatcher.drain_asked.wait(), 20)
    assert (await admin.get("/admin/workers")).json()["data"][0]["drain_requested"]
