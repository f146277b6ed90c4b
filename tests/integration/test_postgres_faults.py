"""Postgres fails in every way it can: nothing is lost or doubled, no attempt is charged, and it is said clearly."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Generator
from uuid import uuid4

import httpx
import pytest
from psycopg.errors import DeadlockDetected, DiskFull, ReadOnlySqlTransaction
from pydantic import SecretStr

from outlast.agent import Context, Request
from outlast.shared.connections import Connection, Database, fixed
from outlast.shared.domain.errors import LeaseLost, Unavailable
from outlast.shared.domain.ids import parse_response_id
from outlast.shared.settings import Settings
from outlast.shared.store import runs
from tests.support.log import check_log, data_lines, stored_lines, streamed
from tests.support.outages import Outages
from tests.support.proxy import Mode, Proxy
from tests.support.service import Service, gated_by, serving, worker
from tests.support.statements import LostAnswers
from tests.support.waiting import until

WORDS = 60
PACE_SECONDS = 0.01
TEXT = "".join(f"{number} " for number in range(WORDS))


async def count(_request: Request, _context: Context):
    for number in range(WORDS):
        await asyncio.sleep(PACE_SECONDS)
        yield f"{number} "


@pytest.fixture
def way(database_url: str) -> Generator[Proxy]:
    """The way to the database."""
    with Proxy(database_url) as proxy:
        yield proxy


@pytest.fixture
def by_way(settings: Settings, way: Proxy) -> Settings:
    return settings.model_copy(update={"database_url": SecretStr(way.url)})


@pytest.fixture
def outages(database_url: str) -> Outages:
    return Outages(database_url)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits long for the database; two leases are over when a submission is given up."""
    monkeypatch.setattr("outlast.api.group_commit._PATIENCE_SECONDS", 2.0)
    monkeypatch.setattr("outlast.shared.connections.database.ANSWER_SECONDS", 0.5)
    monkeypatch.setattr(Connection, "answer_seconds", 0.5)


async def begun(service: Service, number: int) -> list[str]:
    """Runs whose agents are at work."""
    made = [await service.openai.responses.create(input="x", background=True) for _ in range(number)]
    ids = [response.id for response in made]

    async def working() -> bool:
        states = [await service.openai.responses.retrieve(id) for id in ids]
        return all(state.status == "in_progress" for state in states)

    await until(working)
    return ids


async def check_whole(service: Service, database: Database, id: str, text: str = TEXT) -> int:
    """The run has completed with all it said, as its stream and its log tell. Returns its attempts."""
    lines = await until(lambda: _ended(service, database, id))
    events = check_log(lines)
    assert data_lines(await streamed(service.url, id)) == lines
    assert events[-1]["response"]["output"][-1]["content"][0]["text"] == text
    assert (await service.openai.responses.retrieve(id)).output_text == text
    run_id = parse_response_id(id)
    assert run_id is not None
    run = await database.run(lambda c: runs.read(c, run_id, "anonymous"))
    assert run is not None and run.charged_attempts == 0
    return run.attempt


async def _ended(service: Service, database: Database, id: str) -> list[str]:
    run = await service.openai.responses.retrieve(id)
    return await stored_lines(database, id) if run.status in ("completed", "failed") else []


async def test_backends_that_are_killed_again_and_again_lose_nothing(
    settings: Settings, database: Database, outages: Outages
) -> None:
    async with serving(settings, {"count": count}) as service:
        ids = await begun(service, 5)
        viewers = [asyncio.create_task(streamed(service.url, id)) for id in ids]
        for _ in range(5):
            await asyncio.to_thread(outages.end_sessions)
            await asyncio.wait(viewers, timeout=0.1)
        seen = [data_lines(await viewer) for viewer in viewers]

        assert [await check_whole(service, database, id) for id in ids] == [1] * 5
        assert seen == [await stored_lines(database, id) for id in ids]


@pytest.mark.parametrize(
    ("statement", "attempts"),
    [
        ("INSERT INTO runs", 1),
        ("INSERT INTO run_leases", 2),
        ("SET last_seq = l.last_seq", 1),
        ("SET last_seq = $", 1),
    ],
    ids=["submit", "claim", "append", "finish"],
)
async def test_a_commit_whose_answer_is_lost_is_neither_lost_nor_doubled(
    by_way: Settings, way: Proxy, database: Database, statement: str, attempts: int
) -> None:
    way.watch = LostAnswers(statement, times=1)
    unhurried = by_way.model_copy(update={"lease_seconds": 10.0})  # a pause of the machine makes no other attempt
    async with serving(unhurried, {"count": count}, workers=0) as service:
        response = await service.openai.responses.create(input="x", background=True)
        async with worker(service.settings, {"count": count}):  # its first claim finds the run
            attempt = await check_whole(service, database, response.id)
        async with httpx.AsyncClient(base_url=service.url) as http:
            listed = (await http.get("/responses")).json()["data"]

    assert (attempt, way.answers_lost) == (attempts, 1)
    assert [run["id"] for run in listed] == [response.id]


