"""Runs that have ended cost those that come nothing: no statement of theirs reads the past."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

import pytest

from outlast.shared.connections import PINNED_PLAN, Connection, Database
from outlast.shared.domain.runs import MultitaskStrategy
from outlast.shared.store import claims, events, leases, overdue, retries, runs, submissions, sweeping, workers
from outlast.shared.store.submissions import BATCH_SESSION
from tests.support.aging import finished
from tests.support.bulk import finish_many, work_on
from tests.support.runs import a_submission, an_append, an_ending, an_entry

PAST = 2000
TABLES = ("runs", "threads", "run_heads", "run_events", "run_leases")


@pytest.fixture(params=["analysed", "never analysed"])
async def past(database: Database, request: pytest.FixtureRequest) -> AsyncGenerator[Connection]:
    """A connection to a database with many finished runs: one thread has half of them, the others have one each."""
    await finished(database, thread="long")
    async with await database.connect() as connection:
        for table in TABLES:
            await connection.execute(f"ALTER TABLE {table} SET (autovacuum_enabled = false)".encode())
        await finish_many(connection, PAST)
        if request.param == "analysed":
            await connection.execute("VACUUM (ANALYZE)")
        await fetched(connection)
        yield connection


async def fetched(connection: Connection) -> int:
    """Rows that statements of this connection have read so far."""
    counts = [await work_on(connection, table) for table in TABLES]
    await connection.execute("SELECT pg_stat_clear_snapshot()")
    return sum(read for _, read in counts)


async def scanned(connection: Connection) -> int:
    return sum([(await work_on(connection, table))[0] for table in TABLES])


@pytest.fixture
async def cost(past: Connection) -> Callable[[Awaitable[Any]], Awaitable[Any]]:
    """Awaits a piece of work on that connection; it must have read few rows."""

    async def few(work: Awaitable[Any]) -> Any:
        before, scans = await fetched(past), await scanned(past)
        answer = await work
        read = await fetched(past) - before
        assert read < 150, f"{read} rows were read"
        assert await scanned(past) == scans
        return answer

    return few


Cost = Callable[[Awaitable[Any]], Awaitable[Any]]


async def pin(connection: Connection, settings: dict[str, str]) -> None:
    for name, value in settings.items():
        await connection.execute(f"SET {name} = {value}".encode())


async def test_a_run_from_its_submission_to_its_end(past: Connection, cost: Cost) -> None:
    await pin(past, BATCH_SESSION)
    batch = [an_entry(a_submission(thread="long")), *(an_entry() for _ in range(5))]
    stored = await cost(submissions.submit_batch(past, batch))
    assert len(stored) == 6
    waiting = an_entry(a_submission(thread="long"))
    await cost(submissions.submit(past, waiting))

    await pin(past, PINNED_PLAN)
    for begun in (True, False):
        held = await cost(claims.claim(past, queues=["default"], limit=6, owner="me", lease_seconds=60, begun=begun))
    assert len(held) == 6
    found = await cost(runs.read_held(past, held))
    assert len((await cost(leases.renew(past, held, lease_seconds=60))).held) == 6
    appended = [an_append(run, 2, 3) for run in found]
    assert len(await cost(events.append(past, "outlast", appended))) == 6
    [first] = [lease for lease in held if lease.run_id == batch[0].submission.run_id]
    assert await cost(runs.finish(past, "outlast", first, an_ending(5)))
    assert await cost(runs.read(past, first.run_id, "anonymous"))
    await cost(events.compact(past, first.run_id))
    assert len(await cost(leases.release(past, held, cause="test"))) == 5
    [begun] = await cost(claims.claim(past, queues=["default"], limit=1, owner="me", lease_seconds=60, begun=True))
    assert await cost(retries.release(past, begun, seconds=-1, cause="test"))
    assert await cost(runs.delete(past, begun.run_id, "anonymous"))


async def test_a_run_that_interrupts_the_others_of_its_thread(past: Connection, cost: Cost) -> None:
    first = a_submission(thread="short")
    await submissions.submit(past, an_entry(first))
    for _ in range(7):  # the server has settled on a plan for any parameters
        interrupting = a_submission(thread="short", multitask_strategy=MultitaskStrategy.INTERRUPT)
        await cost(submissions.submit(past, an_entry(interrupting)))
    query = "SELECT cancel_requested_at IS NOT NULL FROM runs WHERE id = %s"
    assert await (await past.execute(query, (first.run_id,))).fetchone() == (True,)


async def test_a_sweep(past: Connection, cost: Cost) -> None:
    for entry in (an_entry(a_submission(thread="long")), an_entry(), an_entry(a_submission(thread="long"))):
        await submissions.submit(past, entry)
    await pin(past, PINNED_PLAN)
    [lost, delayed] = await claims.claim(past, queues=["default"], limit=2, owner="me", lease_seconds=-1)
    await retries.release(past, delayed, seconds=-1, cause="test")

    assert await cost(sweeping.take_back_expired(past)) == [lost.run_id]
    assert await cost(retries.wake(past)) == [delayed.run_id]
    assert not await cost(retries.due_within(past, 60))
    assert await cost(sweeping.promote_orphans(past)) == 0
    assert await cost(sweeping.ready_queues(past)) == ["default"]
    await cost(sweeping.anything_runs(past))
    await cost(workers.forget_silent(past))
    assert len(await cost(overdue.find(past, grace_seconds=1, limit=50))) == 0
    assert await cost(overdue.cancel_abandoned(past, after_seconds=1, limit=50)) == []


async def test_a_thread_that_was_forgotten(past: Connection, cost: Cost) -> None:
    first = a_submission(thread="long")
    for entry in (an_entry(first), an_entry(a_submission(thread="long"))):
        await submissions.submit(past, entry)
    await past.execute("DELETE FROM runs WHERE id = %s", (first.run_id,))
    await pin(past, PINNED_PLAN)
    assert await cost(sweeping.promote_orphans(past)) == 1
