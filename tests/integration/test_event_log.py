"""The event log's invariants: numbers without gaps, one writer, one end."""

from __future__ import annotations

import asyncio

from outlast.shared.connections import Database, fixed
from outlast.shared.domain.events import Event
from outlast.shared.domain.ids import response_id
from outlast.shared.domain.measures import Tally
from outlast.shared.domain.runs import Lease, RunStatus
from outlast.shared.settings import Settings
from outlast.shared.store import events, leases, runs, sweeping
from outlast.worker.flusher import Flusher
from tests.support.bulk import fill, work_on
from tests.support.log import check_log, stored_lines
from tests.support.runs import an_append, append, claimed, claimed_one, delta, finish, submitted


async def test_a_run_begins_with_created_and_queued_and_an_attempt_continues_after_them(database: Database) -> None:
    await submitted(database)
    run = await claimed_one(database)

    assert run.last_seq == 1
    assert await append(database, an_append(run, 2, 3)) == {run.run_id}
    assert (await database.run(lambda c: events.heads(c, [run.run_id]))) == {run.run_id: 4}


async def test_an_append_out_of_order_or_repeated_is_rejected_and_changes_nothing(database: Database) -> None:
    await submitted(database)
    run = await claimed_one(database)
    await append(database, an_append(run, 2, 2))

    assert await append(database, an_append(run, 5)) == set()  # a hole
    assert await append(database, an_append(run, 2, 2)) == set()  # again
    assert await append(database, an_append(run, 3)) == set()  # overlapping
    lines = await stored_lines(database, response_id(run.run_id))
    assert len(lines) == 4


async def test_a_repeated_append_is_known_to_be_applied(database: Database) -> None:
    await submitted(database)
    run = await claimed_one(database)
    first = an_append(run, 2, 2)
    await append(database, first)

    assert await database.run(lambda c: events.applied(c, [first])) == {run.run_id}
    assert await database.run(lambda c: events.applied(c, [an_append(run, 4)])) == set()


async def test_one_append_serves_many_runs_and_rejects_only_those_that_are_not_ours(database: Database) -> None:
    for _ in range(3):
        await submitted(database)
    ours, taken, closed = await claimed(database)
    await database.run(lambda c: leases.release(c, [Lease(taken.run_id, taken.attempt)], cause="test"))
    [again] = await claimed(database)
    assert again.run_id == taken.run_id and again.attempt == 2
    assert await finish(database, closed, 2)

    accepted = await append(database, an_append(ours, 2), an_append(taken, 2), an_append(closed, 3))

    assert accepted == {ours.run_id}
    assert await append(database, an_append(again, 2)) == {taken.run_id}


async def test_an_old_attempt_writes_nothing_after_a_takeover(database: Database) -> None:
    await submitted(database)
    old = await claimed_one(database, lease_seconds=-1)
    await append(database, an_append(old, 2))
    assert await database.run(sweeping.take_back_expired) == [old.run_id]
    new = await claimed_one(database)

    assert (new.attempt, new.last_seq) == (2, 2)
    assert await append(database, an_append(old, 3)) == set()
    assert not await finish(database, old, 3)
    assert await database.run(lambda c: leases.release(c, [Lease(old.run_id, old.attempt)], cause="test")) == []
    renewal = await database.run(lambda c: leases.renew(c, [Lease(old.run_id, old.attempt)], lease_seconds=60))
    assert renewal.held == frozenset()
    assert await append(database, an_append(new, 3)) == {new.run_id}
    assert await finish(database, new, 4)


async def test_status_and_terminal_event_change_together_once(database: Database) -> None:
    await submitted(database)
    run = await claimed_one(database)

    assert not await finish(database, run, 3)  # not where the log is: nothing happens
    still = await database.run(lambda c: runs.position(c, run.run_id))
    assert still == runs.Position(RunStatus.IN_PROGRESS, 1, 1, closed=False)
    renewal = await database.run(lambda c: leases.renew(c, [Lease(run.run_id, 1)], lease_seconds=60))
    assert renewal.held == {Lease(run.run_id, 1)}

    assert await finish(database, run, 2)
    assert not await finish(database, run, 3)
    assert await append(database, an_append(run, 3)) == set()
    ended = await database.run(lambda c: runs.position(c, run.run_id))
    assert ended == runs.Position(RunStatus.COMPLETED, 1, 2, closed=True)
    check_log(await stored_lines(database, response_id(run.run_id)))