async def test_refused_logins_for_two_leases_end_no_run_and_are_no_attempt(
    settings: Settings, database: Database, outages: Outages
) -> None:
    async with serving(settings, {"count": count}) as service:
        ids = await begun(service, 5)
        with outages.refused_logins():
            answer = await refusal(service)  # after two leases
        for id in ids:
            await check_whole(service, database, id)

    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert answer.json()["error"]["message"] == "The database cannot be reached."


async def refusal(service: Service) -> httpx.Response:
    async with httpx.AsyncClient(base_url=service.url, timeout=20) as http:
        return await http.post("/responses", json={"input": "x", "background": True})


async def test_a_read_only_database_refuses_submissions_clearly_and_runs_wait_for_its_end(
    settings: Settings, database: Database, outages: Outages
) -> None:
    gate = asyncio.Event()
    async with serving(settings, {"gated": gated_by(gate)}) as service:
        [id] = await begun(service, 1)
        with outages.read_only():
            gate.set()
            answer = await refusal(service)
        await check_whole(service, database, id, "x")
        stored = (await service.openai.responses.create(input="y")).output_text

    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert answer.json()["error"]["message"] == "The database is read-only."
    assert stored == "y"


async def test_a_database_that_falls_silent_holds_nobody_for_ever(
    by_way: Settings, way: Proxy, database: Database
) -> None:
    async with serving(by_way, {"count": count}) as service:
        ids = await begun(service, 3)
        viewers = [asyncio.create_task(streamed(service.url, id)) for id in ids]
        way.mode = Mode.BLACK_HOLE
        answer = await refusal(service)
        way.mode = Mode.PASS
        seen = [data_lines(await viewer) for viewer in viewers]
        for id in ids:
            await check_whole(service, database, id)

        assert answer.status_code == 503
        assert seen == [await stored_lines(database, id) for id in ids]


async def test_connections_to_a_peer_that_is_gone_cost_one_caller_one_wait(way: Proxy) -> None:
    """As after a failover that told nobody: each of the pool's connections is dead, new ones would not be."""
    together = asyncio.Barrier(5)
    tries = 0

    async def hold(connection: Connection) -> None:
        await connection.execute("SELECT 1")
        await together.wait()

    async def ask(connection: Connection) -> None:
        nonlocal tries
        tries += 1
        await connection.execute("SELECT 1")

    async with Database(fixed(way.url), schema="outlast", application="tests").pooled(max_connections=5) as opened:
        await asyncio.gather(*(opened.run(hold) for _ in range(5)))
        assert way.freeze() == 5
        for _ in range(10):
            await opened.run(ask)

    assert tries == 10 + 1


