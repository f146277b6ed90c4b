"""A run that waits for its retry, in the database: nobody's, not to be claimed, and still its thread's active one."""

from __future__ import annotations

from outlast.shared.connections import Database
from outlast.shared.domain.runs import Lease, Run
from outlast.shared.store import leases, overdue, retries, runs, submissions, sweeping
from tests.support.runs import an_entry, claimed, claimed_one, finish, put_back, submitted


async def waiting(database: Database, **changes: str) -> Run:
    await submitted(database, **changes)
    run = await claimed_one(database)
    assert await put_back(database, run)
    return run


async def make_due(database: Database) -> None:
    await database.run(lambda c: c.execute("UPDATE runs SET run_at = now() - interval '1 second' WHERE NOT ready"))


async def test_it_is_claimed_again_when_its_time_has_come_and_not_before(database: Database) -> None:
    run = await waiting(database)

    assert await database.run(retries.wake) == []
    assert await claimed(database) == []
    await make_due(database)
    assert await database.run(retries.wake) == [run.run_id]
    again = await claimed_one(database)

    assert (again.run_id, again.attempt, again.retries, again.last_cause) == (run.run_id, 2, 1, "TimeoutError")
    assert again.deadline_at == run.deadline_at
    assert again.charged_attempts == 0


async def test_only_the_attempt_that_holds_it_can_put_it_back(database: Database) -> None:
    run = await waiting(database)

    assert not await put_back(database, run)
    await make_due(database)
    await database.run(retries.wake)
    await claimed_one(database)
    assert not await put_back(database, run)


async def test_no_later_run_of_its_thread_begins_before_it(database: Database) -> None:
    run = await waiting(database, thread="t")

    later = await submitted(database, thread="t")
    batch = an_entry(thread="t")
    assert await database.run(lambda c: submissions.submit_batch(c, [batch])) == set()
    assert await database.run(lambda c: submissions.submit(c, batch))
    await make_due(database)
    await database.run(sweeping.promote_orphans)
    assert await claimed(database) == []

    await database.run(retries.wake)
    again = await claimed_one(database)
    assert again.run_id == run.run_id
    assert await finish(database, again, 2)
    assert (await claimed_one(database)).run_id == later.run_id


async def test_a_deleted_one_lets_the_next_of_its_thread_go(database: Database) -> None:
    run = await waiting(database, thread="t")
    later = await submitted(database, thread="t")

    assert await database.run(lambda c: runs.delete(c, run.run_id, "anonymous"))

    assert (await claimed_one(database)).run_id == later.run_id


async def test_one_that_is_to_be_cancelled_does_not_wait(database: Database) -> None:
    await submitted(database)
    run = await claimed_one(database)
    assert await database.run(lambda c: overdue.request_cancel(c, run.run_id, "anonymous"))

    assert await put_back(database, run)

    assert (await claimed_one(database)).run_id == run.run_id


async def test_the_cause_of_a_charge_is_kept(database: Database) -> None:
    await submitted(database)
    first = await claimed_one(database)
    await database.run(
        lambda c: leases.release(c, [Lease(first.run_id, first.attempt)], cause="child_exited_1", charge=True)
    )

    assert await put_back(database, await claimed_one(database), seconds=0)
    await database.run(retries.wake)

    again = await claimed_one(database)
    assert (again.last_cause, again.charged_attempts, again.retries) == ("child_exited_1", 1, 1)