async def test_compaction_keeps_every_byte_and_readers_page_through_it(database: Database) -> None:
    await submitted(database)
    run = await claimed_one(database)
    for number in range(2, 302):
        await append(database, an_append(run, number))
    assert await finish(database, run, 302)
    before = await stored_lines(database, response_id(run.run_id))

    async def read_paged() -> list[str]:
        lines: list[str] = []
        while True:
            cursor = len(lines)
            page = (await database.run(lambda c: events.read_from(c, [(run.run_id, cursor)]))).get(run.run_id)
            if not page:
                return lines
            for chunk in page:
                lines += chunk.lines_from(len(lines))

    reading = [asyncio.create_task(read_paged()) for _ in range(4)]
    rows = await database.run(lambda c: events.compact(c, run.run_id))

    assert rows < 20
    assert [await task for task in reading] == [before] * 4
    assert await read_paged() == before
    assert await stored_lines(database, response_id(run.run_id)) == before


async def test_compaction_leaves_an_open_log_alone(database: Database) -> None:
    await submitted(database)
    run = await claimed_one(database)
    await append(database, an_append(run, 2))

    assert await database.run(lambda c: events.compact(c, run.run_id)) == 0
    assert await append(database, an_append(run, 3)) == {run.run_id}


async def test_a_page_is_cut_by_size_but_never_empty(database: Database) -> None:
    await submitted(database)
    run = await claimed_one(database)
    large = delta(2, "x" * (events.PAGE_BYTES + 1))
    await append(
        database,
        events.Append(run.run_id, 1, events.Chunk(2, 2, large)),
    )
    await append(database, an_append(run, 3))

    page = (await database.run(lambda c: events.read_from(c, [(run.run_id, 2)])))[run.run_id]

    assert [chunk.first_seq for chunk in page] == [2]
    assert events.may_be_cut(page)


async def test_many_writers_of_the_same_runs_do_not_deadlock_and_one_wins_each_number(database: Database) -> None:
    for _ in range(10):
        await submitted(database)
    held = await claimed(database)

    async def write(order: int) -> int:
        wins = 0
        for number in range(2, 12):
            batch = [an_append(run, number) for run in (held if order % 2 else reversed(held))]
            wins += len(await append(database, *batch))
        return wins

    assert sum(await asyncio.gather(*(write(order) for order in range(4)))) == 10 * 10
    heads = await database.run(lambda c: events.heads(c, [run.run_id for run in held]))
    assert set(heads.values()) == {11}


async def test_an_append_looks_at_the_heads_of_its_runs_only(database: Database, database_url: str) -> None:
    for _ in range(30):
        await submitted(database)
    held = await claimed(database, limit=30)
    pinned = Database(fixed(database_url), schema="outlast", application="tests", pin_plan=True)
    async with await pinned.connect() as connection:
        await connection.execute("ANALYZE run_heads")
        for number in range(2, 9):  # the server has settled on a plan for any parameters, made while there were few
            await events.append(connection, "outlast", [an_append(run, number) for run in held])
        await fill(connection, 5000)
        before = await work_on(connection, "run_heads")

        accepted = await events.append(connection, "outlast", [an_append(run, 9) for run in held])

        scans, rows = (after - then for after, then in zip(await work_on(connection, "run_heads"), before, strict=True))
    assert len(accepted) == 30
    assert scans == 0
    assert rows <= 10 * len(held)


async def test_what_is_emitted_in_one_turn_of_the_loop_is_stored_in_one_flush(
    database: Database, settings: Settings
) -> None:
    await submitted(database)
    run = await claimed_one(database)
    flusher = Flusher(database, settings, Tally())
    run_log = flusher.open(run, lost=lambda: None)

    async def emit(number: int) -> None:
        await run_log.append([Event("response.output_text.delta", number, {"delta": "x"})])

    flushing = asyncio.create_task(flusher.run_forever())
    await asyncio.sleep(0)
    await emit(2)
    await asyncio.create_task(emit(3))
    await run_log.flush()
    flushing.cancel()

    chunks = (await database.run(lambda c: events.read_from(c, [(run.run_id, 2)])))[run.run_id]
    assert [(chunk.first_seq, chunk.last_seq) for chunk in chunks] == [(2, 3)]