async def test_who_gives_up_on_a_silent_database_is_let_go(way: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """psycopg would ask the server to cancel, for 5 s, and then wait for its answer, for 5 s more."""
    monkeypatch.setattr("outlast.shared.connections.database.ANSWER_SECONDS", 60)
    asking = asyncio.Event()

    async def ask(connection: Connection) -> None:
        way.mode = Mode.BLACK_HOLE
        asking.set()
        await connection.execute("SELECT 1")

    async with Database(fixed(way.url), schema="outlast", application="tests").pooled(max_connections=1) as opened:
        work = asyncio.create_task(opened.run(ask))
        await asking.wait()
        work.cancel()
        done, _ = await asyncio.wait({work}, timeout=4)

    assert done and work.cancelled()


@pytest.mark.parametrize("error", [DeadlockDetected, DiskFull, ReadOnlySqlTransaction])
async def test_what_passes_is_tried_again(database: Database, error: type[Exception]) -> None:
    tries: list[int] = []

    async def work(_connection: Connection) -> str:
        tries.append(1)
        if len(tries) < 3:
            raise error
        return "done"

    assert await database.run(work) == "done"
    with pytest.raises(Unavailable):
        tries.clear()
        await database.run(work, patience_seconds=0)


async def test_a_database_that_is_busy_is_not_said_to_be_away(database: Database) -> None:
    slow, waiting = database.dedicated(statement_timeout="50ms"), database.dedicated(lock_timeout="50ms")
    try:
        async with await database.connect() as holder, holder.transaction():
            await holder.execute("LOCK TABLE runs")
            with pytest.raises(Unavailable) as locked:
                await waiting.run(lambda c: c.execute("SELECT FROM runs"))
        with pytest.raises(Unavailable) as timed_out:
            await slow.run(lambda c: c.execute("SELECT pg_sleep(4)"))
    finally:
        await slow.close()
        await waiting.close()

    assert locked.value.told == "The database did not grant a lock within its time limit."
    assert timed_out.value.told == "The database did not finish a statement within its time limit."
    assert "statement timeout" in timed_out.value.message


async def test_a_pool_whose_connections_are_all_in_use_is_not_said_to_be_away(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("outlast.shared.connections.database._POOL_SECONDS", 0.2)
    held, done = asyncio.Event(), asyncio.Event()

    async def hold(_connection: Connection) -> None:
        held.set()
        await done.wait()

    opened = Database(fixed(database_url), schema="outlast", application="tests").pooled(max_connections=1)
    async with opened as database, asyncio.TaskGroup() as tasks:
        tasks.create_task(database.run(hold))
        await held.wait()
        with pytest.raises(Unavailable) as refused:
            await database.run(lambda c: c.execute("SELECT 1"), patience_seconds=0)
        done.set()

    assert refused.value.told == "All 1 connections of this process to the database are busy."


async def test_work_of_a_worker_waits_for_its_busy_connections(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("outlast.shared.connections.database._POOL_SECONDS", 0.1)
    held, told = asyncio.Event(), asyncio.Event()

    async def hold(_connection: Connection) -> None:
        held.set()
        await told.wait()

    def busy(connections: int) -> None:
        assert connections == 1
        told.set()

    whole = Database(fixed(database_url), schema="outlast", application="tests", when_busy=busy)
    async with whole.pooled(max_connections=1) as database, asyncio.TaskGroup() as tasks:
        tasks.create_task(database.run(hold))
        await held.wait()
        await database.run(lambda c: c.execute("SELECT 1"), patience_seconds=0)

    assert told.is_set()


@pytest.mark.parametrize("url", ["s3cr3t://x", "postgresql://u:s3c r3t@h/x", "postgresql://u:s3cr3t@[::1/x"])
async def test_an_address_with_a_typing_error_is_not_quoted(url: str) -> None:
    with pytest.raises(Unavailable, match="DATABASE_URL") as refused:
        await Database(fixed(url), schema="outlast", application="tests").connect()

    assert "s3c" not in "".join(traceback.format_exception(refused.value))


async def test_a_statement_behind_one_that_failed_in_its_pipeline_is_not_taken_for_prepared(database_url: str) -> None:
    """The driver prepares what it has executed five times, and does not notice when that was never executed."""

    async def write(connection: Connection) -> int:
        cursor = await connection.execute("SELECT 1 + %s", (1,))
        row = await cursor.fetchone()
        return row[0] if row else 0

    async def lose(connection: Connection) -> None:
        async with connection.pipeline():
            await connection.execute("SELECT fence(%s, 1)", (uuid4(),))
            await connection.execute("SELECT 1 + %s", (1,))

    async with Database(fixed(database_url), schema="outlast", application="tests").pooled(
        max_connections=1
    ) as database:
        for _ in range(5):
            assert await database.run(write) == 2
        with pytest.raises(LeaseLost):
            await database.run(lose)
        assert await database.run(write) == 2


async def test_a_client_that_leaves_is_not_counted_twice(by_way: Settings, way: Proxy, database: Database) -> None:
    """Two wait, and one leaves: when the answer is lost, the other one's run must not be cancelled."""
    gate = asyncio.Event()
    way.watch = LostAnswers("greatest(connections", times=1)
    async with serving(by_way, {"gated": gated_by(gate)}) as service, httpx.AsyncClient(timeout=20) as client:
        asking = asyncio.create_task(client.post(f"{service.url}/responses", json={"input": "x"}))

        async def connections() -> int:
            row = await (await database.run(lambda c: c.execute("SELECT max(connections) FROM runs"))).fetchone()
            return row[0] or 0 if row else 0

        await until(connections)
        [run] = (await service.openai.get("/responses", cast_to=httpx.Response)).json()["data"]
        url = f"{service.url}/responses/{run['id']}"
        assert (await client.get(url, params={"wait": 0.2})).json()["status"] == "in_progress"
        assert (await connections(), way.answers_lost) == (1, 1)
        gate.set()
        assert (await asking).json()["status"] == "completed"
