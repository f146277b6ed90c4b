"""Submissions that share a commit: what is stored, in which turn, and what happens to the one that cannot be."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from outlast.api.group_commit import GroupCommit
from outlast.api.metrics.instruments import Metrics
from outlast.infra.embedded import Postgres
from outlast.infra.migrate import migrate, shipped
from outlast.shared.connections import Database, fixed
from outlast.shared.domain.errors import Unavailable
from outlast.shared.store import events, runs, submissions
from outlast.shared.store.submissions import BATCH_SESSION, BatchRefused, Entry, Refused
from tests.support.runs import an_entry, claimed, claimed_one, finish
from tests.support.waiting import until

_letters = random.Random(1).choices([chr(c) for c in range(0x20000, 0x2A000)], k=768)
TOO_LONG: dict[str, Any] = {"thread": "".join(_letters[:512]), "principal": "".join(_letters[512:])}
"""A name and a principal that are not too long by themselves, but are as a key of one index."""


@pytest.fixture
async def commit(database: Database) -> AsyncGenerator[GroupCommit]:
    async with GroupCommit(database, Metrics()).running() as running:
        yield running


async def batch(database: Database, *entries: Entry) -> set[UUID]:
    connection = database.dedicated(**BATCH_SESSION)
    try:
        return await connection.run(lambda c: submissions.submit_batch(c, entries))
    finally:
        await connection.close()


def ids(entries: Sequence[Entry]) -> list[UUID]:
    return [entry.submission.run_id for entry in entries]


async def rows(database: Database, query: str) -> list[tuple[object, ...]]:
    return await database.run(lambda c: _rows(c, query))


async def _rows(connection: object, query: str) -> list[tuple[object, ...]]:
    return await (await connection.execute(query)).fetchall()  # type: ignore[attr-defined]


async def test_a_batch_stores_what_single_submissions_store(database: Database) -> None:
    previous = an_entry()
    asked = {
        "principal": "p", "agent": "a", "queue": "q", "priority": 3, "timeout_seconds": 7, "background": False,
        "store": False, "previous_run_id": previous.submission.run_id,
    }  # fmt: skip
    one, other = an_entry(**asked), an_entry(**asked, idempotency_key="k", request_digest=b"d")
    assert await batch(database, previous, one, other) == set(ids([previous, one, other]))
    alone = an_entry(**asked)
    await database.run(lambda c: submissions.submit(c, alone))

    stored = await rows(
        database,
        "SELECT principal, agent, queue, priority, timeout_seconds, background, store, previous_run_id, tool_items, "
        "request, status, ready, turn, idempotency_key, request_digest FROM runs WHERE agent = 'a' ORDER BY turn",
    )
    same = [(*row[:12],) for row in stored]
    assert same[0] == same[1] == same[2]
    assert [row[12:] for row in stored] == [(1, None, None), (2, "k", b"d"), (3, None, None)]
    for entry in (one, other, alone):
        run = await database.run(lambda c, e=entry: runs.read(c, e.submission.run_id, "p"))
        assert run and (run.thread, run.created_at) == (entry.submission.thread, entry.submission.created_at)
        lines = await database.run(lambda c, e=entry: events.read_all(c, e.submission.run_id))
        assert "\n".join(lines) == entry.log.data and run.last_seq == entry.log.last_seq
    first = await rows(database, "SELECT previous_run_id FROM runs WHERE agent = 'test'")
    assert first == [(None,)]


async def test_what_waits_shares_a_statement(database: Database, commit: GroupCommit) -> None:
    entries = [an_entry() for _ in range(300)]
    assert await asyncio.gather(*map(commit.store, entries)) == ids(entries)

    commits = await rows(database, "SELECT count(DISTINCT xmin::text) FROM runs")
    assert commits == [(2,)]  # as many as fit at first, and the rest
    assert len(await claimed(database, limit=400)) == 300


async def test_a_batch_sent_again_stores_nothing_twice(database: Database, commit: GroupCommit) -> None:
    entries = [an_entry(), an_entry(thread="t"), an_entry(idempotency_key="k", request_digest=b"d")]
    assert await batch(database, *entries) == set(ids(entries))
    assert await batch(database, *entries) == set()

    assert await asyncio.gather(*map(commit.store, entries)) == ids(entries)
    assert await rows(database, "SELECT count(*) FROM runs") == [(3,)]


async def test_runs_of_one_thread_keep_their_order_however_they_come(database: Database, commit: GroupCommit) -> None:
    entries = [an_entry(thread="t") for _ in range(5)]
    for together in (entries[:3], entries[3:]):
        assert await asyncio.gather(*map(commit.store, together)) == ids(together)
    for entry in entries:
        run = await claimed_one(database)
        assert run.run_id == entry.submission.run_id and await claimed(database) == []
        assert await finish(database, run, 2)


async def test_a_thread_that_another_transaction_holds_keeps_nobody_else_waiting(
    database: Database, commit: GroupCommit
) -> None:
    await commit.store(an_entry(thread="held"))
    await finish(database, await claimed_one(database), 2)
    connection = await database.connect(idle_in_transaction_session_timeout="0")
    async with connection:
        await connection.execute("BEGIN")
        await connection.execute("SELECT FROM threads WHERE name = 'held' FOR UPDATE")
        waits, goes = an_entry(thread="held"), an_entry()
        waiting = asyncio.create_task(commit.store(waits))
        assert await commit.store(goes) == goes.submission.run_id
        assert not waiting.done()
        await connection.execute("COMMIT")
    assert await waiting == waits.submission.run_id


async def test_an_entry_that_postgres_refuses_fails_alone(database: Database, commit: GroupCommit) -> None:
    bad = [an_entry(thread="a\0b"), an_entry(**TOO_LONG), an_entry(timeout_seconds=0)]
    good = [an_entry() for _ in range(4)]
    for entry in bad:
        with pytest.raises(BatchRefused):
            await batch(database, good[0], entry)
    mixed = [good[0], bad[0], good[1], bad[1], good[2], bad[2], good[3]]
    told = await asyncio.gather(*map(commit.store, mixed), return_exceptions=True)

    assert told[::2] == ids(good) and all(isinstance(error, Refused) for error in told[1::2])
    assert await rows(database, "SELECT count(*) FROM runs") == [(4,)]
    assert await commit.store(last := an_entry()) == last.submission.run_id


async def test_a_request_that_is_given_up_disturbs_nobody(database: Database, commit: GroupCommit) -> None:
    entries = [an_entry(thread="t" if n % 2 else f"t{n}") for n in range(20)]
    tasks = [asyncio.create_task(commit.store(entry)) for entry in entries]
    await asyncio.sleep(0)
    for task in tasks[::3]:
        task.cancel()
    told = await asyncio.gather(*tasks, return_exceptions=True)
    kept = [n for n in range(20) if n % 3]
    assert [told[n] for n in kept] == [entries[n].submission.run_id for n in kept]


async def test_one_key_at_two_replicas_at_once_is_one_run(database: Database) -> None:
    async with GroupCommit(database, Metrics()).running() as one, GroupCommit(database, Metrics()).running() as other:
        for n in range(20):
            key = {"idempotency_key": f"k{n}", "request_digest": b"d"}
            stored = await asyncio.gather(*(where.store(an_entry(**key)) for where in (one, other, one, other)))
            assert len(set(stored)) == 1
    assert await rows(database, "SELECT count(*) FROM runs") == [(20,)]


async def test_replicas_that_meet_at_threads_and_keys_do_not_deadlock(database: Database) -> None:
    connections = [database.dedicated(**BATCH_SESSION) for _ in range(3)]

    async def store(replica: int, backwards: bool) -> None:
        for round_ in range(20):
            entries = [
                an_entry(thread=f"t{round_}-{n}", idempotency_key=f"{round_}-{(n * 7 + replica) % 40}",
                         request_digest=b"d")
                for n in range(40)
            ]  # fmt: skip
            await connections[replica].run(
                lambda c: submissions.submit_batch(c, entries[::-1] if backwards else entries)
            )

    try:
        await asyncio.gather(store(0, False), store(1, True), store(2, False))  # BatchRefused if there is a deadlock
    finally:
        for connection in connections:
            await connection.close()
    assert await rows(database, "SELECT count(*) > 600 FROM runs") == [(True,)]


# -- turns -------------------------------------------------------------------------------------------------------------


async def order(database: Database, limit: int) -> str:
    return "".join(run.principal for run in await claimed(database, limit=limit))


async def test_who_submits_one_run_is_next_after_whoever_submitted_a_thousand(
    database: Database, commit: GroupCommit
) -> None:
    await asyncio.gather(*(commit.store(an_entry(principal="A")) for _ in range(1000)))
    assert await order(database, 3) == "AAA"
    await commit.store(an_entry(principal="B"))
    assert "B" in await order(database, 2)


async def test_turns_are_fair_within_a_batch_and_across(database: Database) -> None:
    for principals in ("AAAABBC", "AABBBCD"):
        entries = [an_entry(principal=principal) for principal in principals]
        assert len(await batch(database, *entries)) == len(entries)
    taken = [await order(database, 1) for _ in range(14)]
    rounds = ["".join(sorted(taken[begin:end])) for begin, end in ((0, 4), (4, 7), (7, 9), (9, 11), (11, 13))]
    assert rounds == ["ABCD", "ABC", "AB", "AB", "AB"] and taken[13] == "A"


@pytest.mark.parametrize("analysed_while_empty", [False, True])
async def test_the_probes_read_their_indexes_however_stale_the_statistics_are(
    database: Database, analysed_while_empty: bool
) -> None:
    connection = await database.connect(**BATCH_SESSION, statement_timeout="60s")
    async with connection:
        if analysed_while_empty:
            await connection.execute("ANALYZE")
        for _ in range(10):  # the plan is made, and kept, while the tables are all but empty
            await submissions.submit_batch(connection, [an_entry(principal="A")])
        for _ in range(40):
            await submissions.submit_batch(connection, [an_entry(principal="A") for _ in range(250)])
        await connection.execute("LOAD 'auto_explain'")
        await connection.execute("SET auto_explain.log_min_duration = 0")
        await connection.execute("SET client_min_messages = log")
        plans: list[str] = []
        connection.add_notice_handler(lambda notice: plans.append(notice.message_primary or ""))
        await submissions.submit_batch(connection, [an_entry(principal="A"), an_entry(principal="B")])

    [plan] = [plan for plan in plans if "INSERT INTO runs" in plan]
    for index in ("runs_backlog", "runs_claim", "thread_names"):
        assert f"using {index}" in plan, plan
    assert "Seq Scan" not in plan and "Bitmap" not in plan, plan


# -- a database that goes away -----------------------------------------------------------------------------------------


async def test_what_waits_while_connections_die_is_stored_once(database: Database, commit: GroupCommit) -> None:
    async def kill() -> None:
        while True:
            await rows(
                database,
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()",
            )
            await asyncio.sleep(0)

    killer = asyncio.create_task(kill())
    entries = [an_entry(thread=f"t{n % 100}") for n in range(400)]
    stored = await asyncio.gather(*map(commit.store, entries), return_exceptions=True)
    killer.cancel()
    await asyncio.gather(killer, return_exceptions=True)

    told = {run_id for run_id in stored if isinstance(run_id, UUID)}
    assert all(isinstance(result, UUID | Unavailable) for result in stored)
    assert told <= {row[0] for row in await rows(database, "SELECT id FROM runs")}


async def test_a_database_that_is_back_in_time_is_waited_for(tmp_path: Path) -> None:
    server = Postgres(tmp_path / "postgres", settings={"fsync": "off"})
    await asyncio.to_thread(server.start)
    try:
        database = Database(fixed(server.url), schema="outlast", application="tests")
        await migrate(database, shipped())
        async with database.pooled(max_connections=3), GroupCommit(database, Metrics()).running() as commit:
            await commit.store(an_entry())
            await asyncio.to_thread(server.kill)
            waiting: list[asyncio.Task[UUID]] = []

            async def failing() -> bool:
                if all(task.done() for task in waiting):  # a server process may outlive its parent for a moment
                    waiting.extend(asyncio.create_task(commit.store(an_entry())) for _ in range(50))
                return commit.failing

            await until(failing)
            await asyncio.to_thread(server.start)
            await asyncio.gather(*waiting)
            assert await rows(database, "SELECT count(*) FROM runs") == [(1 + len(waiting),)]

            await asyncio.to_thread(server.kill)
            with pytest.raises(Unavailable):
                while True:
                    await commit.store(an_entry())
    finally:
        await asyncio.to_thread(server.stop)
