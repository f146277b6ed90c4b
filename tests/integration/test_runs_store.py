"""Submitting, claiming and finishing: the queue's invariants."""

from __future__ import annotations

import asyncio

import psycopg
import pytest

from outlast.shared.connections import Database
from outlast.shared.domain.runs import Lease, RunStatus
from outlast.shared.store import leases, overdue, runs, submissions
from tests.support.runs import an_ending, an_entry, claimed, claimed_one, finish, submitted


async def test_submitting_twice_is_submitting_once(database: Database) -> None:
    entry = an_entry()
    for _ in range(3):
        assert await database.run(lambda c: submissions.submit(c, entry)) == entry.submission.run_id

    assert len(await claimed(database)) == 1


async def test_runs_of_one_thread_are_executed_one_after_another_in_order(database: Database) -> None:
    first, second, third = [await submitted(database, thread="t") for _ in range(3)]

    order = []
    for _ in range(3):
        [run] = await claimed(database)
        assert await claimed(database) == []
        order.append(run.run_id)
        assert await finish(database, run, 2)
    assert order == [s.run_id for s in (first, second, third)]


async def test_a_thread_is_the_principals_own(database: Database) -> None:
    await submitted(database, thread="t", principal="a")
    await submitted(database, thread="t", principal="b")

    assert len(await claimed(database)) == 2


async def test_no_run_is_stranded_when_submitting_races_finishing(database: Database) -> None:
    """Whatever the interleaving, a run that waits is either seen by the finish or sees it."""
    await submitted(database, thread="t")
    for _ in range(40):
        [run] = await claimed(database)
        _, ended = await asyncio.gather(submitted(database, thread="t"), finish(database, run, 2))
        assert ended


async def test_a_deleted_run_lets_the_next_one_of_its_thread_go(database: Database) -> None:
    first = await submitted(database, thread="t")
    second = await submitted(database, thread="t")

    assert await database.run(lambda c: runs.delete(c, first.run_id, "anonymous"))
    assert not await database.run(lambda c: runs.delete(c, first.run_id, "anonymous"))
    assert (await claimed_one(database)).run_id == second.run_id


async def test_a_released_run_keeps_its_place_at_the_head(database: Database) -> None:
    for _ in range(3):
        await submitted(database)
    first = await claimed_one(database)
    await database.run(lambda c: leases.release(c, [Lease(first.run_id, 1)], cause="test"))

    again = await claimed_one(database)

    assert (again.run_id, again.attempt) == (first.run_id, 2)


async def test_the_deadline_is_set_at_the_first_claim_and_survives_attempts(database: Database) -> None:
    await submitted(database)
    first = await claimed_one(database)
    await database.run(lambda c: leases.release(c, [Lease(first.run_id, 1)], cause="test"))
    second = await claimed_one(database)

    assert first.deadline_at is not None
    assert second.deadline_at == first.deadline_at


async def test_principals_take_turns(database: Database) -> None:
    for _ in range(6):
        await submitted(database, principal="busy")
    for name in ("b", "c"):
        await submitted(database, principal=name)

    order = [(await claimed_one(database)).principal for _ in range(8)]

    assert sorted(order[:3]) == ["b", "busy", "c"]


async def test_two_workers_never_claim_the_same_run(database: Database) -> None:
    for _ in range(60):
        await submitted(database)

    batches = await asyncio.gather(*(claimed(database, limit=7, owner=str(n)) for n in range(12)))

    taken = [run.run_id for batch in batches for run in batch]
    assert len(taken) == len(set(taken)) == 60


async def test_a_queued_run_is_ended_by_cancel_only_while_nobody_holds_it(database: Database) -> None:
    submission = await submitted(database)
    ending = an_ending(2, RunStatus.CANCELLED)
    lease = Lease(submission.run_id, 0)
    run = await claimed_one(database)

    assert not await database.run(lambda c: runs.finish_queued(c, database.schema, lease, ending))
    assert await database.run(lambda c: overdue.request_cancel(c, run.run_id, "anonymous"))
    renewal = await database.run(lambda c: leases.renew(c, [Lease(run.run_id, 1)], lease_seconds=60))
    assert renewal.cancelled == {Lease(run.run_id, 1)}


@pytest.mark.parametrize(
    ("change", "constraint"),
    [
        ("status = 'sleeping', finished_at = now(), response = '{}'", "status_is_known"),
        ("status = 'completed'", "finished_when_terminal"),
        ("status = 'in_progress'", "in_progress_when_claimed"),
        ("attempt = 1", "started_when_claimed"),
        ("charged_attempts = 1", "counters_are_sane"),
        ("retries = -1", "counters_are_sane"),
        ("timeout_seconds = 0", "timeout_is_positive"),
        ("tool_items = 'loud'", "tool_items_is_known"),
        ("idempotency_key = 'k'", "digest_with_key"),
    ],
)
async def test_the_schema_refuses_impossible_rows(database: Database, change: str, constraint: str) -> None:
    await submitted(database)
    connection = await database.connect()
    async with connection:
        with pytest.raises(psycopg.errors.CheckViolation, match=constraint):
            await connection.execute(f"UPDATE runs SET {change}".encode())
